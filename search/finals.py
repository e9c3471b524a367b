"""Rung 3: the front's best trained to the end, and controls at equal MACs treated in the same way."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evaluators.evaluation import METHODS, SEARCHED
from search.encoding import share_of
from search.front import front, spread
from search.local import mark_of
from search.seeds import seeded_generator

if TYPE_CHECKING:
    from collections.abc import Iterable

    from evaluators.candidate import Candidate
    from evaluators.evaluation import Method
    from search.front import Mark
    from search.local import Run
    from search.study import Record

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
        self._run = run
        self._rung = run.config.max_rung
        self._seeds = run.config.training_seeds if self._rung == 3 else (run.config.seed,)

    def contenders(self) -> list[Contender]:
        """Points by ascending MACs, then the controls of each.

        Raises:
            RuntimeError: If nothing was evaluated that could be a point.
        """
        points = self._rank_three() if self._rung == 3 else self._non_dominated()
        self._expect(points)
        proposed = [self._contender(record.candidate, record.origin, None) for record in points]
        complete = {contender.candidate.id for contender in proposed if contender.records}
        if not complete:
            raise RuntimeError(
                f"No candidate was evaluated on rung {self._rung}: see the journal for the failures."
            )
        controls = [
            self._contender(candidate, f"control: {kind}", record.evaluation.candidate)
            for record in self._with_controls(points)
            if record.evaluation.candidate in complete
            for kind, candidate in self.controls(record).items()
        ]
        return [contender for contender in (*proposed, *controls) if contender.records]

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
        return sorted((below[name] for name in picked | (done & set(below))), key=mark_of)

    def _non_dominated(self) -> list[Record]:
        searched = SEARCHED[self._rung]
        records = {
            r.evaluation.candidate: r
            for r in self._run.book.records(self._rung)
            if not r.is_control and r.evaluation.method == searched
        }
        return [records[mark.id] for mark in front(self._run.marks(self._rung))]

    def _with_controls(self, points: list[Record]) -> list[Record]:
        """All finals; of a larger front as many as there are finals, spread over its MACs."""
        if self._rung == 3:
            return points
        room = self._run.config.final
        if self._rung == 1 and self._run.budget.evaluations is not None:
            proposed = len(self._run.marks(1)) + len(self._run.book.failures(1))
            room = min(room, max(0, self._run.budget.evaluations - proposed) // len(CONTROLS))
        if not room:
            return []
        chosen = {mark.id for mark in self._spread(map(mark_of, points), room)}
        return [record for record in points if record.evaluation.candidate in chosen]

    def _spread(self, marks: Iterable[Mark], count: int) -> list[Mark]:
        window = self._run.encoding.window
        return spread(marks, count, window.low, window.high)

    def _contender(self, candidate: Candidate, origin: str, beside: str | None) -> Contender:
        """All methods and seeds; no records at all when one of them failed."""
        records: dict[Method, tuple[Record, ...]] = {}
        for method in METHODS[self._rung]:
            found = [self._record(candidate, method, seed, origin, beside) for seed in self._seeds]
            complete = tuple(record for record in found if record is not None)
            if len(complete) < len(found):
                return Contender(candidate, origin, {}, beside)
            records[method] = complete
        return Contender(candidate, origin, records, beside)

    def _record(
        self, candidate: Candidate, method: Method, seed: int, origin: str, beside: str | None
    ) -> Record | None:
        """The evaluation on record, or a new one; ``None`` if it raised, now or earlier."""
        run = self._run
        known = run.book.find(candidate.id, self._rung, method, seed)
        if known is not None:
            return known
        if candidate.id in run.book.failures(self._rung):
            return None
        try:
            record = run.evaluate(candidate, (self._rung, method, seed), origin, beside)
        except Exception:
            run.book.add_failure(self._rung, candidate.id, run.failed(candidate.id, self._rung))
            return None
        run.book.add(record, run.encoding.params(candidate.architecture, candidate.criteria))
        run.progress.evaluated(record)
        return record

    def _expect(self, points: list[Record]) -> None:
        each = len(METHODS[self._rung]) * len(self._seeds)
        num_controls = len(self._with_controls(points)) * len(CONTROLS)
        searched = len(self._run.marks(1)) if self._rung == 1 else 0
        if self._rung != 2:
            self._run.progress.expect({self._rung: searched + each * (len(points) + num_controls)})


def _most_frequent(criteria: Iterable[str], default: str) -> str:
    """The name that most groups use; of equals the first in the alphabet."""
    counts = Counter(criteria)
    return min(counts, key=lambda name: (-counts[name], name)) if counts else default
