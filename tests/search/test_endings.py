"""Runs that can not go on: nothing succeeds on a rung, or a disk is full. Mended, they end as sound ones."""

from __future__ import annotations

import errno
import json
import os

import pytest
from fake_problem import make_problem

from search.jobs import NothingSucceededError
from search.record import read_evaluations
from search.report.history import read_history
from search.weights import Weights


def facts(folder):
    document = json.loads((folder / "front.json").read_text())
    del document["seconds"]
    return document


@pytest.mark.parametrize(("rung", "max_rung"), [(1, 1), (1, 2), (2, 2), (1, 3), (2, 3), (3, 3)])
def test_a_rung_that_nothing_comes_through_ends_the_run_and_is_tried_again(run_fake, rung, max_rung) -> None:
    _, _, sound = run_fake("sound", max_rung=max_rung, budget="9")
    broken = make_problem(fail=lambda _, at: at == rung)
    said = rf"^no candidate came to the end of rung {rung}: \d+ failed, the last with ArithmeticError: \w+"
    for _ in range(2):
        with pytest.raises(NothingSucceededError, match=said):
            run_fake(max_rung=max_rung, budget="9", problem=broken)
    _, _, mended = run_fake(max_rung=max_rung, budget="9")
    assert facts(mended) == facts(sound)
    assert read_evaluations(mended) == read_evaluations(sound)
    assert not read_history(mended).failures


def fails_honestly(candidate, rung):
    return rung == 1 and candidate.id < "4"


def test_failed_proposals_stay_where_only_the_final_re_fits_are_tried_again(run_fake) -> None:
    settings = {"max_rung": 1, "budget": "18"}
    _, _, sound = run_fake("sound", problem=make_problem(fail=fails_honestly), **settings)
    broken = make_problem(fail=fails_honestly)
    evaluate = broken.evaluator.evaluate

    def refuse_careful(candidate, **how):
        if how["method"] == "careful":
            raise ArithmeticError("no careful re-fit")
        return evaluate(candidate, **how)

    broken.evaluator.evaluate = refuse_careful
    with pytest.raises(NothingSucceededError, match="no careful re-fit"):
        run_fake(problem=broken, **settings)
    _, _, mended = run_fake(problem=make_problem(fail=fails_honestly), **settings)
    assert read_history(mended).failures
    assert facts(mended) == facts(sound)
    assert read_evaluations(mended) == read_evaluations(sound)


def full_disk(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("where", ["in an evaluation", "keeping weights"])
def test_a_full_disk_is_no_failure_of_a_candidate(run_fake, monkeypatch, where) -> None:
    _, _, sound = run_fake("sound", budget="9")
    problem, keep, calls = make_problem(), Weights.keep, iter(range(100))
    evaluate = problem.evaluator.evaluate

    def now_and_then(work):
        return lambda *args, **how: (full_disk if next(calls) == 3 else work)(*args, **how)

    if where == "keeping weights":
        monkeypatch.setattr(Weights, "keep", now_and_then(keep))
    else:
        problem.evaluator.evaluate = now_and_then(evaluate)
    with pytest.raises(OSError, match="No space left"):
        run_fake(budget="9", problem=problem)
    _, _, mended = run_fake(budget="9")
    assert not read_history(mended).failures
    assert facts(mended) == facts(sound)
    assert read_evaluations(mended) == read_evaluations(sound)
