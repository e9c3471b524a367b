"""The page without a browser: its words, its cards and the data that its scripts draw."""

from __future__ import annotations

import json
import math
import re
import shlex
from dataclasses import asdict, replace

import pytest
from made_run import DENSE, EMPTY, GROUPS, POINTS, make_result, make_run
from report_page import Page, page_of

from search.command import run_command
from search.config import RunConfig
from search.latencies import Measurement, write_latencies
from search.latency_options import parse_backends
from search.objectives import parse_objectives
from search.report import write_report
from search.report.__main__ import report
from search.report.data import load_run
from search.report.page import render_page, repeat_command
from search.report.section import Axis, Chart, Column, Section, Series, Table
from search.result import Hypervolume, Summary
from search.run import run as search_run


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


def test_the_plot_is_given_every_final_with_its_sizes_and_scores_on_both_splits(page):
    finals = {final["id"]: final for final in page.front["finals"]}
    kinds = [final["kind"] for final in page.front["finals"]]
    assert kinds == ["front"] * 5 + ["dominated", "uniform", "random"]
    for point in POINTS:
        found = finals[point.id]
        assert found["holdout"] == list(asdict(point.scores["finetune"]).values())
        assert found["test"] == list(asdict(point.test["finetune"]).values())
        assert found["sizes"]["macs"] == [point.macs / DENSE.macs, point.macs]
        assert found["sizes"]["params"] == [point.params / DENSE.params, point.params]
        assert found["sizes"]["bytes"] == [200 / (4 * DENSE.params), 200]
        assert found["widths"] == [point.widths[name] for name in GROUPS]
        assert [page.front["criteria"][i] if i is not None else None for i in found["criteria"]] == [
            None,
            "taylor",
            "l1",
        ]
    assert page.front["dense"] == {"holdout": DENSE.score, "test": DENSE.test}
    assert page.front["groups"] == [[name, full] for name, full in GROUPS.items()]
    assert page.front["chosen"] == 2


def test_the_plot_is_given_cheap_evaluations_by_rung_and_finals_once(page):
    scores = {dots["rung"]: dots["scores"] for dots in page.front["dots"]}
    assert scores == {1: [0.2, 0.5, 0.93], 2: [0.22, 0.52, 0.95]}
    first = page.front["dots"][0]
    assert first["macs"] == [300_000, 300_001, 300_002]
    assert [first["origins"][i] for i in first["origin"]] == ["seed: random"] * 3


