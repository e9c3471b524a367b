"""Whole runs on the arithmetic evaluator: budgets, promotions, finals, failures, extension."""

from __future__ import annotations

import json
import sys
from collections import Counter
from dataclasses import replace

import pytest
from fake_problem import make_encoding, make_problem, make_space

from search.config import RunConfig
from search.drive import finished_result
from search.finish import compare
from search.front import Mark, front, spread
from search.jobs import NothingSucceededError
from search.progress import Silent
from search.record import read_evaluations
from search.report.history import read_history
from search.result import Point, Result, Summary


def facts(folder):
    document = json.loads((folder / "front.json").read_text())
    del document["seconds"]
    return document


def on_rung(folder, rung):
    return [r for r in read_evaluations(folder) if r.evaluation.rung == rung]


def num_candidates(folder, rung):
    return len({r.evaluation.candidate for r in on_rung(folder, rung)})


def test_equal_seeds_give_equal_studies_and_other_seeds_others(run_fake) -> None:
    _, _, first = run_fake("first", seed=3)
    _, _, again = run_fake("again", seed=3)
    _, _, other = run_fake("other", seed=4)
    assert facts(first) == facts(again)
    assert read_evaluations(first) == read_evaluations(again)
    assert read_evaluations(first) != read_evaluations(other)


@pytest.mark.parametrize("sampler", ["front", "nsga2", "tpe", "random"])
def test_a_count_budget_is_met_exactly_and_two_thirds_stay_below_rung_2(run_fake, sampler) -> None:
    result, evaluator, folder = run_fake(budget="15", sampler=sampler)
    assert result.counts["rung-1"] == len(on_rung(folder, 1)) == 15
    assert result.counts["rung-2"] == 5
    assert Counter(key.split()[1] for key in evaluator.evaluated)["1"] == 15
    assert max(Counter(evaluator.evaluated).values()) == 1
    origins = Counter(r.origin for r in on_rung(folder, 1))
    assert origins == {"seed: uniform": 3, "seed: random": 3, f"sampler: {sampler}": 9}


def test_nothing_is_promoted_before_half_of_the_budget_is_spent(run_fake) -> None:
    _, evaluator, _ = run_fake(budget="16")
    rungs = [key.split()[1] for key in evaluator.evaluated]
    assert rungs[:8] == ["1"] * 8
    assert rungs[8:10] == ["2", "2"]
    assert rungs.index("3") > max(i for i, rung in enumerate(rungs) if rung == "2")


def test_finals_and_their_controls_get_all_methods_and_seeds(run_fake) -> None:
    result, _, folder = run_fake(budget="18", final=3, final_seeds=2, seed=5)
    finals = [*result.points, *result.dominated]
    second = [Mark(r.evaluation.macs, r.evaluation.score, r.evaluation.candidate) for r in on_rung(folder, 2)]
    window = make_encoding().window
    assert {p.id for p in finals} == {m.id for m in spread(second, 3, window.low, window.high)}
    assert len(result.controls) == 6
    for point in (*finals, *result.controls):
        assert set(point.scores) == {"finetune", "scratch_e", "scratch_b"}
        assert {summary.n for summary in point.scores.values()} == {2}
        assert point.score == max(summary.mean for summary in point.scores.values())
        assert point.scores[point.weights].mean == point.score
    seeds = {(r.evaluation.method, r.evaluation.seed) for r in on_rung(folder, 3)}
    assert seeds == {(m, s) for m in ("finetune", "scratch_e", "scratch_b") for s in (5, 6)}


class Announced(Silent):
    """What a run says that it will do, and what it has done."""

    def __init__(self) -> None:
        self.total: dict[int, int] = {}
        self.done: Counter[int] = Counter()

    def expect(self, counts) -> None:
        self.total |= counts

    def evaluated(self, record) -> None:
        self.done[record.evaluation.rung] += 1


@pytest.mark.parametrize("max_rung", [1, 2, 3])
@pytest.mark.parametrize("failing", [False, True])
def test_what_is_announced_is_reached_though_controls_coincide(run_fake, max_rung, failing) -> None:
    for seed in range(4):
        told, problem = Announced(), make_problem()
        if failing:
            result, _, _ = run_fake(f"first-{seed}", budget="9", max_rung=max_rung, seed=seed)
            lost = {result.controls[0].id, result.points[-1].id}
            problem = make_problem(fail=lambda c, rung, lost=lost: c.id in lost and rung == max_rung)
        run_fake(f"{seed}", budget="9", max_rung=max_rung, seed=seed, problem=problem, progress=told)
        assert told.total[max_rung] == told.done[max_rung] > 0


