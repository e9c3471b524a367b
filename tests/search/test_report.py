from __future__ import annotations

import csv
import json
import math
import re
import struct
from dataclasses import asdict, replace
from html.parser import HTMLParser

import pytest
from made_run import DENSE, POINTS, make_point, make_result, make_run

from search.command import run_command
from search.report import write_report
from search.report.__main__ import report
from search.report.data import Gap, agreements, dots, load_run, training_gaps
from search.report.marks import score_range
from search.report.page import render_page, repeat_command
from search.report.words import Metric, count, duration, headline, reach, share, training_verdict, verdict
from search.result import Comparison, Hypervolume, Result, Summary
from search.study import read_evaluations

TOP1 = Metric("top1")
EMPTY = make_result(
    points=(),
    dominated=(),
    controls=(),
    comparisons=(),
    hypervolume=Hypervolume(0.0, {"macs": 1.0, "score": 0.0}),
)


class Page(HTMLParser):
    """Text outside of scripts and styles, tags and their attributes, and the figure."""

    def __init__(self, source):
        super().__init__()
        self.words, self.tags, self.attributes, self.scripts, self._inside = [], [], [], [], None
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())
        self.figure = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag if tag in {"script", "style"} else None

    def handle_endtag(self, tag):  # noqa: ARG002
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            self.words.append(data)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "digits")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text())


def page_of(folder, result=None, **kwargs):
    return Page(render_page(load_run(make_run(folder, result, **kwargs))))


def trace(page, meta, mode="markers"):
    return next(t for t in page.figure["data"] if t["meta"] == meta and t["mode"] == mode)


# report.html


def test_every_final_is_in_the_table_with_each_method_on_both_splits(page):
    result = make_result()
    for point in (*result.points, *result.dominated, *result.controls):
        assert point.id in page.text
        for summary in point.test.values():
            assert f"{100 * summary.mean:.2f} ± 0.30%" in page.text
        for summary in point.scores.values():
            assert f"holdout {100 * summary.mean:.2f} ± 0.20%" in page.text
    assert page.text.count("n = 3") == 3 * 8


def test_the_plot_shows_the_front_the_controls_and_the_dense_network_on_holdout(page):
    front = trace(page, "front")
    assert front["x"] == pytest.approx([21, 29, 48, 71, 88])
    assert front["y"] == pytest.approx([100 * point.score for point in POINTS])
    assert front["error_y"]["array"] == pytest.approx([0.2] * 5)
    assert trace(page, "uniform")["x"] == pytest.approx([47.5])
    assert trace(page, "random")["y"] == pytest.approx([93.82])
    assert trace(page, "dominated")["y"] == pytest.approx([95])
    assert trace(page, "ink")["y"] == pytest.approx([97])


def test_the_plot_shows_cheap_evaluations_by_rung_and_finals_once(page):
    assert trace(page, "rung-1")["y"] == pytest.approx([20, 50, 93])
    assert trace(page, "rung-2")["y"] == pytest.approx([22, 52, 95])
    assert not [t for t in page.figure["data"] if t["meta"] == "rung-3"]


def test_the_headline_is_about_the_point_nearest_to_half_the_macs_on_test(page):
    # 48% of the MACs; test: 94.82% against 96%.
    assert "Removing 52% of the MACs costs 1.2 points of top-1" in page.text
    assert "within one point of the dense network down to 71% of its MACs" in page.text


def test_the_page_answers_both_questions_says_what_failed_and_what_it_took(page):
    assert "No, a null result: against uniform widths" in page.text
    assert "Yes: the search is 1.81 points better than random widths" in page.text
    # Equal gaps on every network: the interval has no width.
    assert "Fine-tuning beats Scratch-E by 2.00 points on test" in page.text
    assert "aten::foo has no rule." in page.text
    assert "rung 1, untrained 24 evaluations" in page.text
    assert "3 min 20 s" in page.text
    assert "Hypervolume 0.6543" in page.text
    assert "macs = 1, score = 0" in page.text
    assert "Rungs 1 and 2 rank the 3 candidates that reached both with a correlation of 1.00" in page.text


def test_the_page_gives_the_commands_that_repeat_and_pick(run, page):
    assert (
        "python -m search.run --task digits --budget 24 --seed 3 --criterion l1 --criterion taylor"
        in page.text
    )
    for point in POINTS:
        assert f"python -m search.pick {run} --id {point.id} --export architecture" in page.text


def test_kept_units_are_bars_against_the_dense_width(page):
    heights = [value for name, value in page.attributes if name == "style"]
    assert heights == ["--kept: 100.0%", "--kept: 43.8%", "--kept: 34.4%"] * 5
    assert ("title", "block.conv1: 7 of 16, by taylor") in page.attributes


