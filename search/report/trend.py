"""What candidates of so many MACs score on the whole, and how far each lies above or below it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from scipy import optimize, stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray


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
    """``(n,)`` scores minus their trend: of the curves that never fall with the MACs, the least-squares one.

    Equal MACs have one value of the trend. At the ends, where few candidates lie, the trend follows them
    closely, so that their residuals are small.

    References:
        Barlow et al., Statistical Inference under Order Restrictions, 1972: isotonic regression.
    """
    if not len(macs):
        return np.empty(0)
    x, y = np.asarray(macs, dtype=np.float64), np.asarray(scores, dtype=np.float64)
    _, index, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(index, weights=y) / counts
    trend = optimize.isotonic_regression(means, weights=counts).x
    return np.asarray(y - trend[index])
