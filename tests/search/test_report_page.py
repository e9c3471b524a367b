from __future__ import annotations

import re
from dataclasses import replace

import pytest
from made_run import DENSE, EMPTY, POINTS, make_result, make_run
from report_page import Page, page_of, trace

from search.report import write_report
from search.report.data import load_run
from search.report.page import render_page, repeat_command
from search.result import Comparison, Hypervolume, RungCorrelation, Summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = make_run(tmp_path_factory.mktemp("runs") / "digits")
    write_report(folder)
    return folder


@pytest.fixture(scope="module")
def page(run):
    return Page((run / "report.html").read_text())


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


def test_the_page_says_what_the_cheap_scores_are_worth_and_whom_the_number_leaves_out(page):
    assert (
        "Rung 1 agreed with rung 2 on the order of about 86 of 100 pairs among the 8 candidates that both "
        "scored: Kendall's tau 0.71 (95% interval 0.30 to 0.90)." in page.text
    )
    assert "Only candidates that climbed have both scores." in page.text
    assert "1 and 2 0.71 0.30 to 0.90 8" in page.text
    assert "2 and 3 0.20 \N{MINUS SIGN}0.45 to 0.72 5" in page.text


def test_a_run_with_one_rung_says_that_nothing_is_known_of_its_scores(tmp_path):
    said = page_of(tmp_path / "run", make_result(correlations=())).text
    assert "Not known: fewer than three candidates were scored on two rungs." in said


def test_a_ranking_without_an_interval_or_a_tau_is_shown_as_one(tmp_path):
    correlations = (
        RungCorrelation(1.0, None, None, 3, rungs=(1, 2)),
        RungCorrelation(None, None, None, 3, rungs=(2, 3)),
    )
    said = page_of(tmp_path / "run", make_result(correlations=correlations)).text
    assert "1 and 2 1.00 none 3" in said
    assert "2 and 3 none none 3" in said


def test_who_found_a_point_stands_in_the_table_the_cards_the_plot_and_a_count(tmp_path):
    points = (replace(POINTS[0], origin="seed: error curve"), *POINTS[1:])
    page = page_of(tmp_path / "run", make_result(points=points, dominated=()))
    assert "Front points from: 4 sampler: front, 1 seed: error curve." in page.text
    assert page.text.count("seed: error curve") == 3
    assert trace(page, "front")["hovertext"][0].endswith("<br>seed: error curve")


def test_a_long_warning_is_folded_but_whole_and_a_short_one_stands_open(tmp_path):
    long = "bn_scale does not apply to " + ", ".join(f"layer{i}.conv" for i in range(40)) + "."
    page = page_of(tmp_path / "run", make_result(warnings=(long, "Short.")))
    folds = page_of(tmp_path / "short", make_result(warnings=("Short.",))).tags.count("details")
    assert f"{long} show all Short." in page.text
    assert page.tags.count("details") == folds + 1


def test_one_criterion_of_a_point_is_named_once_and_several_beside_their_groups(tmp_path):
    one = replace(POINTS[1], criteria={"stem": "activation_mean", "block.conv1": "activation_mean"})
    said = page_of(tmp_path / "run", make_result(points=(POINTS[0], one))).text
    assert "group dense 21% 29% activation_mean stem 8 8 8" in said
    assert "block.conv1 16 7 taylor 7 block.conv2 32 11 l1 11" in said
    assert "Units chosen by l1 in 1 group, taylor in 1." in said
    assert "Units chosen by activation_mean." in said


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
