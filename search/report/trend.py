"""What candidates of so many MACs score on the whole, and how far each lies above or below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


_PARTS = 10
_LEAST_FOR_TREND = 3


class Interval(NamedTuple):
    """A mean with its 95% interval, Student's t; no ends for fewer than two values."""

    mean: float
    low: float | None
    high: float | None
    n: int

    @property
    def half(self) -> float | None:
        """Half its length."""
        return None if self.high is None else self.high - self.mean

    @property
    def conclusive(self) -> bool:
        """Whether it leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


def mean_interval(values: Sequence[float]) -> Interval:
    """Mean of at least one value with its 95% interval."""
    n, mean = len(values), float(np.mean(values))
    if n < 2:
        return Interval(mean, None, None, n)
    half = float(stats.t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / n**0.5
    return Interval(mean, mean - half, mean + half, n)


def residuals(macs: Sequence[int], scores: Sequence[float]) -> NDArray[np.float64]:
    """``(n,)`` scores minus the trend of the other candidates at these MACs; all 0 for fewer than three.

    The trend is the curve that never falls with the MACs and has the least squared error, straight between
    the candidates and constant beyond the outermost. It is fitted without the tenth of the candidates that a
    score belongs to, else it would follow each of them where they lie far apart.

    References:
        Barlow et al., Statistical Inference under Order Restrictions, 1972: isotonic regression.
    """
    n = len(macs)
    above = np.zeros(n)
    if n < _LEAST_FOR_TREND:
        return above
    x, y = np.asarray(macs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    place = np.empty(n, dtype=np.int64)
    place[np.argsort(x, kind="stable")] = np.arange(n)
    part = place % min(n, _PARTS)
    for own in (part == i for i in range(part.max() + 1)):
        above[own] = y[own] - _trend(x[~own], y[~own], x[own])
    return above


def _trend(x: NDArray[np.float64], y: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """``(m,)`` isotonic regression of ``(n,)`` scores on MACs, read at ``(m,)`` other MACs."""
    unique, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=y) / counts
    fitted = optimize.isotonic_regression(means, weights=counts).x
    return np.asarray(np.interp(at, unique, fitted))
