"""What the sections say of a run: their numbers against the record, their words against the numbers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fake_problem import CRITERIA, make_encoding, make_problem
from made_run import DENSE, EMPTY, POINTS, make_result, make_run
from optuna.distributions import CategoricalDistribution, FloatDistribution

from search.config import RunConfig
from search.drive import drive
from search.front import Mark, hypervolume
from search.latencies import Measurement, write_latencies
from search.problem import Clock
from search.progress import Silent
from search.report.data import load_run
from search.report.importance import importances
from search.report.sections import sections
from search.result import Summary


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search of forty candidates on the fake problem, some of which fail."""
    folder = tmp_path_factory.mktemp("sections")
    problem = make_problem(fail=lambda candidate, rung: rung == 1 and candidate.id[0] == "7")
    config = RunConfig(budget="40", final=3, criteria=CRITERIA, num_targets=4, population=8)
    config.save(folder)
    drive(problem, config, make_encoding(problem.space), folder, Silent(), Clock(), ["Mind the gap."])
    return load_run(folder)


def by_id(run):
    return {section.id: section for section in sections(run)}


def table(section, name):
    return next(table for table in section.tables if table.name == name)


def chart(section, name):
    return next(chart for chart in section.charts if chart.name == name)


def test_charts_and_tables_hold_together(run):
    """Names are those of files, series are as long as they say, cells can be shown."""
    found = sections(run)
    charts = [chart for section in found for chart in section.charts]
    tables = [table for section in found for table in section.tables]
    for names in ([c.name for c in charts], [t.name for t in tables], [s.id for s in found]):
        assert max(Counter(names).values()) == 1
        assert all(name.replace("-", "").isalnum() for name in names)
    for c in charts:
        assert c.title
        assert c.description
        for series in c.series:
            assert len(series.x) == len(series.y)
            assert len(series.error) in (0, len(series.x))
            assert len(series.hover) in (0, len(series.x))
            assert c.y.categories == () or set(series.y) <= set(c.y.categories)
    for t in tables:
        keys = {column.key for column in t.columns}
        assert all(row.keys() <= keys for row in t.rows)
        for row in t.rows:
            for column in t.columns:
                if row.get(column.key) is not None:
                    assert isinstance(column.show(row[column.key]), str)


def test_the_hypervolume_ends_where_the_front_of_rung_1_is(run):
    section = by_id(run)["hypervolume"]
    evaluations = [entry.record.evaluation for entry in run.history.searched(1)]
    marks = [Mark(e.macs, e.score, e.candidate) for e in evaluations]
    whole = hypervolume(marks, run.result.dense.macs)
    for over in ("evaluations", "time"):
        steps = chart(section, f"hypervolume-over-{over}").series[0]
        assert steps.y[-1] == pytest.approx(whole)
        assert list(steps.y) == sorted(steps.y)
    rows = table(section, "hypervolume-by-origin").rows
    assert sum(row["added"] for row in rows) == pytest.approx(whole)
    assert sum(row["evaluations"] for row in rows) == len(marks)
    assert "reference point" in chart(section, "hypervolume-over-time").note
    assert f"{whole:.4f}" in section.words[0]


def test_origins_failures_and_evaluations_are_counted(run):
    found = by_id(run)
    rows = table(found["origins"], "origins").rows
    assert sum(row["evaluations"] for row in rows) == len(run.history.searched(1))
    assert sum(row["points"] for row in rows) == len(run.result.points)
    failures = run.history.failures
    assert failures
    tracebacks = table(found["failures"], "failures")
    assert [row["candidate"] for row in tracebacks.rows] == [f.candidate for f in failures]
    shown = tracebacks.columns[-1].show(tracebacks.rows[0]["traceback"])
    assert shown == f"ArithmeticError: {failures[0].candidate} was told to fail"
    assert tracebacks.rows[0]["traceback"].startswith("Traceback")
    counted = table(found["seconds"], "evaluations").rows
    assert sum(row["evaluations"] for row in counted) == len(run.history.entries)
    assert [row["warning"] for row in table(found["warnings"], "warnings").rows] == ["Mind the gap."]


