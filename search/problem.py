"""What a search works on, so that it needs to know neither tasks nor data."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search.seeds import NOTHING_KNOWN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from torch import nn

    from evaluators.evaluation import Evaluator
    from search.seeds import Knowledge
    from spaces.space import Space


@dataclass(frozen=True, eq=False)
class Problem:
    """A prepared task.

    Attributes:
        task: Its name.
        metric: Name of the score; higher is better.
        space: What may be pruned.
        evaluator: Turns candidates into scores.
        dense_model: The trained network.
        dense_score: Its holdout score, fp32.
        unseal: Allows reading the test split; called once the front is final.
        rebuild: Makes the module of a folder with ``architecture.json``, and its weights when they are there.
        exact_scores: Whether evaluations below rung 3 are fp32 already; otherwise reported scores are
            measured again.
        knowledge: What is known before the first evaluation, for seeds.
    """

    task: str
    metric: str
    space: Space
    evaluator: Evaluator
    dense_model: nn.Module
    dense_score: float
    unseal: Callable[[], None]
    rebuild: Callable[[Path], nn.Module]
    exact_scores: bool = True
    knowledge: Knowledge = NOTHING_KNOWN


@dataclass(slots=True)
class Clock:
    """Wall clock per phase; what no phase claims is ``other``: proposals, promotions, the journal.

    Attributes:
        seconds: Of this process.
        before: Of evaluations that earlier processes recorded.
    """

    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    before: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _start: float = field(default_factory=time.monotonic)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what happens inside towards ``name``; phases do not nest."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[name] += time.monotonic() - start

    def totals(self) -> dict[str, float]:
        """Seconds of each phase, and of everything else."""
        names = sorted({*self.seconds, *self.before})
        claimed = sum(self.seconds.values())
        other = max(0.0, time.monotonic() - self._start - claimed)
        return {name: self.seconds.get(name, 0.0) + self.before.get(name, 0.0) for name in names} | {
            "other": other
        }


def covered(spans: Iterable[tuple[float, float]]) -> float:
    """Length of what the spans, from a start to an end, cover together."""
    length, until = 0.0, -math.inf
    for start, end in sorted(spans):
        length += max(0.0, end - max(start, until))
        until = max(until, end)
    return length
