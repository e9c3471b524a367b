"""The record as a reader finds it: what failed, what can not be used, and a driver that is still writing."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import optuna
import pytest
from fake_problem import FakeEvaluator, make_encoding, make_problem
from made_run import make_run
from optuna.trial import TrialState, create_trial

from search.front import Mark, front, hypervolume
from search.journal import JOURNAL, open_journal
from search.objectives import Objectives
from search.record import find_study, read_evaluations
from search.report.data import load_run
from search.report.history import read_history
from search.start import noted_start


def add(folder, record, values=(1.0, 0.5)):
    """A trial as only a stranger's hand could leave it."""
    storage = open_journal(folder)
    study = find_study(storage, "rung-1")
    trial = create_trial(state=TrialState.RUNNING, user_attrs={"record": record})
    trial.state, trial.values = TrialState.COMPLETE, list(values)
    trial.datetime_complete = trial.datetime_start
    storage.create_new_trial(study._study_id, template_trial=trial)


def test_entries_are_the_evaluations_with_their_proposals(run_fake):
    _, _, folder = run_fake(budget="12")
    history = read_history(folder)
    assert history.records == read_evaluations(folder)
    searched = history.searched(1)
    assert len(searched) == 12
    assert all(entry.params.keys() == history.distributions.keys() for entry in searched)
    times = [entry.finished for entry in searched]
    assert times == sorted(times)
    assert (history.num_unusable, history.num_running, history.failures) == (0, 0, ())
    start = noted_start(history.notes)
    assert (start.task, start.metric, start.score) == ("fake", "top1", 0.95)


def test_failures_keep_their_reason_and_traceback(run_fake):
    def fail(candidate, rung):
        return rung == 1 and candidate.id[0] in "0123"

    problem = make_problem(fail=fail)
    _, _, folder = run_fake(budget="20", problem=problem)
    failures = read_history(folder).failures
    assert failures
    for failure in failures:
        assert failure.reason == f"ArithmeticError: {failure.candidate} was told to fail"
        assert failure.traceback.startswith("Traceback (most recent call last)")


def test_what_is_not_finite_is_left_out_and_counted(tmp_path):
    folder = make_run(tmp_path / "run")
    record = asdict(read_history(folder).records[0])
    for name, number in (
        ("score", math.nan),
        ("score", -math.inf),
        ("macs", math.inf),
        ("seconds", math.nan),
    ):
        add(folder, record | {"evaluation": record["evaluation"] | {name: number}})
    history = read_history(folder)
    assert history.num_unusable == 4
    assert history.records == [r for r in history.records if math.isfinite(r.evaluation.score)]
    run = load_run(folder)
    assert any("4 evaluations are left out" in remark for remark in run.remarks)


def test_a_torn_last_line_and_a_lock_of_a_live_driver_are_left_as_they_are(tmp_path):
    folder = make_run(tmp_path / "run")
    whole = read_history(folder)
    journal = folder / JOURNAL
    with journal.open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","study_id":0,"datetime_st')
    lock = journal.with_name(JOURNAL + ".lock")
    lock.symlink_to(journal)
    before = journal.read_bytes()
    assert read_history(folder) == whole
    assert journal.read_bytes() == before
    assert lock.is_symlink()


def interrupted(folder, rungs):
    """The run as it was when its driver stood after some rungs: no front, no later evaluations."""
    (folder / "front.json").unlink()
    storage = open_journal(folder)
    for rung in {1, 2, 3} - set(rungs):
        optuna.delete_study(study_name=f"rung-{rung}", storage=storage)
    return folder


@pytest.mark.parametrize("rungs", [(1,), (1, 2), (1, 2, 3)])
def test_a_run_without_a_front_is_read_as_if_it_ended_now(run_fake, rungs):
    finished, _, folder = run_fake(budget="24", final=4)
    run = load_run(interrupted(folder, rungs))
    rung = max(rungs)
    assert run.is_provisional
    assert not run.is_finished
    assert "Provisional" in run.remarks[0]
    marks = [
        Mark(r.evaluation.macs, r.evaluation.score, r.evaluation.candidate)
        for r in run.history.records
        if r.evaluation.rung == rung and not r.is_control and r.evaluation.method in ("refit", "finetune")
    ]
    if rung < 3:
        assert [point.id for point in run.result.points] == [mark.id for mark in front(marks)]
        value = hypervolume(marks, finished.dense.macs)
        assert run.result.hypervolume.value == pytest.approx(value)
    else:
        assert [replace(p, test={}, saved_test=None) for p in finished.points] == list(run.result.points)
        assert run.result.hypervolume == finished.hypervolume
        # A control that is the network of another point, too, stands on record once.
        assert {c.split for c in run.result.comparisons} == {"holdout"}
        assert [0 < c.n <= 4 for c in run.result.comparisons] == [True, True]
        assert all(
            c in [replace(p, test={}, saved_test=None) for p in finished.controls]
            for c in run.result.controls
        )
    assert {point.rung for point in run.result.points} == {rung}
    assert not any(point.test for point in (*run.result.points, *run.result.controls))
    assert (run.result.dense.score, run.result.dense.widths) == (finished.dense.score, finished.dense.widths)
    assert run.result.correlations == tuple(c for c in finished.correlations if c.rungs[1] <= rung)


def test_a_run_that_is_extended_says_that_it_goes_on(run_fake):
    _, _, folder = run_fake(budget="12")
    assert load_run(folder).is_finished
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"budget": "24"}))
    run = load_run(folder)
    assert not run.is_finished
    assert any("goes on" in remark for remark in run.remarks)


class NegativeEvaluator(FakeEvaluator):
    """Scores as a negated error has them."""

    def _score(self, candidate, rung, method, seed):
        return super()._score(candidate, rung, method, seed) - 2.0


def test_a_negative_metric_is_measured_from_the_worst_final(run_fake):
    problem = make_problem()
    evaluator = NegativeEvaluator(problem.space)
    problem = replace(
        problem, metric="neg_rmse", evaluator=evaluator, dense_score=-1.0, unseal=evaluator.unseal
    )
    result, _, folder = run_fake(budget="12", problem=problem)
    finals = (*result.points, *result.dominated, *result.controls)
    reference = result.hypervolume.reference
    assert reference == {"macs": 1.0, "score": min(point.score for point in finals)}
    marks = [Mark(point.macs, point.score, point.id) for point in result.points]
    value = hypervolume(marks, result.dense.macs, least_score=reference["score"])
    assert result.hypervolume.value == pytest.approx(value)
    assert value > 0
    assert load_run(folder).result == result


def test_a_provisional_front_is_one_in_the_objectives_of_the_run(run_fake):
    problem = make_problem()
    objectives = Objectives(("macs", "params"))
    encoding = make_encoding(problem.space, objectives=objectives)
    settings = {"problem": problem, "encoding": encoding, "objectives": objectives.names}
    _, _, folder = run_fake(budget="24", **settings)
    run = load_run(interrupted(folder, (1,)))
    evaluations = [entry.record.evaluation for entry in run.history.searched(1)]
    marks = [objectives.mark(evaluation) for evaluation in evaluations]
    dense = run.result.dense
    assert [point.id for point in run.result.points] == [mark.id for mark in front(marks)]
    value = hypervolume(marks, dense.macs, dense.params)
    assert run.result.hypervolume.value == pytest.approx(value)
    assert run.result.hypervolume.reference == {"macs": 1.0, "params": 1.0, "score": 0.0}
    assert run.result.objectives == ("score", "macs", "params")