def test_the_page_asks_no_other_file_for_anything(page):
    assert not {"link", "img", "iframe"} & set(page.tags)
    assert not [value for name, value in page.attributes if name in {"src", "href"}]


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}"


def test_hostile_text_stays_text_wherever_it_stands(tmp_path):
    point = replace(
        POINTS[2],
        criteria={HOSTILE: HOSTILE},
        widths={HOSTILE: 3},
        origin=HOSTILE,
        weights=HOSTILE,
        scores={HOSTILE: Summary(0.9, None, 1)},
        test={HOSTILE: Summary(0.9, None, 1)},
    )
    result = make_result(
        task=HOSTILE,
        metric=HOSTILE,
        points=(point,),
        controls=(replace(POINTS[1], origin=f"control: {HOSTILE}", control_of=HOSTILE),),
        comparisons=(Comparison(HOSTILE, HOSTILE, 0.1, None, None, 1),),
        counts={HOSTILE: 1},
        seconds={HOSTILE: 1.0},
        warnings=(HOSTILE,),
        hypervolume=Hypervolume(0.5, {HOSTILE: 1.0}),
    )
    folder = make_run(
        tmp_path / "a<b>'\"", result, config={HOSTILE: HOSTILE, "task": HOSTILE}, candidate=HOSTILE
    )
    write_report(folder)
    page = Page((folder / "report.html").read_text())
    assert len(page.scripts) == 3
    assert page.tags.count("script") == 3
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert page.text.count(HOSTILE) > 10
    hovers = [text for t in page.figure["data"] for text in t.get("hovertext", [])]
    assert not [text for text in hovers if re.search(r"<(?!/?b>|br>)", text)]


def test_an_empty_front_is_said_in_a_sentence(tmp_path):
    folder = make_run(tmp_path / "run", EMPTY)
    write_report(folder)
    page = Page((folder / "report.html").read_text())
    assert "No front yet: nothing was finished on the highest rung" in page.text
    assert "Not known: this run trained no controls at equal MACs." in page.text
    assert trace(page, "rung-1")["y"] == pytest.approx([20, 50, 93])
    assert (folder / "front.csv").read_text().startswith("kind,id,macs,")
    assert (folder / "front.png").stat().st_size > 0


def test_a_metric_that_is_no_fraction_is_shown_as_it_is(tmp_path):
    page = page_of(
        tmp_path / "run",
        make_result(metric="psnr", dense=replace(DENSE, score=31.26, test=30.5)),
        journal=False,
    )
    assert "The dense network scores 30.5 psnr on test" in page.text
    assert trace(page, "ink")["y"] == [31.26]
    assert page.figure["layout"]["yaxis"]["title"]["text"] == "Holdout psnr"


