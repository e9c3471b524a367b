"""More objectives than MACs: fronts against brute force, whole runs on the arithmetic evaluator."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
import pytest
from fake_problem import CRITERIA, make_encoding, make_problem, make_space
from hypothesis import given
from hypothesis import strategies as st
from optuna.study import StudyDirection

from evaluators.evaluation import Evaluation
from evaluators.options import OptionError
from search.config import RunConfig, check_equal
from search.front import Mark, coarse, crowding, front, hypervolume, ranked, ranks
from search.objectives import MACS, Objectives, check_metric, parse_objectives
from search.record import read_evaluations
from search.result import Result
from search.storage import storage_in

if TYPE_CHECKING:
    from spaces import Architecture

LATENCY = Objectives(("macs", "latency_ms"))

MARKS = st.lists(
    st.builds(
        lambda macs, cost, score, id_: Mark(macs, score / 8, id_, (float(macs), cost / 2)),
        st.integers(1, 8),
        st.integers(1, 8),
        st.integers(0, 8),
        st.text("abcdef", min_size=4, max_size=4),
    ),
    max_size=24,
    unique_by=lambda mark: mark.id,
)


def dominates(a: Mark, b: Mark) -> bool:
    """In all costs and the score, as it is defined."""
    worse = [x > y for x, y in zip(a.costs, b.costs, strict=True)] + [a.score < b.score]
    return not any(worse) and a.values != b.values


@given(MARKS)
def test_ranks_and_the_front_of_three_objectives_are_those_of_brute_force(marks: list[Mark]) -> None:
    rank_of = ranks(marks).tolist()
    waiting = marks
    for rank in range(max(rank_of, default=-1) + 1):
        best = [m for m in waiting if not any(dominates(other, m) for other in waiting)]
        assert best == [m for m, r in zip(marks, rank_of, strict=True) if r == rank]
        waiting = [m for m in waiting if m not in best]
    assert waiting == []
    found = front(marks)
    assert {m.values for m in found} == {m.values for m, r in zip(marks, rank_of, strict=True) if r == 0}
    assert found == sorted(found)
    assert [rank for rank, _ in ranked(marks)] == sorted(rank_of)


@given(st.lists(st.tuples(st.integers(1, 30), st.integers(0, 30)), max_size=20))
def test_a_cost_that_says_the_same_as_macs_changes_nothing(values: list[tuple[int, int]]) -> None:
    plain = [Mark(macs, score / 30, f"{i:02}") for i, (macs, score) in enumerate(values)]
    alike = [replace(mark, costs=(float(mark.macs),)) for mark in plain]
    assert ranks(alike).tolist() == ranks(plain).tolist()
    assert [m.id for m in front(alike)] == [m.id for m in front(plain)]
    assert [m.id for _, m in ranked(alike)] == [m.id for _, m in ranked(plain)]
    assert crowding(alike).tolist() == crowding(plain).tolist()
    assert hypervolume(alike, 30) == hypervolume(plain, 30)
    rounded = [mark.costs[0] for mark in coarse(alike, 4)]
    assert rounded == [mark.macs for mark in coarse(plain, 4)]


def test_a_volume_by_hand() -> None:
    boxes = [Mark(5, 0.5, "a", (5.0, 8.0)), Mark(8, 0.5, "b", (8.0, 5.0)), Mark(9, 1.0, "c", (9.0, 12.0))]
    # Two boxes of 5 x 2 and 2 x 5 tenths that share 2 x 2, half a score high; the third is slower than dense.
    assert hypervolume(boxes, 10, 10) == pytest.approx(0.5 * (0.10 + 0.10 - 0.04))


def test_objectives_are_named_with_the_metric() -> None:
    assert parse_objectives("latency_ms, top1,macs") == ("top1", "macs", "latency_ms")
    assert check_metric(("score", "macs"), "auc") == ("auc", "macs")
    assert Objectives.of(("auc", "macs")) == MACS
    for text in ("top1", "macs", "top1,top5,macs", "", "top1,macs,macs", "macs,"):
        with pytest.raises(OptionError, match="name the task's metric, or score, and one or more of macs"):
            parse_objectives(text)
    with pytest.raises(OptionError, match="--objectives top1,macs: the task's metric is auc"):
        check_metric(("top1", "macs"), "auc")


def test_a_run_is_resumed_with_its_objectives_by_either_name() -> None:
    stored = RunConfig(objectives=("auc", "macs"))
    for same in (("auc", "macs"), ("score", "macs")):
        check_equal(stored, {"objectives": same})
    for other in (("auc", "params"), ("top1", "macs")):
        with pytest.raises(OptionError, match="--objectives was auc,macs, is "):
            check_equal(stored, {"objectives": other})


def test_an_evaluation_without_a_latency_has_no_value() -> None:
    evaluation = Evaluation("a", 1, "refit", 0, 0.9, 10, 5, 1.0)
    assert MACS.values(evaluation) == [10.0, 0.9]
    with pytest.raises(ValueError, match="Candidate a has no `latency_ms`"):
        LATENCY.values(evaluation)
    assert LATENCY.values(replace(evaluation, latency_ms=2.0)) == [10.0, 2.0, 0.9]


class Stopwatch:
    """A machine on which the widths' order turns around: the last layers cost all, and each look differs."""

    def __init__(self) -> None:
        self.looks = 0

    def __call__(self, architecture: Architecture) -> float:
        self.looks += 1
        return 0.05 * architecture.widths["layer3"] + 0.001 * self.looks


