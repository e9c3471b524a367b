"""The ratio of two running times on a machine that others use as well."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import stats

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Runs a network so many times in a row; milliseconds of each run.
Timer = Callable[[int], Sequence[float]]

#: Prepares a network and its reference anew.
Pair = Callable[[], tuple[Timer, Timer]]

#: A turn takes at least so long, as many runs as that needs. Of two threads one may wait for a core for some
#: milliseconds, and the median of a turn passes over the run in which that happens.
_TURN_MS = 4.0
_MOST_RUNS = 128

#: Quadruples after which both are prepared anew. Where its memory happens to lie makes a small network some
#: per cent faster or slower, for as long as it lies there.
_BLOCKS_PER_PAIR = 8

#: Preparations before an interval may be narrow enough.
_LEAST_PAIRS = 3

#: Two windows of so many turns whose medians agree within the tolerance: caches are filled, clocks settled.
_WINDOW = 5
_SETTLED = 0.02

#: Share of the time limit that warming up may take.
_WARM_UP_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Patience:
    """When a comparison ends.

    Attributes:
        tolerance: Half of the ratio's 95% interval, as a share, that is narrow enough.
        seconds: Time limit, warm-up included and preparation not; two quadruples are taken whatever it says.
    """

    tolerance: float = 0.01
    seconds: float = 5.0


@dataclass(frozen=True, slots=True)
class Timing:
    """What one network took.

    Attributes:
        median_ms: Of one run; lower is better.
        spread_ms: Between the quartiles.
        repeats: Timed runs.
    """

    median_ms: float
    spread_ms: float
    repeats: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """A network and its reference, measured in turns.

    Attributes:
        ratio: Running time of the network over that of the reference; lower is better.
        low: Lower end of the ratio's 95% interval.
        high: Upper end.
        candidate: The network.
        reference: The reference.
    """

    ratio: float
    low: float
    high: float
    candidate: Timing
    reference: Timing


def compare(pair: Pair, patience: Patience, now: Callable[[], float] = time.monotonic) -> Comparison:
    r"""Time two networks in turns until the ratio is known well enough.

    Turns come in quadruples :math:`a_1 b_1 b_2 a_2`, each the median of some runs. Each gives one log-ratio,

    .. math:: \tfrac12 (\log a_1 + \log a_2 - \log b_1 - \log b_2),

    from which a drift that is linear over the quadruple cancels, and whatever slows all of it down as well.
    Every other quadruple is the other way round, so that neither network always follows the other.
    The ratio is the exponential of their median, which spikes do not move. Where the network changes, a run
    that is not timed comes first: it brings back the weights that the other one pushed out of the caches.

    Args:
        pair: Prepares the network and its reference; called several times.
        patience: When to end.
        now: Seconds.

    References:
        Interval of a median by order statistics: Conover, Practical Nonparametric Statistics, 1999.
    """
    deadline = now() + patience.seconds
    warm_seconds = patience.seconds * _WARM_UP_SHARE / _LEAST_PAIRS
    samples: tuple[list[float], list[float]] = ([], [])
    ratios: list[float] = []
    while True:
        begun = now()
        timers = pair()
        deadline += now() - begun
        # Both take as many runs in a row: what a switch costs must not weigh more on one of them.
        runs = _runs(min(_settle(timer, now() + warm_seconds / 2, now) for timer in timers))
        for block in range(_BLOCKS_PER_PAIR):
            ratios.append(_quadruple(timers, block % 2, runs, samples))
            if now() >= deadline and len(ratios) > 1:
                return _comparison(ratios, samples)
        enough = len(ratios) >= _LEAST_PAIRS * _BLOCKS_PER_PAIR
        _, low, high = _median_interval(ratios)
        if enough and (high - low) / 2 <= patience.tolerance:
            return _comparison(ratios, samples)


def _quadruple(
    timers: tuple[Timer, Timer], lead: int, runs: int, samples: tuple[list[float], list[float]]
) -> float:
    """One log-ratio; the runs that it is made of are appended to ``samples``."""
    logs, last = [0.0, 0.0], -1
    for which in (lead, 1 - lead, 1 - lead, lead):
        if which != last:
            timers[which](1)
        turn = timers[which](runs)
        samples[which].extend(turn)
        logs[which] += math.log(max(float(np.median(turn)), 1e-9))
        last = which
    return (logs[0] - logs[1]) / 2


def _settle(timer: Timer, until: float, now: Callable[[], float]) -> float:
    """Run until two windows agree, at most until a time; milliseconds of a run."""
    before = float(timer(1)[0])
    while now() < until:
        turns = [np.median(timer(_runs(before))) for _ in range(_WINDOW)]
        middle = float(np.median(turns))
        if abs(middle - before) <= _SETTLED * middle:
            return middle
        before = middle
    return before


def _runs(ms: float) -> int:
    return min(max(1, math.ceil(_TURN_MS / max(ms, 1e-6))), _MOST_RUNS)


def _comparison(ratios: Sequence[float], samples: tuple[list[float], list[float]]) -> Comparison:
    middle, low, high = map(math.exp, _median_interval(ratios))
    return Comparison(middle, low, high, *(_timing(np.array(found)) for found in samples))


def _median_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Median and its 95% interval; the extremes where there are too few values for one."""
    ordered = np.sort(values)
    rank = max(int(stats.binom.ppf(0.025, len(ordered), 0.5)) - 1, 0)
    return float(np.median(ordered)), float(ordered[rank]), float(ordered[-1 - rank])


def _timing(samples: NDArray[np.float64]) -> Timing:
    low, middle, high = np.quantile(samples, (0.25, 0.5, 0.75))
    return Timing(float(middle), float(high - low), len(samples))