def test_without_a_config_or_a_journal_the_rest_is_still_shown(tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    (folder / "config.json").unlink()
    page = Page(render_page(load_run(folder)))
    assert trace(page, "front")["x"] == pytest.approx([21, 29, 48, 71, 88])
    assert not [t for t in page.figure["data"] if t["meta"].startswith("rung")]


# front.csv


def test_the_csv_holds_the_numbers_of_front_json(run):
    with (run / "front.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    result = Result.load(run)
    finals = (*result.points, *result.dominated, *result.controls)
    assert [row["kind"] for row in rows] == ["front"] * 5 + ["dominated", "uniform", "random"]
    for row, point in zip(rows, finals, strict=True):
        assert (row["id"], int(row["macs"]), int(row["params"])) == (point.id, point.macs, point.params)
        assert (float(row["score"]), float(row["saved_test"])) == (point.score, point.saved_test)
        assert float(row["macs_share"]) == point.macs / result.dense.macs
        assert {name: int(row[f"width:{name}"]) for name in point.widths} == point.widths
        assert {name: row[f"criterion:{name}"] for name in point.criteria} == point.criteria
        for split, summaries in (("holdout", point.scores), ("test", point.test)):
            for method, summary in summaries.items():
                found = {key: float(row[f"{split}_{method}_{key}"]) for key in ("mean", "sd", "n")}
                assert found == asdict(summary)


def test_what_a_point_lacks_is_an_empty_cell(tmp_path):
    lone = replace(
        POINTS[0], scores={"refit": Summary(0.9, None, 1)}, test={}, weights="refit", saved_test=None
    )
    folder = make_run(tmp_path / "run", make_result(points=(lone, *POINTS[1:])), journal=False)
    write_report(folder)
    with (folder / "front.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert (row["holdout_refit_mean"], row["holdout_refit_sd"], row["holdout_refit_n"]) == ("0.9", "", "1")
    assert (row["test_finetune_mean"], row["saved_test"], row["control_of"]) == ("", "", "")


# front.png


def test_the_picture_is_a_png_of_1280_by_832(run):
    head = (run / "front.png").read_bytes()[:24]
    assert head[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", head[16:24]) == (1280, 832)


def test_names_that_look_like_formulas_are_drawn_as_they_are(tmp_path):
    folder = make_run(tmp_path / "run", make_result(task=r"$\frac{", metric="$x_{"), journal=False)
    write_report(folder)
    assert (folder / "front.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_score_axis_fits_the_finals_with_their_deviations_and_not_the_cheap_scores(tmp_path):
    low, high = score_range(load_run(make_run(tmp_path / "run")))
    assert 85 < low < 89.53
    assert 97.45 < high < 100


# words


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (0.955, "Removing 52% of the MACs costs 0.5 points of top-1"),
        (0.9598, "Removing 52% of the MACs costs less than 0.1 points of top-1"),
        (0.96, "Removing 52% of the MACs costs no top-1"),
        (0.97, "Removing 52% of the MACs costs no top-1"),
    ],
)
def test_the_headline_says_what_the_front_costs(test, words):
    assert headline(make_result(points=(make_point("x", 480_000, 0.95, test=test),)), "test") == words


def test_a_front_far_below_the_dense_network_says_so():
    said = reach(make_result(points=POINTS[:2]))
    assert said == "No network of the front comes within one point of the dense one's top-1 on holdout."


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (
            (0.02, 0.01, 0.03, 4),
            "Yes: the search is 2.00 points better than uniform widths at equal MACs on test",
        ),
        (
            (-0.02, -0.03, -0.01, 4),
            "No: the search is 2.00 points worse than uniform widths at equal MACs on test",
        ),
        (
            (0.001, -0.01, 0.012, 4),
            "No, a null result: against uniform widths at equal MACs the difference is +0.10",
        ),
        (
            (0.03, None, None, 1),
            "Not known: against uniform widths at equal MACs the difference is +3.00 on test",
        ),
        ((0.0, None, None, 0), "Not known: no network was compared with uniform widths at equal MACs."),
    ],
)
def test_the_verdict_calls_a_gain_a_loss_a_null_result_and_ignorance_by_name(numbers, words):
    assert verdict(Comparison("uniform", "test", *numbers), TOP1).startswith(words)


def test_a_null_result_gives_its_interval_and_pairs():
    said = verdict(Comparison("random", "test", 0.001, -0.01, 0.012, 4), TOP1)
    assert said.endswith("and the 95% interval \N{MINUS SIGN}1.00 to +1.20 (4 pairs) contains zero.")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((-0.02, -0.03, -0.01, 4), "Fine-tuning beats Scratch-E by 2.00 points on test"),
        ((0.02, 0.01, 0.03, 4), "Scratch-E beats fine-tuning by 2.00 points on test"),
        (
            (0.001, -0.01, 0.012, 4),
            "No measurable difference between Scratch-E and fine-tuning: +0.10 on test",
        ),
        ((0.03, None, None, 1), "Scratch-E minus fine-tuned: +3.00 on test, from 1 network, too few"),
    ],
)
def test_fine_tuning_and_scratch_training_are_compared_in_words(numbers, words):
    assert training_verdict(Gap("scratch_e", *numbers), TOP1).startswith(words)


def test_numbers_are_written_with_their_units():
    assert [count(n) for n in (512, 27_400, 40_813_184, 4.1e9)] == ["512", "27.4 k", "40.8 M", "4.1 G"]
    assert [share(part, 1000) for part in (485, 1000, 99.4, 5)] == ["48%", "100%", "9.9%", "0.5%"]
    assert [duration(s) for s in (0.44, 59.99, 200, 7_500)] == ["0.4 s", "60.0 s", "3 min 20 s", "2 h 5 min"]
    assert TOP1.summary(Summary(0.9693, 0.0021, 3)) == "96.93 ± 0.21%"
    assert TOP1.summary(Summary(0.9693, None, 1)) == "96.93%"


# data


def test_scratch_minus_fine_tuned_is_paired_over_all_finals():
    """Differences of 0 and -2 points: mean -1, half width t(0.975, 1) = 12.706 times 1."""
    even = replace(POINTS[0], test={"finetune": Summary(0.9, None, 1), "scratch_e": Summary(0.9, None, 1)})
    result = make_result(points=(even, POINTS[1]), dominated=(), controls=())
    gaps = {gap.method: gap for gap in training_gaps(result)}
    assert gaps["scratch_e"].mean == pytest.approx(-0.01)
    assert gaps["scratch_e"].high == pytest.approx(-0.01 + 0.12706, abs=1e-5)
    assert gaps["scratch_b"].low is None
    assert gaps["scratch_b"].n == 1