@pytest.fixture
def run_timed(run_fake):
    """As ``run_fake``, with latency as an objective."""

    def run(folder="run", objectives=LATENCY, **settings):
        problem = make_problem(latency=Stopwatch())
        encoding = make_encoding(problem.space, objectives=objectives, dense_latency_ms=1.6)
        names = ("top1", *objectives.costs)
        return run_fake(folder, problem=problem, encoding=encoding, objectives=names, **settings)

    return run


@pytest.mark.parametrize("sampler", ["front", "nsga2", "tpe", "random", "gp"])
def test_every_sampler_searches_three_objectives(run_timed, sampler: str) -> None:
    result, _, folder = run_timed(budget="15", sampler=sampler, max_rung=2)
    assert result.counts["rung-1"] == 15
    study = optuna.load_study(study_name="rung-1", storage=storage_in(folder).read())
    assert study.directions == [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE]
    told = [t for t in study.get_trials(deepcopy=False) if "record" in t.user_attrs]
    for trial in told:
        evaluation = trial.user_attrs["record"]["evaluation"]
        assert trial.values == [evaluation["macs"], evaluation["latency_ms"], evaluation["score"]]


def test_the_front_is_not_dominated_in_the_objectives_and_front_json_names_them(run_timed) -> None:
    result, _, folder = run_timed(budget="24", final=4)
    finals = [*result.points, *result.dominated]
    marks = {p.id: Mark(p.macs, p.score, p.id, (p.macs, p.latency_ms)) for p in finals}
    assert [p.id for p in result.points] == [m.id for m in front(marks.values())]
    assert result.objectives == ("score", "macs", "latency_ms")
    assert result.hypervolume.reference == {"macs": 1.0, "latency_ms": 1.0, "score": 0.0}
    dense = make_space().macs(make_space().dense)
    volume = hypervolume([marks[p.id] for p in result.points], dense, 1.6)
    assert result.hypervolume.value == pytest.approx(volume)
    document = json.loads((folder / "front.json").read_text())
    assert document["dense"]["latency_ms"] == 1.6
    assert all(point["latency_ms"] > 0 for point in (*document["points"], *document["controls"]))
    assert Result.load(folder) == result


def test_networks_of_equal_widths_share_their_first_latency(run_timed) -> None:
    _, _, folder = run_timed(budget="18")
    found: dict[Architecture, set[float]] = {}
    for record in read_evaluations(folder):
        found.setdefault(record.candidate.architecture, set()).add(record.evaluation.latency_ms)
    assert {len(latencies) for latencies in found.values()} == {1}
    assert len(set.union(*found.values())) == len(found)


def test_a_run_for_parameters_needs_no_latency(run_fake) -> None:
    problem = make_problem()
    encoding = make_encoding(problem.space, objectives=Objectives(("params",)))
    result, _, _ = run_fake(problem=problem, encoding=encoding, max_rung=1, budget="16")
    params = [p.params for p in result.points]
    marks = [Mark(p.macs, p.score, p.id, (p.params,)) for p in (*result.points, *result.dominated)]
    assert len(params) == len(front(marks)) == len(result.points)
    assert result.objectives == ("score", "params")
    assert result.hypervolume.reference == {"params": 1.0, "score": 0.0}


def test_the_default_leaves_nothing_new_in_front_json(run_fake) -> None:
    _, _, folder = run_fake()
    text = (folder / "front.json").read_text()
    assert "objectives" not in text
    assert "latency" not in text
    assert Result.load(folder).objectives == ("score", "macs")


def test_steps_are_the_same_share_of_each_cost() -> None:
    encoding = make_encoding(criteria=CRITERIA, objectives=LATENCY, dense_latency_ms=2.0)
    share = encoding.grid / encoding.dense_costs[0]
    assert encoding.dense_costs[1] == 2.0
    assert encoding.steps == (encoding.grid, pytest.approx(2.0 * share))