def test_the_criterion_that_costs_nothing_leads_and_the_worst_trails(run):
    """The fake score takes nothing off taylor, 1 point off l1, 5 points off random."""
    section = by_id(run)["criteria"]
    rows = table(section, "criteria").rows
    assert rows[-1]["criterion"] == "random"
    assert sum(row["candidates"] for row in rows) == len(run.history.searched(1))
    assert rows[0]["mean"] > 0 > rows[-1]["mean"]
    groups = table(section, "criteria-by-group").rows
    expected = Counter(pair for p in run.result.points for pair in p.criteria.items())
    assert {(r["group"], r["criterion"]): r["front"] for r in groups if r["front"]} == dict(expected)


def test_scores_of_two_rungs_are_those_of_the_correlation(run):
    section = by_id(run)["rungs"]
    for found in run.result.correlations:
        lower, upper = found.rungs
        (series,) = chart(section, f"rung-{lower}-against-rung-{upper}").series
        assert len(series.x) == found.n


def test_the_verdict_names_who_wins_by_how_much_and_over_how_many(tmp_path):
    """By construction Scratch-E is 2 and Scratch-B 1 point behind fine-tuning on every one of 8 networks."""
    section = by_id(load_run(make_run(tmp_path / "run")))["training"]
    assert section.words[0] == "Fine-tune: it ends 1.00 points or more above training from scratch."
    assert "3 training seeds" in section.words[-1]
    rows = table(section, "training").rows
    assert len(rows) == 8
    assert [row["scratch_b_gap"] for row in rows] == pytest.approx([-0.01] * 8)
    scratch_e = chart(section, "scratch-minus-fine-tuned").series[1]
    assert scratch_e.y == pytest.approx((-2.0,) * 8)
    assert scratch_e.error == pytest.approx((100 * (2 * 0.003**2 / 3) ** 0.5,) * 8)


@pytest.mark.parametrize(
    ("gaps", "answer"),
    [
        ((0.01, 0.03), "Train from scratch: Scratch-B ends 3.00 points above fine-tuning."),
        ((-0.02, 0.01), "It depends on the compute"),
        ((-0.02, None), "Fine-tune: it ends 2.00 points or more above training from scratch"),
        ((None, None), "Not decided"),
    ],
)
def test_other_verdicts(tmp_path, gaps, answer):
    """A gap of ``None`` differs from network to network, around zero."""

    def point(i, point):
        test = {"finetune": Summary(0.9, None, 1)}
        for method, gap in zip(("scratch_e", "scratch_b"), gaps, strict=True):
            test[method] = Summary(0.9 + ((-1) ** i * 0.05 if gap is None else gap), None, 1)
        return replace(point, test=test)

    points = tuple(point(i, p) for i, p in enumerate(POINTS))
    result = make_result(points=points, dominated=(), controls=(), comparisons=())
    section = by_id(load_run(make_run(tmp_path / "run", result)))["training"]
    assert section.words[0].startswith(answer)


def test_an_architecture_that_is_point_and_control_counts_once(tmp_path):
    twin = replace(POINTS[2], origin="control: uniform", control_of="c3")
    result = make_result(dominated=(), controls=(twin,))
    section = by_id(load_run(make_run(tmp_path / "run", result, journal=False)))["training"]
    assert "5 networks" in section.words[1]
    assert len(table(section, "training").rows) == 5


def measured(id_, ratio, *, backend="eager", batch=1, machine="a machine"):
    return Measurement(id_, backend, "cpu", 2, batch, 10 * ratio, 0.1, ratio, 50, machine)