def test_controls_have_at_most_their_points_macs_within_a_step(run_fake) -> None:
    result, _, _ = run_fake(budget="18", final=3)
    space = make_space()
    points = {p.id: p for p in (*result.points, *result.dominated)}
    for control in result.controls:
        limit = points[control.control_of].macs
        assert control.macs <= limit
        for group in space.groups:
            wider = dict(control.widths)
            wider[group.name] = min(group.width, wider[group.name] + group.step)
            assert wider == control.widths or space.macs(space.dense.of(wider)) > limit


def test_the_front_is_computed_on_holdout_from_finals_alone(run_fake) -> None:
    result, _, folder = run_fake(budget="24", final=5)
    marks = {p.id: Mark(p.macs, p.score, p.id) for p in (*result.points, *result.dominated)}
    assert [marks[p.id] for p in result.points] == front(marks.values())
    assert {p.rung for p in result.points} == {3}
    assert sorted(path.name for path in (folder / "architectures").iterdir()) == sorted(
        p.id for p in result.points
    )
    assert Result.load(folder) == result
    assert not (folder / "finals").exists()


@pytest.mark.parametrize("max_rung", [1, 2])
def test_a_run_below_rung_3_has_all_non_dominated_evaluations_as_points(run_fake, max_rung) -> None:
    result, evaluator, folder = run_fake(budget="16", max_rung=max_rung, final=2)
    proposed = [r for r in on_rung(folder, max_rung) if not r.is_control]
    marks = [Mark(r.evaluation.macs, r.evaluation.score, r.evaluation.candidate) for r in proposed]
    assert [p.id for p in result.points] == [mark.id for mark in front(marks)]
    assert result.dominated == ()
    assert {p.rung for p in result.points} == {max_rung}
    assert max(Counter(evaluator.evaluated).values()) == 1
    assert 2 <= len(result.controls) <= 4


def test_on_rung_1_alone_the_controls_are_part_of_the_budget(run_fake) -> None:
    result, evaluator, folder = run_fake(budget="16", max_rung=1, final=2)
    methods = Counter((r.evaluation.method, r.is_control) for r in on_rung(folder, 1))
    assert methods["refit", False] == 12
    assert methods["careful", False] == len(result.points) + len(result.dominated)
    assert 0 < methods["careful", True] <= len(result.controls)  # one may be known already
    assert methods["refit", True] == 0
    assert result.counts["rung-1"] == num_candidates(folder, 1) <= 16
    assert {point.weights for point in result.points} == {"careful"}
    assert sum(methods.values()) == len(evaluator.evaluated)


def test_scores_that_are_not_exact_are_measured_again(run_fake) -> None:
    problem = replace(make_problem(), exact_scores=False)
    problem.evaluator.holdout_score = lambda model: round(float(model.holdout), 1)
    result, _, _ = run_fake(problem=problem, budget="16", max_rung=1)
    assert all(point.score == round(point.score, 1) for point in result.points)
    scores = [point.score for point in result.points]
    assert scores == sorted(set(scores))


def test_test_can_not_be_read_before_the_front_is_final(run_fake) -> None:
    problem = make_problem()
    sealed = problem.evaluator.test_score
    with pytest.raises(RuntimeError, match="read before the front was final"):
        sealed(problem.dense_model)
    order = []
    evaluate = problem.evaluator.evaluate
    problem.evaluator.evaluate = lambda *a, **k: (order.append("evaluate"), evaluate(*a, **k))[1]
    problem.evaluator.test_score = lambda model: (order.append("test"), sealed(model))[1]
    run_fake(problem=problem)
    assert "evaluate" not in order[order.index("test") :]


def test_a_count_that_differs_from_the_closed_form_is_an_error_that_names_both(run_fake) -> None:
    problem = make_problem()
    problem.evaluator.count_macs = lambda model: int(model.macs) + 7
    with pytest.raises(RuntimeError, match=r"fvcore counts \d+ MACs, the closed form says \d+\."):
        run_fake(problem=problem)


