"""How long a run will take: measured seconds where there are some, training epochs before."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from evaluators.evaluation import METHODS, SEARCHED
from search.limits import Budget
from search.rungs import quota

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluators.evaluation import Evaluation
    from search.config import RunConfig


@dataclass(slots=True)
class Forecast:
    """Seconds left, from what similar evaluations took.

    Attributes:
        epochs: Epochs of each method on its rung, keyed ``(rung, method)``; those of Scratch-B for a
            network of half the dense MACs.
        seconds_per_epoch: Of the dense network; learned from evaluations when ``None``.
        search_seconds: Time budget of rungs 1 and 2; ``None`` where candidates are counted.
        at_once: Evaluations at a time.
    """

    epochs: Mapping[tuple[int, str], float] = field(default_factory=dict)
    seconds_per_epoch: float | None = None
    search_seconds: float | None = None
    at_once: int = 1
    _start: float = field(default_factory=time.monotonic)
    _expected: dict[int, int] = field(default_factory=dict)
    _seconds: dict[tuple[int, str], list[float]] = field(default_factory=dict)

    def expect(self, counts: Mapping[int, int]) -> None:
        """Evaluations that each rung will have in the end."""
        self._expected.update(counts)

    def evaluated(self, evaluation: Evaluation, dense_macs: int) -> None:
        """Learn from a finished evaluation."""
        how = evaluation.rung, evaluation.method
        self._seconds.setdefault(how, []).append(evaluation.seconds)
        if self.seconds_per_epoch is None and self.epochs.get(how):
            share = max(evaluation.macs / dense_macs, 0.1)
            self.seconds_per_epoch = evaluation.seconds / self.epochs[how] / share

    def counts(self) -> dict[int, tuple[int, int]]:
        """``{rung: (done, expected)}``."""
        done = {rung: sum(len(s) for (r, _), s in self._seconds.items() if r == rung) for rung in METHODS}
        return {rung: (done[rung], max(done[rung], self._expected.get(rung, 0))) for rung in METHODS}

    def parts(self) -> dict[int, float | None]:
        """Seconds left on each rung; ``None`` where nothing is known yet."""
        return {rung: self._part(rung, total - done) for rung, (done, total) in self.counts().items()}

    def seconds_left(self) -> float | None:
        """Seconds until the last expected evaluation; ``None`` while a rung is still unmeasured."""
        parts = self.parts()
        if None in parts.values():
            return None
        searching = max(0.0, (self.search_seconds or 0.0) - (time.monotonic() - self._start))
        return searching + sum(part for part in parts.values() if part is not None)

    def _part(self, rung: int, missing: int) -> float | None:
        methods = (SEARCHED[rung],) if rung in SEARCHED else METHODS[rung]
        each = [self._one(rung, method) for method in methods]
        if missing and None in each:
            return None
        return (
            missing * sum(seconds or 0.0 for seconds in each) / len(each) / min(self.at_once, max(missing, 1))
        )

    def _one(self, rung: int, method: str) -> float | None:
        measured = self._seconds.get((rung, method))
        if measured:
            return sum(measured) / len(measured)
        if self.seconds_per_epoch is None or (rung, method) not in self.epochs:
            return None
        return self.seconds_per_epoch * self.epochs[rung, method] / 2  # a network of half the dense MACs


def expected_counts(config: RunConfig) -> dict[int, int]:
    """Evaluations that each rung may have in the end; of a time budget only the finals are known."""
    total = Budget.parse(config.budget).evaluations
    climbing = quota(total) if total is not None else config.final
    counts = {} if total is None else {1: total, 2: climbing if config.max_rung > 1 else 0}
    if config.max_rung == 3:
        networks = 3 * min(config.final, climbing)  # each point, and beside it a uniform and a random control
        counts[3] = networks * len(METHODS[3]) * len(config.training_seeds)
    return counts
