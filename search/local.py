"""The local executor: one evaluation after the other, recorded before the next is asked for."""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING

from search.jobs import phase_of

if TYPE_CHECKING:
    from search.jobs import Jobs, Run


def execute(run: Run, jobs: Jobs) -> None:
    """Make every evaluation that is wanted.

    Raises:
        NothingSucceededError: Where every evaluation so far of a rung failed.
    """
    while (job := jobs.next()) is not None:
        run.progress.begin(run.described(job))
        given_up = False
        try:
            with run.clock.phase(phase_of(job.rung)):
                outcome = run.problem.evaluator.evaluate(
                    job.candidate, rung=job.rung, method=job.method, seed=job.seed
                )
                record = run.record(job, outcome.evaluation, outcome.model.state_dict)
        except (Exception, SystemExit):  # a loader that gives up must not end the run unheard
            given_up = jobs.failed(job, traceback.format_exc())
        else:
            jobs.done(job, record)
        job.forget_training(run.trainings)
        if given_up:
            raise run.nothing_succeeded(job.rung)
