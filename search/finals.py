"""Rung 3: the front's best trained to the end, and controls at equal MACs treated in the same way."""

from __future__ import annotations

import logging
from collections import Counter, deque
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from evaluators.evaluation import METHODS, SEARCHED
from search.encoding import share_of
from search.front import front, spread
from search.jobs import Job
from search.seeds import seeded_generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluators.candidate import Candidate
    from evaluators.evaluation import Method
    from search.front import Mark
    from search.jobs import Executor, Run
    from search.record import Record

logger = logging.getLogger(__name__)

CONTROLS = ("uniform", "random")


@dataclass(frozen=True, slots=True)
class Contender:
    """A candidate with all its evaluations on the highest rung.

    Attributes:
        candidate: What was evaluated.
        origin: Who proposed it; ``control: uniform`` or ``control: random`` for a control.
        records: Evaluations of each method, one for each seed.
        control_of: For a control, the id of its point.
    """

    candidate: Candidate
    origin: str
    records: dict[Method, tuple[Record, ...]]
    control_of: str | None = None

    @property
    def control(self) -> str | None:
        """``uniform`` or ``random`` for a control."""
        return self.origin.removeprefix("control: ") if self.control_of else None


class Finals:
    """Evaluates whatever the result needs and is not on record yet.

    Args:
        run: Shared by the steps.
    """

    def __init__(self, run: Run) -> None:
        self.run = self._run = run
        self._rung = run.config.max_rung
        self._seeds = run.config.training_seeds if self._rung == 3 else (run.config.seed,)

    def contenders(self, execute: Executor) -> list[Contender]:
        """Points by ascending MACs, then the controls of each.

        Args:
            execute: Makes the evaluations that are missing.

        Raises:
            NothingSucceededError: If nothing was evaluated that could be a point.
        """
        points = self._rank_three() if self._rung == 3 else self._non_dominated()
        self._expect(points)
        missing = _Missing(self, points)
        execute(self._run, missing)
        proposed = [self._contender(record.candidate, record.origin, None) for record in points]
        complete = {contender.candidate.id for contender in proposed if contender.records}
        if not complete:
            raise self._run.nothing_succeeded(self._barrier())
        controls = [
            self._contender(candidate, f"control: {kind}", record.evaluation.candidate)
            for record in missing.with_controls
            if record.evaluation.candidate in complete
            for kind, candidate in self.controls(record).items()
        ]
        return [contender for contender in (*proposed, *controls) if contender.records]

    def _barrier(self) -> int:
        """The lowest rung that nothing came through."""
        return next((rung for rung in range(1, self._rung) if not self._run.marks(rung)), self._rung)

    def jobs(self, candidate: Candidate, origin: str, control_of: str | None) -> list[Job]:
        """Every evaluation that a point or a control needs."""
        return [
            Job(candidate, self._rung, method, seed, origin, control_of)
            for method in METHODS[self._rung]
            for seed in self._seeds
        ]

    def controls(self, point: Record) -> dict[str, Candidate]:
        """Uniform and random widths with at most the point's MACs, within one step."""
        run = self._run
        space = run.problem.space
        share = share_of(point.evaluation.macs, space.macs(space.dense))
        generator = seeded_generator(run.config.seed, int(point.evaluation.candidate, 16))
        equal = dict.fromkeys(space.ratios(space.dense), 1.0)
        widths = {"uniform": space.fit(equal, macs=share), "random": space.sample(generator, macs=share)}
        criterion = _most_frequent(point.criteria.values(), run.config.criteria[0])
        return {kind: run.encoding.build(widths[kind], criterion) for kind in CONTROLS}

    def _rank_three(self) -> list[Record]:
        """The best of rung 2, spread over the window, and the finals of earlier budgets."""
        book = self._run.book
        below = {record.evaluation.candidate: record for record in book.records(2)}
        picked = {mark.id for mark in self._spread(self._run.marks(2), self._run.config.final)}
        done = {r.evaluation.candidate for r in book.records(3) if not r.is_control}
        if done - picked:
            logger.info("finals of an earlier budget stay: %s", ", ".join(sorted(done - picked)))
        return sorted((below[name] for name in picked | (done & set(below))), key=self._run.mark_of)

    def _non_dominated(self) -> list[Record]:
        searched = SEARCHED[self._rung]
        records = {
            r.evaluation.candidate: r
            for r in self._run.book.records(self._rung)
            if not r.is_control and r.evaluation.method == searched
        }
        return [records[mark.id] for mark in front(self._run.marks(self._rung))]

    def with_controls(self, points: list[Record]) -> list[Record]:
        """All finals; of a larger front as many as there are finals, spread over its MACs."""
        if self._rung == 3:
            return points
        room = self._run.config.final
        if self._rung == 1 and self._run.budget.evaluations is not None:
            proposed = len(self._run.marks(1)) + len(self._run.book.failures(1))
            room = min(room, max(0, self._run.budget.evaluations - proposed) // len(CONTROLS))
        if not room:
            return []
        chosen = {mark.id for mark in self._spread(map(self._run.mark_of, points), room)}
        return [record for record in points if record.evaluation.candidate in chosen]

    def _spread(self, marks: Iterable[Mark], count: int) -> list[Mark]:
        window = self._run.encoding.window
        return spread(marks, count, window.low, window.high)

    def _contender(self, candidate: Candidate, origin: str, control_of: str | None) -> Contender:
        """All methods and seeds; no records at all when one of them failed."""
        found = {job.key: self._run.book.find(*job.key) for job in self.jobs(candidate, origin, control_of)}
        records: dict[Method, list[Record]] = {}
        for (_, _, method, _), record in found.items():
            if record is None:
                return Contender(candidate, origin, {}, control_of)
            records.setdefault(method, []).append(record)
        return Contender(candidate, origin, {m: tuple(rs) for m, rs in records.items()}, control_of)

    def _expect(self, points: list[Record]) -> None:
        each = len(METHODS[self._rung]) * len(self._seeds)
        num_controls = len(self.with_controls(points)) * len(CONTROLS)
        searched = len(self._run.marks(1)) if self._rung == 1 else 0
        if self._rung != 2:
            self._run.progress.expect({self._rung: searched + each * (len(points) + num_controls)})


class _Missing:
    """Implements :class:`search.jobs.Jobs`: points, and the controls of each once it is complete.

    Args:
        finals: Says what is needed.
        points: By ascending MACs.
    """

    def __init__(self, finals: Finals, points: list[Record]) -> None:
        self._finals, self._run = finals, finals.run
        self._queue = deque(
            job for record in points for job in finals.jobs(record.candidate, record.origin, None)
        )
        self._points = points
        self._without_controls: list[Record] | None = None
        self._running: set[tuple[str, int, Method, int]] = set()

    @cached_property
    def with_controls(self) -> list[Record]:
        """Points beside which controls stand: fixed once no point is to be evaluated any more."""
        return self._finals.with_controls(self._points)

    def next(self) -> Job | None:
        """As :meth:`search.jobs.Jobs.next`."""
        while True:
            if not self._queue:
                self._add_controls()
            if not self._queue:
                return None
            job = self._queue.popleft()
            failed = job.candidate.id in self._run.book.failures(job.rung)
            if not failed and job.key not in self._running and self._run.book.find(*job.key) is None:
                self._running.add(job.key)
                return job

    def done(self, job: Job, record: Record) -> None:
        """As :meth:`search.jobs.Jobs.done`."""
        self._running.discard(job.key)
        self._run.add(record)

    def failed(self, job: Job, trace: str) -> bool:
        """As :meth:`search.jobs.Jobs.failed`; the run goes on without the candidate."""
        self._running.discard(job.key)
        self._run.tell_failure(job, trace)
        self._run.book.add_failure(job.rung, job.candidate.id, trace)
        self._expect_the_rest()
        return False

    def _add_controls(self) -> None:
        if self._without_controls is None:
            if self._running and self._run.config.max_rung < 3:
                return  # failures of points leave less room for controls
            self._without_controls = self.with_controls
        waiting, failed = [], self._run.book.failures(self._run.config.max_rung)
        for point in self._without_controls:
            wanted = self._finals.jobs(point.candidate, point.origin, None)
            if all(self._run.book.find(*job.key) for job in wanted):
                for kind, candidate in self._finals.controls(point).items():
                    self._queue += self._finals.jobs(
                        candidate, f"control: {kind}", point.evaluation.candidate
                    )
            elif point.evaluation.candidate not in failed:
                waiting.append(point)
        self._without_controls = waiting
        self._expect_the_rest()

    def _expect_the_rest(self) -> None:
        """Once all controls are known: two may be one network or a point's, and what failed ends early."""
        if self._without_controls != []:
            return
        book, rung = self._run.book, self._run.config.max_rung
        failed = book.failures(rung)
        wanted = {job.key for job in self._queue if job.candidate.id not in failed}
        missing = self._running | {key for key in wanted if book.find(*key) is None}
        self._run.progress.expect({rung: len(book.records(rung)) + len(missing)})


def _most_frequent(criteria: Iterable[str], default: str) -> str:
    """The name that most groups use; of equals the first in the alphabet."""
    counts = Counter(criteria)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else default