def test_only_what_was_measured_with_the_dense_network_is_a_latency_axis(tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    ways = (("dense", "eager", 4.0), ("c3", "eager", 2.0), ("c3", "compile", 1.0))
    write_latencies(
        folder, [Measurement(id_, way, "cpu", 1, 8, ms, 0.1, ms / 3.9, 9, "x") for id_, way, ms in ways]
    )
    page = Page(render_page(load_run(folder)))
    assert [size["title"] for size in page.front["sizes"]] == [
        "MACs",
        "Parameters",
        "Weights file",
        "Latency, eager, batch 8, CPU, 1 thread",
    ]
    known = {f["id"]: f["sizes"]["latency-0"] for f in page.front["finals"] if "latency-0" in f["sizes"]}
    assert known == {"c3": [2.0 / 3.9, 2.0]}


def test_the_headline_is_about_the_point_nearest_to_half_the_macs_on_test(page):
    # 48% of the MACs; test: 94.82% against 96%.
    assert "Removing 52% of the MACs costs 1.2 points of top-1" in page.text
    assert "within one point of the dense network down to 71% of its MACs" in page.text


def test_the_verdicts_come_before_the_front(page):
    above = page.text[: page.text.index("Across MACs")]
    assert "Null result. Against uniform widths" in above
    assert "Yes. The search is 1.81 points better than random widths" in above
    # Equal gaps on every network: the interval has no width.
    assert "Fine-tuning beats Scratch-E by 2.00 points on test" in above
    assert "Rung 1 agreed with rung 2 on the order of about 86 of 100 pairs" in above


def test_a_run_that_compared_nothing_says_that_nothing_is_known(tmp_path):
    points = tuple(replace(point, test={}) for point in POINTS)
    bare = make_result(points=points, dominated=(), controls=(), comparisons=(), correlations=())
    said = page_of(tmp_path / "run", bare).text
    assert "Not known. Fewer than three candidates were scored on two rungs." in said
    assert "Not known. This run trained no controls at equal MACs." in said
    assert "Not known. This run did not train its networks both ways." in said


def test_the_page_gives_the_commands_that_repeat_and_export(run, page):
    again = "python -m search.run --task digits --budget 24 --seed 3 --criterion l1,taylor"
    assert again in page.text
    for i, point in enumerate(POINTS):
        for format_ in ("architecture", "onnx", "pt2", "int8"):
            assert (
                f"python -m search.pick {run} --id {point.id} --export {format_}" in page.cards[f"card-{i}"]
            )
    assert "Its weights are not saved" in page.cards["card-5"]


def test_the_page_asks_no_other_file_for_anything(page):
    assert not {"link", "img", "iframe"} & set(page.tags)
    links = [value for name, value in page.attributes if name in {"src", "href"}]
    assert links
    assert all(value.startswith("#") for value in links)


HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>{{ 7 * 7 }}\u202e"


def test_hostile_text_stays_text_in_words_data_and_sections(tmp_path):
    chart = Chart(
        "n",
        HOSTILE,
        Axis(HOSTILE),
        Axis(HOSTILE, categories=(HOSTILE,)),
        (Series(HOSTILE, "bars", (math.nan,), (HOSTILE,), "first", hover=(HOSTILE,)),),
        HOSTILE,
        HOSTILE,
    )
    table = Table(
        "t", HOSTILE, (Column(HOSTILE, HOSTILE),), ({HOSTILE: HOSTILE}, {HOSTILE: math.inf}), HOSTILE
    )
    section = Section("s", HOSTILE, (HOSTILE,), (chart,), (table,))
    point = replace(POINTS[2], criteria={HOSTILE: HOSTILE}, widths={HOSTILE: 3}, origin=HOSTILE)
    result = make_result(task=HOSTILE, metric=HOSTILE, points=(point,))
    folder = make_run(tmp_path / "a<b>'\"", result, config={HOSTILE: HOSTILE}, candidate=HOSTILE)
    page = Page(render_page(load_run(folder), (section,)))
    assert page.tags.count("script") == len(page.scripts) == 3
    assert "img" not in page.tags
    assert not [name for name, _ in page.attributes if name.startswith("on")]
    assert "\u202e" not in page.text
    assert page.text.count("<img src=x onerror=alert(2)>") > 5
    assert page.data["charts"][0]["series"][0] | {"label": ""} == {
        "label": "",
        "kind": "bars",
        "role": "first",
        "x": [None],
        "y": [0],
        "error": [],
        "hover": [HOSTILE.replace("\u202e", "\N{REPLACEMENT CHARACTER}")],
    }
    assert page.data["tables"][0]["rows"] == [[HOSTILE], [None]]


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("{", "peers.json can not be read"),
        ('{"schema": 2, "points": []}', "`schema` must be 1"),
        ('{"schema": 1, "points": [{"name": "a"}]}', "peers.json can not be read"),
        (
            '{"schema": 1, "points": [{"name": "a", "macs": NaN, "score": 1, "split": "test"}]}',
            "'a' needs finite numbers",
        ),
        (
            '{"schema": 1, "points": [{"name": "a", "macs": 1, "score": 1, "split": "train", "source": ""}]}',
            "`split` of 'a' must be test or holdout",
        ),
    ],
)
def test_peers_that_are_none_are_refused_in_one_line(tmp_path, capsys, text, rule):
    folder = make_run(tmp_path / "run", journal=False)
    (folder / "peers.json").write_text(text)
    assert run_command(report, "search.report", [str(folder)]) == 2
    said = capsys.readouterr().err
    assert rule in said
    assert said.count("\n") == 1
    assert not (folder / "report.html").exists()


ENDLESS = "9" * 400


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        (r'"seconds": {', '"seconds": {"later": Infinity, ', "`seconds` need finite numbers"),
        (r'"warnings": \[', '"warnings": [5, ', "`warnings` must be text"),
        (r'"split": "test",\s+"mean": [-\d.]+', '"split": "test", "mean": NaN', "a comparison needs finite"),
        (r'"test": [\d.]+', f'"test": {ENDLESS}', "the dense network needs finite numbers"),
        (r'"control_of": null', '"control_of": 5', "must be text"),
        (r'"saved_test": [\d.]+', '"saved_test": -Infinity', "needs finite numbers"),
    ],
)
def test_a_front_of_other_types_is_refused_in_one_line(tmp_path, capsys, old, new, rule):
    folder = make_run(tmp_path / "run", journal=False)
    text, found = re.subn(old, new, (folder / "front.json").read_text())
    assert found
    (folder / "front.json").write_text(text)
    assert run_command(report, "search.report", [str(folder)]) == 2
    said = capsys.readouterr().err
    assert rule in said
    assert said.count("\n") == 1
    assert not (folder / "report.html").exists()


