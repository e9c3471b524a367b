"""What is to be evaluated, and what every step of a run shares."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from evaluators.checkpoint import Checkpoints
from evaluators.evaluation import METHODS, SEARCHED, UNTRAINED, evaluation_name
from search.command import StoppedError
from search.front import front
from search.limits import Budget
from search.objectives import LATENCY
from search.problem import Clock
from search.reason import reason_of
from search.record import Record

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import Tensor

    from evaluators.candidate import Candidate
    from evaluators.evaluation import Evaluation, Method
    from search.config import RunConfig
    from search.encoding import Encoding
    from search.front import Mark
    from search.problem import Problem
    from search.progress import Progress
    from search.study import Book, Proposal
    from search.weights import Weights

logger = logging.getLogger(__name__)

#: Where trainings leave their state, by the name of their evaluation.
Trainings = Callable[[str], Checkpoints]

#: A run whose first evaluations all fail has a defect that more of them will not mend.
HOPELESS = 3


class NothingSucceededError(StoppedError):
    """No candidate came through a rung; more of them are not worth trying.

    Args:
        rung: Where.
        failures: Tracebacks by candidate, the last one last.
    """

    def __init__(self, rung: int, failures: Mapping[str, str]) -> None:
        last = f", the last with {reason_of([*failures.values()][-1])}" if failures else ""
        super().__init__(f"no candidate came to the end of rung {rung}: {len(failures)} failed{last}")
        self.rung, self.failures = rung, failures

    def __reduce__(self) -> tuple[type[NothingSucceededError], tuple[int, Mapping[str, str]]]:
        """It is made again of what it was made of."""
        return type(self), (self.rung, self.failures)


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """One evaluation that is to be made.

    Attributes:
        candidate: What is evaluated.
        rung: Fidelity.
        method: Where the weights come from.
        seed: Of the training.
        origin: Who proposed the candidate, see :class:`search.record.Record`.
        control_of: For a control, the id of the point that it stands beside.
        proposal: Its trial, on the rung of proposals.
    """

    candidate: Candidate
    rung: int
    method: Method
    seed: int
    origin: str
    control_of: str | None = None
    proposal: Proposal | None = None

    @property
    def key(self) -> tuple[str, int, Method, int]:
        """What :meth:`search.study.Book.find` knows it by."""
        return self.candidate.id, self.rung, self.method, self.seed

    @property
    def name(self) -> str:
        """Of the evaluation."""
        return evaluation_name(*self.key)

    def forget_training(self, trainings: Trainings) -> None:
        """Call it when the evaluation is on record, or given up: a kill before that costs no training."""
        if self.method not in UNTRAINED:
            trainings(self.name).delete()


class Jobs(Protocol):
    """Decides what is evaluated next; knows what runs, so that nothing is evaluated twice.

    An executor calls :meth:`Run.record` and :meth:`done` of one evaluation before those of another.
    """

    def next(self) -> Job | None:
        """The next evaluation; ``None`` where none is left, or none before another one ends."""
        ...

    def done(self, job: Job, record: Record) -> None:
        """Put an evaluation on record."""
        ...

    def failed(self, job: Job, trace: str) -> bool:
        """Put on record that an evaluation raised; whether to give up: every one so far did."""
        ...


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
        trainings: Of evaluations that are made here.
        gpus: That one evaluation occupies, by rung.
    """

    problem: Problem
    config: RunConfig
    encoding: Encoding
    book: Book
    weights: Weights
    progress: Progress
    trainings: Trainings
    clock: Clock = field(default_factory=Clock)
    gpus: Mapping[int, float] = field(default_factory=dict)
    #: Records are only ever added: by rung, how many were looked at, and what was made of them.
    _marks: dict[int, tuple[int, list[Mark]]] = field(default_factory=dict, init=False, repr=False)

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

    def marks(self, rung: int) -> Sequence[Mark]:
        """Scores by which proposals are compared on rung 1 or 2; for rung 3 see :mod:`search.finals`."""
        seen, marks = self._marks.get(rung, (0, []))
        records = self.book.records(rung)
        marks += (
            self.mark_of(r)
            for r in records[seen:]
            if not r.is_control and r.evaluation.method == SEARCHED.get(rung)
        )
        self._marks[rung] = len(records), marks
        return marks

    def mark_of(self, record: Record) -> Mark:
        """An evaluation as fronts see it."""
        return self.encoding.objectives.mark(record.evaluation)

    def described(self, job: Job) -> str:
        """For the reader of the progress."""
        space = self.problem.space
        share = space.macs(job.candidate.architecture) / space.macs(space.dense)
        return f"rung {job.rung}: {job.candidate.id}, {job.method}, {share:.1%} MACs, {job.origin}"

    def record(self, job: Job, evaluation: Evaluation, weights: Callable[[], Mapping[str, Tensor]]) -> Record:
        """What is to be recorded of an evaluation; on the highest rung its weights are kept first.

        Raises:
            FloatingPointError: If the score is not finite.
        """
        if not math.isfinite(evaluation.score):
            raise FloatingPointError(f"The score of candidate {job.candidate.id} is {evaluation.score}.")
        candidate = job.candidate
        criteria = dict(candidate.chosen)
        evaluation = self._with_latency(candidate, evaluation)
        record = Record(evaluation, job.origin, dict(candidate.architecture.items), criteria, job.control_of)
        if job.rung == self.config.max_rung and self._may_matter(record):
            self.weights.keep(record, weights())
        return record

    def add(self, record: Record) -> None:
        """Put an evaluation that nobody proposed on record."""
        self.book.add(record, self.encoding.params(record.candidate.architecture, record.criteria))
        self.progress.evaluated(record)

    def tell_failure(self, job: Job, trace: str) -> None:
        """Tell and log that an evaluation raised; recording is the caller's."""
        logger.error("candidate %s failed on rung %d\n%s", job.candidate.id, job.rung, trace)
        self.progress.say(f"candidate {job.candidate.id} failed on rung {job.rung}: {reason_of(trace)}")

    def is_hopeless(self, rung: int) -> bool:
        """Whether several evaluations of a rung raised and none did not."""
        return not self.book.records(rung) and len(self.book.failures(rung)) >= HOPELESS

    def nothing_succeeded(self, rung: int) -> NothingSucceededError:
        """What ends a run in which no candidate came through a rung."""
        return NothingSucceededError(rung, self.book.failures(rung))

    def _with_latency(self, candidate: Candidate, evaluation: Evaluation) -> Evaluation:
        """Networks of equal widths share the first measurement of their latency, whoever made it."""
        if LATENCY not in self.encoding.objectives.costs:
            return evaluation
        known = self.book.latency_of(candidate.architecture)
        return evaluation if known is None else replace(evaluation, latency_ms=known)

    def _may_matter(self, record: Record) -> bool:
        """Whether a network of the highest rung can still be part of the result."""
        rung, method = record.evaluation.rung, record.evaluation.method
        if method not in METHODS[rung]:
            return False
        if record.is_control or method != SEARCHED.get(rung):
            return True
        mark = self.mark_of(record)
        return mark in front([*self.marks(rung), mark])


#: Makes every evaluation that is wanted.
Executor = Callable[[Run, Jobs], None]


def phase_of(rung: int) -> str:
    """Name under which the time of a rung's evaluations is counted."""
    return "finals" if rung == 3 else f"rung-{rung}"