def test_a_failing_candidate_is_recorded_and_counted_and_the_run_goes_on(run_fake) -> None:
    problem = make_problem(fail=lambda candidate, rung: rung == 1 and candidate.id < "4")
    result, evaluator, _folder = run_fake(problem=problem, budget="18")
    attempts = [key for key in evaluator.evaluated if key.split()[1] == "1"]
    failed = [key for key in attempts if key < "4"]
    assert failed
    assert len(attempts) == 18
    assert result.counts["rung-1"] == 18 - len(failed)


def test_a_run_whose_first_evaluations_all_fail_makes_no_more(run_fake) -> None:
    problem = make_problem(fail=lambda *_: True)
    with pytest.raises(NothingSucceededError):
        run_fake(problem=problem)
    assert len(problem.evaluator.evaluated) == 3


def test_an_evaluation_that_asks_to_exit_has_failed(run_fake) -> None:
    problem = make_problem()
    evaluate, asked = problem.evaluator.evaluate, []

    def exits_once(candidate, **how):
        if not asked:
            asked.append(candidate.id)
            sys.exit(3)
        return evaluate(candidate, **how)

    problem.evaluator.evaluate = exits_once
    _, _, folder = run_fake(problem=problem)
    assert [(f.candidate, f.reason) for f in read_history(folder).failures] == [(asked[0], "SystemExit: 3")]


def test_a_report_that_can_not_be_written_is_told_with_a_command_to_copy(run_fake, monkeypatch) -> None:
    def broken(*_, **__):
        raise ValueError("peers.json is broken")

    monkeypatch.setattr("search.drive.write_report", broken)
    said = []
    _, _, folder = run_fake("a run", progress=_Listener(said))
    again = f"python -m search.report '{folder}' writes it"
    assert [line for line in said if "peers" in line] == [
        f"warning: no report: peers.json is broken; {again}"
    ]


def test_a_final_that_fails_is_left_out(run_fake) -> None:
    _, _, whole = run_fake("whole", budget="18", final=3)
    lost = facts(whole)["points"][0]["id"]
    problem = make_problem(fail=lambda candidate, rung: rung == 3 and candidate.id == lost)
    result, _, _ = run_fake("failing", problem=problem, budget="18", final=3)
    assert lost not in {p.id for p in (*result.points, *result.dominated)}
    assert all(p.control_of != lost for p in result.controls)


def test_a_space_that_is_exhausted_ends_the_search(run_fake) -> None:
    space = make_space(widths=(4, 4), divisor=2)
    said = []
    progress = _Listener(said)
    encoding = make_encoding(space, window="1%:100%", criteria=("l1",))
    result, evaluator, _ = run_fake(
        problem=make_problem(space), encoding=encoding, budget="40", progress=progress, criteria=("l1",)
    )
    assert result.counts["rung-1"] == 4
    assert [line for line in said if "the space is exhausted after 4 candidates" in line]
    assert max(Counter(evaluator.evaluated).values()) == 1


class _Listener:
    def __init__(self, said):
        self.said = said

    def expect(self, counts):
        self.said.append(f"expected {counts}")

    def begin(self, what):
        self.said.append(what)

    def evaluated(self, record):
        self.said.append(record.evaluation.candidate)

    def say(self, line):
        self.said.append(line)


