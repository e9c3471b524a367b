"""Rungs 1 and 2: what is proposed and who climbs, for any number of workers."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import TYPE_CHECKING

from evaluators.evaluation import SEARCHED
from search.front import coarse, front
from search.jobs import Job
from search.rungs import climbers
from search.samplers import SAMPLERS, FixedSampler, SamplerContext
from search.seeds import Seed, derived_seed, opening

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.samplers import BaseSampler

    from search.front import Mark
    from search.jobs import Run
    from search.record import Record
    from search.study import Proposal

logger = logging.getLogger(__name__)

#: So many proposals in a row without a new candidate mean that the space is exhausted.
FRUITLESS = 50


class Schedule:
    """Implements :class:`search.jobs.Jobs` until the budget is spent.

    With one worker every decision follows from the record alone; with several, what runs counts as spent,
    and nothing that runs is handed out again.

    Args:
        run: Shared by the steps.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._book, self._config = run, run.book, run.config
        self._seconds_before = run.book.busy_seconds(SEARCHED, proposed=True)
        self._start = time.monotonic()
        self._seeds: Sequence[Seed] = opening(
            run.encoding, run.config.num_targets, run.config.seed, run.problem.knowledge
        )
        self._left_behind = deque(run.book.recover())
        #: By candidate, the proposals that came to one which runs already.
        self._proposed: dict[str, list[Proposal]] = {}
        self._climbing: set[str] = set()
        #: Marks of rung 1, rounded; they are only ever added.
        self._rounded: list[Mark] = []
        self._said_exhausted = False

    def next(self) -> Job | None:
        """Recover, promote, or propose."""
        while True:
            if self._left_behind:
                proposal = self._left_behind.popleft()
                logger.info("trial %d was running when the driver died: taken over", proposal.trial)
            else:
                job = self._promotion()
                if job is not None:
                    return job
                if self._spent(len(self._proposed)) >= 1 or self._is_exhausted():
                    return None if self._proposed else self._promotion(rest=True)
                if sum(map(len, self._proposed.values())) >= FRUITLESS:
                    return None
                proposal = self._book.ask(self._sampler(self._book.num_proposals()))
            job = self._job(proposal)
            if job is not None:
                return job

    def done(self, job: Job, record: Record) -> None:
        """As :meth:`search.jobs.Jobs.done`."""
        if job.proposal is None:
            self._climbing.discard(job.candidate.id)
            self._run.add(record)
            if self._config.max_rung == 2:
                self._run.weights.drop_all_but(mark.id for mark in front(self._run.marks(2)))
        else:
            self._book.tell(job.proposal, record)
            self._run.progress.evaluated(record)
            self._tell_others(job)

    def failed(self, job: Job, trace: str) -> bool:
        """As :meth:`search.jobs.Jobs.failed`."""
        self._run.tell_failure(job, trace)
        if job.proposal is None:
            self._climbing.discard(job.candidate.id)
            self._book.add_failure(job.rung, job.candidate.id, trace)
        else:
            self._book.tell_failed(job.proposal, job.candidate.id, trace)
            self._tell_others(job)
        return self._run.is_hopeless(job.rung)

    # -- proposals --------------------------------------------------------------------------------

    def _job(self, proposal: Proposal) -> Job | None:
        """What a proposal wants evaluated; nothing where it is refused or comes to what is known."""
        run, book = self._run, self._book
        candidate = run.encoding.candidate(proposal.params)
        macs = run.problem.space.macs(candidate.architecture)
        if macs not in run.encoding.window:
            logger.info("trial %d refused by rung 0: %d MACs are outside the window", proposal.trial, macs)
            book.tell_refused(proposal, f"{macs} MACs are outside {run.encoding.window}")
        elif candidate.id in self._proposed:
            logger.info("trial %d is %s, which runs already", proposal.trial, candidate.id)
            self._proposed[candidate.id].append(proposal)
        elif self._is_known(candidate.id):
            logger.info("trial %d is %s, which is known already", proposal.trial, candidate.id)
            book.tell_duplicate(proposal, candidate.id)
        else:
            self._proposed[candidate.id] = []
            seed, origin = self._config.seed, self._origin(proposal)
            return Job(candidate, 1, "refit", seed, origin, proposal=proposal)
        return None

    def _tell_others(self, job: Job) -> None:
        for proposal in self._proposed.pop(job.candidate.id):
            self._book.tell_duplicate(proposal, job.candidate.id)

    def _sampler(self, number: int) -> BaseSampler:
        run = self._run
        if number < len(self._seeds):
            seed = self._seeds[number]
            return FixedSampler(run.encoding.params(seed.architecture, seed.criterion))
        context = SamplerContext(
            run.encoding, derived_seed(self._config.seed, number), self._config.population
        )
        return SAMPLERS[self._config.sampler](context)

    def _origin(self, proposal: Proposal) -> str:
        if proposal.number < len(self._seeds):
            return self._seeds[proposal.number].origin
        return f"sampler: {self._config.sampler}"

    def _is_known(self, candidate: str) -> bool:
        found = self._book.find(candidate, 1, "refit", self._config.seed)
        return found is not None or candidate in self._book.failures(1)

    def _spent(self, num_running: int = 0) -> float:
        """Share of the budget that is used up."""
        budget = self._run.budget
        if budget.evaluations is not None:
            total = max(1, budget.evaluations - self._run.num_reserved)
            return (self._num_evaluated() + num_running) / total
        if budget.gpu_hours is not None:
            return self._gpu_seconds() / (3600 * budget.gpu_hours)
        assert budget.seconds is not None
        return (self._seconds_before + time.monotonic() - self._start) / budget.seconds

    def _gpu_seconds(self) -> float:
        """Of rungs 1 and 2 so far, summed over workers."""
        gpus, book = self._run.gpus, self._book
        return sum(gpus.get(r, 0.0) * e.evaluation.seconds for r in SEARCHED for e in book.records(r))

    def _num_evaluated(self) -> int:
        return len(self._run.marks(1)) + len(self._book.failures(1))

    def _is_exhausted(self) -> bool:
        if self._book.num_fruitless() < FRUITLESS:
            return False
        if not self._said_exhausted:
            self._said_exhausted = True
            self._run.progress.say(
                f"the last {FRUITLESS} proposals brought nothing new: the space is exhausted after "
                f"{self._num_evaluated()} candidates"
            )
        return True

    # -- promotions -------------------------------------------------------------------------------

    def _promotion(self, rest: bool = False) -> Job | None:
        """The best climbs to rung 2, once half of the budget is spent: early luck is not promoted."""
        if self._config.max_rung < 2 or (not rest and self._spent() < 0.5):
            return None
        climbed, beside = self._climbed()
        if not self._may_climb(climbed, rest):
            return None
        best = next(climbers(self._coarse(beside), climbed), None)
        return None if best is None else self._climb(*best)

    def _coarse(self, beside: set[str]) -> list[Mark]:
        """Rung 1 as promotions see it, without what stands on rung 2 as a control only."""
        marks = self._run.marks(1)
        self._rounded += coarse(marks[len(self._rounded) :], *self._run.encoding.steps)
        return [mark for mark in self._rounded if mark.id not in beside] if beside else self._rounded

    def _may_climb(self, climbed: set[str], rest: bool) -> bool:
        """Rung 2 spends a time budget too; when it is over, one candidate climbs at the least."""
        return self._run.budget.evaluations is not None or self._spent() < 1 or (rest and not climbed)

    def _climbed(self) -> tuple[set[str], set[str]]:
        """Candidates that climbed as proposals, and those that stand on rung 2 as controls only."""
        climbed = {mark.id for mark in self._run.marks(2)} | self._climbing
        controls = {r.evaluation.candidate for r in self._book.records(2) if r.is_control} - climbed
        proposed = {mark.id for mark in self._run.marks(1)} - controls
        return climbed | (set(self._book.failures(2)) & proposed), controls

    def _climb(self, rank: int, mark: Mark) -> Job:
        logger.info("%s climbs to rung 2: rank %d of %d evaluations", mark.id, rank, len(self._rounded))
        below = self._book.find(mark.id, 1, "refit", self._config.seed)
        assert below is not None
        self._climbing.add(mark.id)
        return Job(below.candidate, 2, "finetune", self._config.seed, below.origin)
