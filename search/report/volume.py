"""How the hypervolume of what was evaluated grew, evaluation by evaluation."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from search.report.history import Entry

#: An hour in which nothing was evaluated is a pause between two sessions; so much of it counts.
_LONGEST_PAUSE_SECONDS = 60.0


def gains(macs: Sequence[float], scores: Sequence[float], reference: float) -> NDArray[np.float64]:
    """``(n,)`` area that each mark adds to those before it; their sum is the hypervolume.

    The front is kept as a staircase, so that a mark costs the steps that it covers, not all before it.

    Args:
        macs: ``(n,)`` shares of dense; what is not below 1 adds nothing.
        scores: ``(n,)``, higher is better.
        reference: Score up to which areas reach; what is not above it adds nothing.
    """
    xs: list[float] = []  # the front so far, ascending in both
    ys: list[float] = []
    return np.array(
        [_gain(xs, ys, x, y, reference) for x, y in zip(macs, scores, strict=True)], dtype=np.float64
    )


def _gain(xs: list[float], ys: list[float], x: float, y: float, reference: float) -> float:
    """Area that ``(x, y)`` adds; it joins the staircase, and what it covers leaves."""
    after = bisect_right(xs, x)
    height = ys[after - 1] if after else reference
    if x >= 1.0 or y <= height:
        return 0.0
    area, left, end = 0.0, x, after
    while end < len(xs) and ys[end] <= y:
        area += (xs[end] - left) * (y - height)
        left, height, end = xs[end], ys[end], end + 1
    area += ((xs[end] if end < len(xs) else 1.0) - left) * (y - height)
    first = bisect_left(xs, x)
    xs[first:end], ys[first:end] = [x], [y]
    return area


def elapsed(entries: Iterable[Entry], everything: Iterable[Entry]) -> NDArray[np.float64]:
    """``(n,)`` seconds of the run at which each entry was finished, without pauses between sessions.

    Args:
        entries: Whose times are wanted.
        everything: All evaluations: time in which one of them was made is no pause.
    """
    ends = np.array([entry.finished for entry in everything])
    if not len(ends):
        return np.empty(0)
    seconds = np.array([entry.record.evaluation.seconds for entry in everything])
    order = np.argsort(ends - seconds, kind="stable")
    starts, covered = (ends - seconds)[order], np.maximum.accumulate(ends[order])
    pauses = np.maximum(starts[1:] - covered[:-1] - _LONGEST_PAUSE_SECONDS, 0.0)
    lost = np.concatenate(([0.0], np.cumsum(pauses)))
    wanted = np.array([entry.finished for entry in entries])
    return np.asarray(wanted - starts[0] - lost[np.searchsorted(starts, wanted, side="right") - 1])


def busy_seconds(entries: Iterable[Entry]) -> float:
    """Wall clock during which one of the evaluations was being made, by however many workers."""
    spans = sorted((e.finished - e.record.evaluation.seconds, e.finished) for e in entries)
    covered, until = 0.0, float("-inf")
    for start, end in spans:
        covered += max(0.0, end - max(start, until))
        until = max(until, end)
    return covered