@pytest.mark.parametrize("change", [{"machine": 5}, {"median_ms": int(ENDLESS)}, {"id": {}}])
def test_latencies_of_other_types_are_refused_in_one_line(tmp_path, capsys, change):
    folder = make_run(tmp_path / "run", journal=False)
    row = asdict(Measurement("dense", "eager", "cpu", 1, 1, 1.0, 0.1, 1.0, 9, "a machine")) | change
    (folder / "latency.json").write_text(json.dumps({"schema": 1, "measurements": [row]}))
    assert run_command(report, "search.report", [str(folder)]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_peers_are_handed_to_the_plot(tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    peer = {"name": "L1", "macs": 480_000, "params": 9, "score": 0.9, "split": "test", "source": "a paper"}
    (folder / "peers.json").write_text(json.dumps({"schema": 1, "points": [peer]}))
    assert Page(render_page(load_run(folder))).front["peers"] == [
        {
            "name": "L1",
            "source": "a paper",
            "split": "test",
            "score": 0.9,
            "sizes": {"macs": 480_000, "params": 9},
        }
    ]


def test_an_empty_front_is_said_in_a_sentence(tmp_path):
    folder = make_run(tmp_path / "run", EMPTY)
    write_report(folder)
    page = Page((folder / "report.html").read_text())
    assert "No front yet: nothing was finished on the highest rung" in page.text
    assert page.front["dots"][0]["scores"] == [0.2, 0.5, 0.93]
    assert page.front["chosen"] is None
    assert (folder / "front.png").stat().st_size > 0


def test_a_metric_that_is_no_fraction_is_shown_as_it_is(tmp_path):
    result = make_result(metric="psnr", dense=replace(DENSE, score=31.26, test=30.5))
    page = page_of(tmp_path / "run", result, journal=False)
    assert "The dense network scores 30.5 psnr on test" in page.text
    assert page.front["metric"] == {"title": "psnr", "axis": "psnr", "fraction": False}


def test_without_a_config_or_a_journal_the_rest_is_still_shown(tmp_path):
    folder = make_run(tmp_path / "run", journal=False)
    (folder / "config.json").unlink()
    page = Page(render_page(load_run(folder)))
    assert len(page.front["finals"]) == 8
    assert page.front["dots"] == []


def test_a_single_seed_has_no_deviation(tmp_path):
    lone = replace(POINTS[0], scores={"finetune": Summary(0.9, None, 1)}, test={})
    page = page_of(tmp_path / "run", make_result(points=(lone, *POINTS[1:])), journal=False)
    assert page.front["finals"][0]["holdout"] == [0.9, None, 1]
    assert page.front["finals"][0]["test"] == [None, None, 1]


def test_a_front_of_other_objectives_says_what_it_is_of(tmp_path):
    result = make_result(objectives=("score", "params", "latency_ms"))
    said = page_of(tmp_path / "other", result, journal=False).text
    assert "The search was for top-1, parameters and latency: no network" in said
    assert "than another. On holdout a network with" in said
    assert "The search was for" not in page_of(tmp_path / "default", journal=False).text


def test_a_small_hypervolume_has_its_digits(tmp_path):
    result = make_result(hypervolume=Hypervolume(2.13449e-4, {"macs": 1.0, "score": -0.0675}))
    said = page_of(tmp_path / "run", result).text
    assert "Hypervolume 0.0002134: what the front dominates" in said
    assert "score = \N{MINUS SIGN}0.0675." in said
    assert "The final front has hypervolume 0.0002134, up to" in said


def test_a_page_of_a_run_that_goes_on_loads_itself_again_and_says_so(tmp_path):
    run = replace(load_run(make_run(tmp_path / "run")), is_provisional=True, refresh_seconds=10.0)
    page = Page(render_page(run))
    assert ("content", "10") in page.attributes
    assert "Provisional: the run has not finished." in page.text
    assert "97.00% top-1 on holdout" not in page.text.split("The dense network scores")[0]
    assert "top-1 on holdout with 1 M MACs" in page.text


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
    assert repeat_command(config) == (
        "python -m search.run --task 'my file.py:make' --criterion-per-group "
        "--exclude 'a*' --exclude 'b*' --seed 0"
    )


def test_the_command_that_repeats_a_run_is_read_as_the_runs_own_settings():
    config = asdict(RunConfig(criteria=("l1", "taylor"), objectives=("top1", "macs", "params"), latency=()))
    words = shlex.split(repeat_command(json.loads(json.dumps(config))))[3:]
    given = search_run.make_context("search.run", words).params
    assert parse_objectives(given["objectives"]) == ("top1", "macs", "params")
    assert parse_backends("latency", given["latency"]) == ()
    assert given["criteria"] == ("l1,taylor",)
    assert given["final"] == 5
    assert "--final 0" in repeat_command({"final": 0})
