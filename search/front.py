"""Fronts in costs and score: ranks, crowding, hypervolume, and how finals are spread over a front.

Costs are better when lower, scores when higher. The cost is MACs unless marks say otherwise.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import moocore
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

#: Hypervolume is measured up to this corner: all of the dense MACs, and a score of nothing.
REFERENCE = {"macs": 1.0, "score": 0.0}


@dataclass(frozen=True, slots=True, order=True)
class Mark:
    """A candidate as fronts see it, ordered by MACs, then score, then id.

    Attributes:
        macs: Multiply-adds; what marks are sorted by and spread over.
        score: Higher is better.
        id: The candidate's.
        costs: What is minimised; none where that is MACs alone. All marks of a front have as many.
    """

    macs: int
    score: float
    id: str
    costs: tuple[float, ...] = ()

    @property
    def values(self) -> tuple[float, ...]:
        """Costs, then the score: what one mark beats another in."""
        return (*(self.costs or (self.macs,)), self.score)


def ranks(marks: Sequence[Mark]) -> NDArray[np.int64]:
    """``(n,)`` non-dominated ranks; 0 is the front, equal marks share a rank.

    References:
        Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II, 2002.
    """
    return _ranks(_values(marks))


def crowding(marks: Sequence[Mark]) -> NDArray[np.float64]:
    """``(n,)`` crowding distances among ``marks``, which should share a rank; ends have infinity.

    References:
        Deb et al., NSGA-II, 2002.
    """
    return _crowding(_values(marks), np.zeros(len(marks), dtype=np.int64))


def ranked(marks: Sequence[Mark]) -> Iterator[tuple[int, Mark]]:
    """``(rank, mark)``, best first: by non-dominated rank, then larger crowding distance, then id."""
    values, ids = _values(marks), np.array([mark.id for mark in marks], dtype=np.str_)
    order = np.lexsort((ids, *values.T[::-1]))  # what has equal values is told apart by its id
    rank_of = _ranks(values)[order]
    best = np.lexsort((ids[order], -_crowding(values[order], rank_of), rank_of))
    return ((int(rank_of[i]), marks[order[i]]) for i in best)


def front(marks: Iterable[Mark]) -> list[Mark]:
    """The non-dominated marks by ascending MACs; of equal ones the first id stays."""
    unique = sorted({mark.values: mark for mark in sorted(marks, reverse=True)}.values())
    return [mark for mark, rank in zip(unique, ranks(unique), strict=True) if rank == 0]


def hypervolume(
    marks: Sequence[Mark], dense_macs: float, *others: float, least_score: float = REFERENCE["score"]
) -> float:
    """Area (or volume) that the marks dominate, costs as shares of dense, up to all of each and a score.

    Args:
        marks: Of candidates; what costs more than dense dominates nothing.
        dense_macs: MACs of the dense network, or its first cost where marks have costs.
        others: Its further costs.
        least_score: What does not score more dominates nothing.
    """
    if not marks:
        return 0.0
    costs = (dense_macs, *others)
    values = _values(marks) / [*costs, 1.0]
    corner = [*[REFERENCE["macs"]] * len(costs), least_score]
    return float(moocore.hypervolume(values, ref=corner, maximise=_maximise(values)))


def reference_score(scores: Iterable[float]) -> float:
    """Score up to which areas reach: nothing, or the worst of ``scores`` where some are negative."""
    return min([REFERENCE["score"], *scores])


def coarse(marks: Iterable[Mark], grid: float, *others: float) -> list[Mark]:
    """The marks with costs rounded up to multiples of a step, so that a few MACs less excuse no bad score.

    Args:
        marks: To be rounded.
        grid: Step of MACs, or of the first cost where marks have costs.
        others: Steps of further costs.

    References:
        Laumanns et al., Combining Convergence and Diversity in Evolutionary Multiobjective Optimization,
        2002: epsilon-dominance.
    """
    steps = (grid, *others)
    return [
        replace(mark, costs=tuple(-(-c // step) * step for c, step in zip(mark.costs, steps, strict=True)))
        if mark.costs
        else replace(mark, macs=int(-(-mark.macs // grid) * grid))
        for mark in marks
    ]


def spread(marks: Iterable[Mark], count: int, low: int, high: int) -> list[Mark]:
    """Up to ``count`` marks, sorted by MACs: from each of ``count`` bins of MACs its best.

    Each bin's upper end is the same multiple of its lower one: halving a small network saves less than
    halving a large one and costs more, so small ones lie closer. The best of a bin has the lowest rank, then
    the highest score. Places of empty bins go to the lowest ranks among the rest, within a rank to the mark
    whose MACs are furthest from all chosen.

    Args:
        marks: To choose from.
        count: How many.
        low: MACs where the first bin begins; what lies below belongs to it as well.
        high: MACs where the last bin ends; what lies above belongs to it as well.
    """
    pool = sorted({mark.id: mark for mark in sorted(marks)}.values())
    rank_of = dict(zip(pool, ranks(pool).tolist(), strict=True))
    per_bin = max(math.log(high / max(low, 1)), 1e-9) / count
    bins: dict[int, Mark] = {}
    for mark in pool:
        index = min(max(int(math.log(mark.macs / max(low, 1)) / per_bin), 0), count - 1)
        bins[index] = min(bins.get(index, mark), mark, key=lambda m: (rank_of[m], -m.score, m))
    chosen = list(bins.values())
    waiting = [mark for mark in pool if mark not in chosen]
    while waiting and len(chosen) < count:
        best = min(waiting, key=lambda m: (rank_of[m], -_gap(m, chosen), m))
        waiting.remove(best)
        chosen.append(best)
    return sorted(chosen)


def _gap(mark: Mark, chosen: Sequence[Mark]) -> float:
    return min(abs(math.log(mark.macs / other.macs)) for other in chosen)


def _ranks(values: NDArray[np.float64]) -> NDArray[np.int64]:
    """``(n,)`` non-dominated ranks of ``(n, objectives)`` values."""
    if not len(values):
        return np.empty(0, dtype=np.int64)
    if values.shape[1] > 2:
        unique_rows, inverse = np.unique(values, axis=0, return_inverse=True)
        found = moocore.pareto_rank(unique_rows, maximise=_maximise(values))
        return np.asarray(found, dtype=np.int64)[inverse.ravel()]
    # Complex numbers sort by both parts, several times as fast as rows.
    unique, inverse = np.unique(values[:, 0] + 1j * values[:, 1], return_inverse=True)
    found = moocore.pareto_rank(np.column_stack((unique.real, unique.imag)), maximise=_maximise(values))
    return np.asarray(found, dtype=np.int64)[inverse]


def _crowding(values: NDArray[np.float64], rank_of: NDArray[np.int64]) -> NDArray[np.float64]:
    """``(n,)`` crowding distances of ``(n, objectives)`` values, each among those of its rank."""
    distances = np.zeros(len(values))
    for column in values.T:
        order = np.lexsort((column, rank_of))
        sorted_ranks, ordered = rank_of[order], column[order]
        last = np.append(sorted_ranks[1:] != sorted_ranks[:-1], True)[: len(order)]
        first = np.roll(last, 1)
        extent = (ordered[last] - ordered[first])[np.cumsum(first) - 1]
        inner = np.flatnonzero(~first & ~last & (extent > 0))
        distances[order[first | last]] = np.inf
        distances[order[inner]] += (ordered[inner + 1] - ordered[inner - 1]) / extent[inner]
    return distances


def _values(marks: Sequence[Mark]) -> NDArray[np.float64]:
    """``(n, objectives)``: costs, then the score."""
    scores = [mark.score for mark in marks]
    if marks and marks[0].costs:
        return np.column_stack((np.array([mark.costs for mark in marks], dtype=np.float64), scores))
    return np.array(([mark.macs for mark in marks], scores), dtype=np.float64).T


def _maximise(values: NDArray[np.float64]) -> list[bool]:
    return [False] * (values.shape[1] - 1) + [True]