def test_latency_that_does_not_follow_the_macs_is_a_warning(tmp_path):
    folder = make_run(tmp_path / "run")
    ratios = {"dense": 1.0, "a1": 0.99, "b2": 0.96, "c3": 0.98, "d4": 1.2, "e5": 1.0, "gone": 0.1}
    write_latencies(folder, [measured(name, ratio) for name, ratio in ratios.items()])
    write_latencies(folder, [measured("dense", 1.0, batch=32), measured("a1", 0.3, batch=32)])
    section = by_id(load_run(folder))["latency"]
    (warning,) = [text for text in section.words if "latency does not" in text]
    listed = table(by_id(load_run(folder))["warnings"], "warnings").rows
    assert [row["warning"] for row in listed if row["from"] == "latency"] == [warning]
    assert "a1: 21% of the MACs, 99% of the latency" in warning
    assert [name in warning for name in ("b2", "c3", "d4", "e5", "gone")] == [False, True, True, True, False]
    assert "batch 1, 2 threads, a machine" in warning
    assert any("takes 30% of the dense one's time with 21% of its MACs" in text for text in section.words)
    assert len(section.charts) == 4
    assert len(table(section, "latency").rows) == 8
    points = chart(section, "latency-against-macs-1").series[1]
    assert points.x == pytest.approx([100 * p.macs / DENSE.macs for p in POINTS] + [100])


def test_of_two_parameters_the_one_that_decides_is_beyond_chance():
    generator = np.random.default_rng(0)
    params = [
        {"keep:a": a, "keep:b": b, "criterion": "l1"} for a, b in generator.uniform(0.1, 1, (60, 2)).tolist()
    ]
    distributions = {
        "keep:a": FloatDistribution(0.1, 1.0),
        "keep:b": FloatDistribution(0.1, 1.0),
        "criterion": CategoricalDistribution(("l1", "l2")),
    }
    values, others = [p["keep:a"] for p in params], [p["keep:b"] for p in params]
    found = importances(params, values, others, distributions)
    assert found.beyond_chance == ["keep:a"]
    assert sum(found.shares.values()) == pytest.approx(1)
    assert next(iter(found.others)) == "keep:b"
    noise = [importances(params, generator.random(60).tolist(), others, distributions) for _ in range(10)]
    assert sum(bool(of.beyond_chance) for of in noise) <= 2  # once in twenty times
    assert importances(params, [0.5] * 60, others, distributions) is None
    assert importances(params[:19], values[:19], others[:19], distributions) is None


def lowered(entry, by):
    evaluation = entry.record.evaluation
    changed = replace(evaluation, score=evaluation.score - by)
    return replace(entry, record=replace(entry.record, evaluation=changed))


def test_a_metric_of_its_own_is_named_everywhere_and_may_be_negative(run_fake):
    _, _, folder = run_fake(budget="24")
    raw = json.loads((folder / "front.json").read_text())
    raw["metric"] = "neg_rmse"
    (folder / "front.json").write_text(json.dumps(raw))
    run = load_run(folder)
    below = tuple(lowered(entry, 2.0) for entry in run.history.entries)
    run = replace(run, history=replace(run.history, entries=below))
    text = repr(sections(run))
    assert "top-1" not in text
    assert "top1" not in text
    assert "points)" not in text
    section = by_id(run)["hypervolume"]
    assert chart(section, "hypervolume-over-evaluations").series[0].y[-1] > 0
    assert "neg_rmse \N{MINUS SIGN}1." in chart(section, "hypervolume-over-evaluations").note
    assert by_id(run)["criteria"].charts[0].x.title == "Above trend: neg_rmse gap"


def test_a_run_of_seeds_alone_or_without_a_record_has_sections_too(tmp_path):
    found = by_id(load_run(make_run(tmp_path / "bare", EMPTY, journal=False)))
    assert found["training"].words[0].startswith("Not known")
    assert found["controls"].words[0].startswith("Not known")
    assert "hypervolume" not in found
    made = by_id(load_run(make_run(tmp_path / "made")))
    assert made["groups"].words[0].startswith("Not known: PED-ANOVA")