def test_a_time_budget_ends_the_search(run_fake) -> None:
    result, _, _ = run_fake(budget="1s")
    assert result.counts["rung-1"] >= 5
    assert 1 <= result.counts["rung-2"] <= max(1, result.counts["rung-1"] // 3)


def test_a_time_budget_counts_earlier_sessions(run_fake) -> None:
    first, _, _ = run_fake(budget="9", problem=make_problem(slow=0.1), max_rung=2)
    again, evaluator, _ = run_fake(budget="0.9s", problem=make_problem(slow=0.1), max_rung=2)
    assert again.counts == first.counts
    assert evaluator.evaluated == []


def test_promotion_stops_with_the_time(run_fake, monkeypatch) -> None:
    now = 0.0
    monkeypatch.setattr("search.schedule.time.monotonic", lambda: now)
    problem = make_problem()
    evaluate = problem.evaluator.evaluate

    def slow(candidate, *, rung, method, seed):
        nonlocal now
        now += {1: 1.0, 2: 20.0}[rung]
        return evaluate(candidate, rung=rung, method=method, seed=seed)

    problem.evaluator.evaluate = slow
    run_fake(budget="60s", problem=problem, max_rung=2, final=1)
    proposals = Counter(key.split()[1] for key in problem.evaluator.evaluated)
    assert proposals["1"] == 30  # half of the time, then rung 2 takes the rest
    assert proposals["2"] == 2 + 2  # two climbed, and two controls stand beside one of them


@pytest.mark.parametrize("max_rung", [1, 2])
def test_an_extended_short_ladder_ends_with_the_counts_of_a_longer_one(run_fake, max_rung) -> None:
    settings = {"max_rung": max_rung, "num_targets": 2, "population": 4}
    run_fake("grown", budget="12", **settings)
    _, _, grown = run_fake("grown", budget="24", **settings)
    _, _, whole = run_fake("whole", budget="24", **settings)

    def climbed(folder):
        return sum(not record.is_control for record in on_rung(folder, 2))

    assert climbed(grown) == climbed(whole) == (8 if max_rung == 2 else 0)
    assert num_candidates(grown, 1) <= 24
    assert num_candidates(whole, 1) <= 24


def test_more_finals_on_rung_1_do_not_overdraw_the_budget(run_fake) -> None:
    run_fake(budget="24", max_rung=1, final=2)
    _, _, folder = run_fake(budget="24", max_rung=1, final=8)
    assert num_candidates(folder, 1) <= 24


def test_what_a_user_keeps_in_architectures_stays(run_fake) -> None:
    _, _, folder = run_fake(budget="12")
    (folder / "architectures" / "notes").mkdir()
    (folder / "architectures" / ".DS_Store").write_text("x")
    run_fake(budget="18")
    assert (folder / "architectures" / "notes").is_dir()
    assert (folder / "architectures" / ".DS_Store").exists()


def test_a_finished_run_is_known_by_its_settings(run_fake) -> None:
    result, _, folder = run_fake(budget="12")
    config = RunConfig.load(folder)
    assert finished_result(folder, config) == result
    assert finished_result(folder, replace(config, budget="13")) is None
    (folder / "front.json").unlink()
    assert finished_result(folder, config) is None


def test_an_extended_run_repeats_nothing_and_keeps_its_finals(run_fake) -> None:
    first, _, folder = run_fake(budget="12", num_targets=2, population=4)
    before = read_evaluations(folder)
    second, evaluator, _ = run_fake(budget="24", num_targets=2, population=4)
    assert second.counts["rung-1"] == 24
    assert second.counts["rung-2"] == 8
    done = {
        f"{r.evaluation.candidate} {r.evaluation.rung} {r.evaluation.method} {r.evaluation.seed}"
        for r in before
    }
    assert not done & set(evaluator.evaluated)
    earlier = {p.id for p in (*first.points, *first.dominated)}
    assert earlier <= {p.id for p in (*second.points, *second.dominated)}
    _, _, whole = run_fake("whole", budget="24", num_targets=2, population=4)
    names = [{r.evaluation.candidate for r in on_rung(path, 1)} for path in (folder, whole)]
    assert len(names[0] & names[1]) >= 12


def test_comparisons_are_paired_with_students_interval() -> None:
    def point(name, score, origin="sampler: front", beside=None):
        summary = {"finetune": Summary(score - 0.1, None, 1)}
        return Point(name, 1, 1, score, 3, "finetune", summary, summary, None, {}, {}, origin, beside)

    points = [point("a", 0.9), point("b", 0.8), point("c", 0.7)]
    controls = [
        point("u", 0.89, "control: uniform", "a"),
        point("v", 0.78, "control: uniform", "b"),
        point("w", 0.67, "control: uniform", "c"),
        point("r", 0.5, "control: random", "a"),
    ]
    found = compare([*points, *controls], "uniform", "test")
    # Differences 0.01, 0.02, 0.03: sd 0.01, t(0.975, 2) = 4.302653.
    assert (found.mean, found.n, found.conclusive) == (pytest.approx(0.02), 3, False)
    assert found.high == pytest.approx(0.02 + 4.302653 * 0.01 / 3**0.5)
    assert found.low == pytest.approx(0.02 - 4.302653 * 0.01 / 3**0.5)
    alike = compare([*points, point("a", 0.9, "control: uniform", "a"), *controls], "uniform", "test")
    assert (alike.n, alike.alike, found.alike) == (4, 1, 0)
    single = compare([*points, *controls], "random", "holdout")
    assert (single.mean, single.low, single.high, single.n) == (pytest.approx(0.4), None, None, 1)
