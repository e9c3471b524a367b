"""The local executor: one evaluation after the other, recorded before the next is asked for."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from search.command import is_refusal
from search.jobs import phase_of

if TYPE_CHECKING:
    from evaluators.evaluation import Outcome
    from search.jobs import Job, Jobs, Run


def execute(run: Run, jobs: Jobs) -> None:
    """Make every evaluation that is wanted.

    Raises:
        NothingSucceededError: Where every evaluation so far of a rung failed.
        OSError: Where a disk is full, or may not be written to.
    """
    while (job := jobs.next()) is not None:
        run.progress.begin(run.described(job))
        given_up = False
        try:
            with run.clock.phase(phase_of(job.rung)):
                outcome = run.problem.evaluator.evaluate(
                    job.candidate, rung=job.rung, method=job.method, seed=job.seed
                )
        except (Exception, SystemExit) as error:  # a loader that gives up must not end the run unheard
            if is_refusal(error):
                raise  # a full disk says nothing of a candidate
            given_up = jobs.failed(job, traceback.format_exc())
        else:
            given_up = _put_on_record(run, jobs, job, outcome)
        job.forget_training(run.trainings)
        if given_up:
            raise run.nothing_succeeded(job.rung)


def _put_on_record(run: Run, jobs: Jobs, job: Job, outcome: Outcome) -> bool:
    """Whether to give up: a score that is not finite is the candidate's failure, all else is ours."""
    try:
        record = run.record(job, outcome.evaluation, outcome.model.state_dict)
    except ArithmeticError:
        return jobs.failed(job, traceback.format_exc())
    jobs.done(job, record)
    return False