def test_a_dot_is_the_best_method_with_the_mean_over_its_seeds(tmp_path):
    records = read_evaluations(make_run(tmp_path / "run"))
    final = [record for record in records if record.evaluation.candidate == "c3"]
    again = replace(final[0], evaluation=replace(final[0].evaluation, seed=1, score=0.9602))
    (dot,) = dots([*final, again])
    assert (dot.id, dot.rung, dot.macs) == ("c3", 3, 480_000)
    assert dot.score == pytest.approx((0.9582 + 0.9602) / 2)


def test_rungs_agree_by_spearmans_correlation_over_shared_candidates(tmp_path):
    """Ranks 1 2 3 against 3 1 2: 1 - 6 * (4 + 1 + 1) / (3 * 8) = -0.5."""
    records = read_evaluations(make_run(tmp_path / "run", EMPTY))
    scores = iter((0.9, 0.1, 0.5))
    changed = [
        replace(r, evaluation=replace(r.evaluation, score=next(scores))) if r.evaluation.rung == 2 else r
        for r in records
    ]
    (agreement,) = agreements(dots(changed))
    assert (agreement.lower, agreement.upper, agreement.n) == (1, 2, 3)
    assert agreement.rho == pytest.approx(-0.5)
    constant = [replace(r, evaluation=replace(r.evaluation, score=0.5)) for r in records]
    assert agreements(dots(constant)) == ()


def test_full_widths_come_from_the_dense_network_else_from_the_widest_ever_built(tmp_path):
    result = make_result(dense=replace(DENSE, widths={"stem": 64}))
    assert load_run(make_run(tmp_path / "run", result)).full_widths == {
        "stem": 64,
        "block.conv1": 16,
        "block.conv2": 32,
    }


def test_settings_without_a_value_and_those_that_are_no_options_are_not_in_the_command():
    config = {
        "task": "my file.py:make",
        "model": None,
        "criterion_per_group": True,
        "include": [],
        "exclude": ["a*", "b*"],
        "seed": 0,
        "precision": {"dtype": "float32"},
    }
    words = (
        "python -m search.run --task 'my file.py:make' --criterion-per-group "
        "--exclude 'a*' --exclude 'b*' --seed 0"
    )
    assert " ".join(repeat_command(config)) == words


# the command


def test_the_command_writes_the_files_and_says_where(tmp_path, capsys):
    folder = make_run(tmp_path / "run", journal=False)
    assert run_command(report, "search.report", [str(folder)]) == 0
    files = [folder / name for name in ("front.csv", "front.png", "report.html")]
    assert capsys.readouterr().out.splitlines() == [str(path) for path in files]
    assert all(path.stat().st_size for path in files)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize(
    ("spoil", "rule"),
    [
        (
            lambda run: (run / "front.json").unlink(),
            "holds no front.json; a finished `python -m search.run` writes it.",
        ),
        (lambda run: (run / "front.json").write_text("{"), "front.json can not be read"),
        (lambda run: (run / "front.json").write_text("[]"), "front.json can not be read"),
        (lambda run: (run / "front.json").write_text('{"schema": 9}'), "`schema` must be 1"),
        (lambda run: (run / "config.json").write_text("{"), "config.json can not be read"),
        (lambda run: (run / "config.json").write_text("[]"), "config.json must hold a JSON object."),
    ],
)
def test_a_folder_that_is_no_finished_run_is_refused_in_one_line(tmp_path, capsys, spoil, rule):
    folder = make_run(tmp_path / "run", journal=False)
    spoil(folder)
    assert run_command(report, "search.report", [str(folder)]) == 2
    said = capsys.readouterr()
    assert said.err.startswith(f"search.report: {folder}: ")
    assert rule in said.err
    assert (said.err.count("\n"), said.out) == (1, "")
    assert not (folder / "report.html").exists()


def test_a_missing_folder_is_refused(tmp_path, capsys):
    assert run_command(report, "search.report", [str(tmp_path / "none")]) == 2
    assert capsys.readouterr().err == f"search.report: {tmp_path / 'none'}: there is no such folder.\n"


@pytest.mark.parametrize("change", [{"id": "../../etc"}, {"macs": "many"}, {"score": math.inf}])
def test_a_point_that_is_none_is_refused(tmp_path, change):
    folder = make_run(tmp_path / "run", journal=False)
    raw = json.loads((folder / "front.json").read_text())
    raw["points"][0] |= change
    (folder / "front.json").write_text(json.dumps(raw))
    with pytest.raises(ValueError, match=r"front\.json can not be read"):
        load_run(folder)
