"""The local executor: one candidate after the other, recorded before the next is asked for."""

from __future__ import annotations

import logging
import time
import traceback
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from evaluators.evaluation import METHODS, SEARCHED
from search.front import Mark, coarse, front
from search.limits import Budget
from search.problem import Clock
from search.rungs import promotable, ranked
from search.samplers import SAMPLERS, FixedSampler, SamplerContext
from search.seeds import Seed, derived_seed, opening
from search.study import Record

if TYPE_CHECKING:
    from collections.abc import Sequence

    from optuna.samplers import BaseSampler

    from evaluators.candidate import Candidate
    from evaluators.evaluation import Method
    from search.config import RunConfig
    from search.encoding import Encoding
    from search.problem import Problem
    from search.progress import Progress
    from search.study import Book, Proposal
    from search.weights import Weights

logger = logging.getLogger(__name__)

#: So many proposals in a row without a new candidate mean that the space is exhausted.
FRUITLESS = 50

#: A run whose first evaluations all fail has a defect that more of them will not mend.
_HOPELESS = 3


@dataclass(eq=False)
class Run:
    """Everything that the steps of one run share.

    Attributes:
        problem: What is searched.
        config: The run's settings.
        encoding: Between candidates and parameters.
        book: The record.
        weights: Where networks of the highest rung are kept.
        progress: Who is told.
        clock: Where time goes.
    """

    problem: Problem
    config: RunConfig
    encoding: Encoding
    book: Book
    weights: Weights
    progress: Progress
    clock: Clock = field(default_factory=Clock)

    @cached_property
    def budget(self) -> Budget:
        """What may be spent."""
        return Budget.parse(self.config.budget)

    @property
    def num_reserved(self) -> int:
        """Evaluations of a count budget left for controls: they run on rung 1 where it is the last one."""
        if self.config.max_rung > 1 or self.budget.evaluations is None:
            return 0
        planned = min(2 * self.config.final, self.budget.evaluations // 4)
        return max(planned, sum(record.is_control for record in self.book.records(1)))

    def marks(self, rung: int) -> list[Mark]:
        """Scores by which proposals are compared on rung 1 or 2; for rung 3 see :mod:`search.finals`."""
        records = self.book.records(rung)
        return [mark_of(r) for r in records if not r.is_control and r.evaluation.method == SEARCHED.get(rung)]

    def evaluate(
        self, candidate: Candidate, how: tuple[int, Method, int], origin: str, beside: str | None
    ) -> Record:
        """Evaluate and, on the highest rung, keep the weights; recording is the caller's."""
        rung, method, seed = how
        macs = self.problem.space.macs(candidate.architecture)
        share = macs / self.problem.space.macs(self.problem.space.dense)
        self.progress.begin(f"rung {rung}: {candidate.id}, {method}, {share:.1%} MACs, {origin}")
        with self.clock.phase(phase_of(rung)):
            outcome = self.problem.evaluator.evaluate(candidate, rung=rung, method=method, seed=seed)
            criteria = dict(candidate.chosen)
            record = Record(outcome.evaluation, origin, dict(candidate.architecture.items), criteria, beside)
            if rung == self.config.max_rung and self._may_matter(record):
                self.weights.keep(record, outcome.model)
        return record

    def failed(self, candidate: str, rung: int) -> str:
        """Tell and log the exception that is being handled; its traceback, for the record."""
        trace = traceback.format_exc()
        logger.error("candidate %s failed on rung %d\n%s", candidate, rung, trace)
        self.progress.say(f"candidate {candidate} failed on rung {rung}: {trace.splitlines()[-1]}")
        return trace

    def _may_matter(self, record: Record) -> bool:
        """Whether a network of the highest rung can still be part of the result."""
        rung, method = record.evaluation.rung, record.evaluation.method
        if method not in METHODS[rung]:
            return False
        if record.is_control or method != SEARCHED.get(rung):
            return True
        mark = mark_of(record)
        return mark in front([*self.marks(rung), mark])


def phase_of(rung: int) -> str:
    """Name under which the time of a rung's evaluations is counted."""
    return "finals" if rung == 3 else f"rung-{rung}"


def mark_of(record: Record) -> Mark:
    """An evaluation as fronts see it."""
    return Mark(record.evaluation.macs, record.evaluation.score, record.evaluation.candidate)


class LocalSearch:
    """Rungs 1 and 2 of a run.

    Args:
        run: Shared by the steps.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._book, self._config = run, run.book, run.config
        self._seconds_before = sum(
            r.evaluation.seconds
            for rung, method in SEARCHED.items()
            for r in run.book.records(rung)
            if r.evaluation.method == method and not r.is_control
        )
        self._start = time.monotonic()
        self._seeds: Sequence[Seed] = opening(
            run.encoding, run.config.num_targets, run.config.seed, run.problem.knowledge
        )

    def search(self) -> None:
        """Propose, evaluate and promote until the budget is spent."""
        for proposal in self._book.recover():
            logger.info("trial %d was running when the driver died: taken over", proposal.trial)
            self._evaluate(proposal)
        while True:
            self._promote()
            if self._spent() >= 1 or self._is_exhausted():
                break
            self._evaluate(self._book.ask(self._sampler(self._book.num_proposals())))
        self._promote(rest=True)

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

    def _evaluate(self, proposal: Proposal) -> None:
        run, book = self._run, self._book
        candidate = run.encoding.candidate(proposal.params)
        macs = run.problem.space.macs(candidate.architecture)
        if macs not in run.encoding.window:
            logger.info("trial %d refused by rung 0: %d MACs are outside the window", proposal.trial, macs)
            book.tell_refused(proposal, f"{macs} MACs are outside {run.encoding.window}")
        elif self._is_known(candidate):
            logger.info("trial %d is %s, which is known already", proposal.trial, candidate.id)
            book.tell_duplicate(proposal, candidate.id)
        else:
            self._evaluate_new(proposal, candidate)

    def _evaluate_new(self, proposal: Proposal, candidate: Candidate) -> None:
        run, book = self._run, self._book
        try:
            record = run.evaluate(candidate, (1, "refit", self._config.seed), self._origin(proposal), None)
        except Exception:
            book.tell_failed(proposal, candidate.id, run.failed(candidate.id, 1))
            if not book.records(1) and len(book.failures(1)) >= _HOPELESS:
                raise
            return
        book.tell(proposal, record)
        run.progress.evaluated(record)

    def _is_known(self, candidate: Candidate) -> bool:
        found = self._book.find(candidate.id, 1, "refit", self._config.seed)
        return found is not None or candidate.id in self._book.failures(1)

    def _spent(self) -> float:
        """Share of the budget that is used up."""
        budget = self._run.budget
        if budget.evaluations is not None:
            return self._num_evaluated() / max(1, budget.evaluations - self._run.num_reserved)
        assert budget.seconds is not None
        return (self._seconds_before + time.monotonic() - self._start) / budget.seconds

    def _num_evaluated(self) -> int:
        return len(self._run.marks(1)) + len(self._book.failures(1))

    def _is_exhausted(self) -> bool:
        if self._book.num_fruitless() < FRUITLESS:
            return False
        self._run.progress.say(
            f"the last {FRUITLESS} proposals brought nothing new: the space is exhausted after "
            f"{self._num_evaluated()} candidates"
        )
        return True

    def _promote(self, rest: bool = False) -> None:
        """Let the best climb to rung 2, once half of the budget is spent: early luck is not promoted."""
        if self._config.max_rung < 2 or (not rest and self._spent() < 0.5):
            return
        while True:
            climbed, beside = self._climbed()
            free = (mark for mark in self._run.marks(1) if mark.id not in beside)
            marks = coarse(free, self._run.encoding.grid)
            waiting = promotable(marks, climbed)
            if not waiting or not self._may_climb(climbed, rest):
                return
            self._climb(waiting[0], marks)

    def _may_climb(self, climbed: set[str], rest: bool) -> bool:
        """Rung 2 spends a time budget too; when it is over, one candidate climbs at the least."""
        return self._run.budget.evaluations is not None or self._spent() < 1 or (rest and not climbed)

    def _climbed(self) -> tuple[set[str], set[str]]:
        """Candidates that climbed as proposals, and those that stand on rung 2 as controls only."""
        climbed = {mark.id for mark in self._run.marks(2)}
        controls = {r.evaluation.candidate for r in self._book.records(2) if r.is_control} - climbed
        proposed = {mark.id for mark in self._run.marks(1)} - controls
        return climbed | (set(self._book.failures(2)) & proposed), controls

    def _climb(self, candidate: str, marks: list[Mark]) -> None:
        run, book = self._run, self._book
        rank = next(rank for rank, mark in ranked(marks) if mark.id == candidate)
        logger.info("%s climbs to rung 2: rank %d of %d evaluations", candidate, rank, len(marks))
        below = book.find(candidate, 1, "refit", self._config.seed)
        assert below is not None
        try:
            record = run.evaluate(below.candidate, (2, "finetune", self._config.seed), below.origin, None)
        except Exception:
            book.add_failure(2, candidate, run.failed(candidate, 2))
            if not book.records(2) and len(book.failures(2)) >= _HOPELESS:
                raise
            return
        book.add(record, run.encoding.params(below.candidate.architecture, below.criteria))
        run.progress.evaluated(record)
        if self._config.max_rung == 2:
            run.weights.drop_all_but(mark.id for mark in front(run.marks(2)))
