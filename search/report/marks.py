"""What both pictures of a front share: which marks there are, what they are called, where the axes end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from search.report.words import Metric, saved_summary

if TYPE_CHECKING:
    from collections.abc import Iterable

    from search.report.data import Dot, Run
    from search.result import Point

#: Where the axis of MACs ends, in percent of dense.
AXIS_END = 104
MACS_AXIS = "MACs, % of the dense network"

_RUNGS = {1: "untrained", 2: "brief training", 3: "final"}


class Mark(NamedTuple):
    """How the picture draws a final that is not on the front: marker, size, label."""

    matplotlib: str
    size: float
    label: str


OTHERS = {
    "dominated": Mark("o", 38, "dominated"),
    "uniform": Mark("s", 38, "uniform control"),
    "random": Mark("D", 30, "random control"),
}


def points_of(run: Run, kind: str) -> list[Point]:
    """The finals that play one part."""
    return [final.point for final in run.finals if final.kind == kind]


def background(run: Run) -> dict[int, list[Dot]]:
    """Evaluations with finite numbers that no final's mark shows already, by rung, lowest rung first."""
    finals = {(final.point.id, final.point.rung) for final in run.finals}
    found: dict[int, list[Dot]] = {}
    for dot in sorted(run.dots, key=lambda dot: dot.rung):
        finite = all(map(math.isfinite, (dot.macs, dot.params, dot.score)))
        if finite and (dot.id, dot.rung) not in finals:
            found.setdefault(dot.rung, []).append(dot)
    return found


def position(run: Run, items: Iterable[Point] | Iterable[Dot]) -> tuple[list[float], list[float]]:
    """Coordinates: MACs in percent of dense, holdout score in the axis's unit."""
    plain, both = Metric(run.result.metric).plain, [(item.macs, item.score) for item in items]
    return [100 * macs / run.result.dense.macs for macs, _ in both], [plain(score) for _, score in both]


def deviation(run: Run, point: Point) -> float:
    """Standard deviation over training seeds in the axis's unit; 0 where there is a single one."""
    summary = saved_summary(point, "holdout")
    return Metric(run.result.metric).plain(summary.sd) if summary and summary.sd else 0.0


def score_range(run: Run) -> tuple[float, float]:
    """Ends of the score axis: all finals with their deviations and the dense network fit.

    Cheaper evaluations may lie below it; where there is no final they decide instead.
    """
    ends = [Metric(run.result.metric).plain(run.result.dense.score)]
    for final in run.finals:
        score, spread = Metric(run.result.metric).plain(final.point.score), deviation(run, final.point)
        ends += [score - spread, score + spread]
    if not run.finals:
        ends += position(run, run.dots)[1]
    low, high = min(ends), max(ends)
    pad = 0.1 * (high - low) or 0.01 * abs(high) or 1.0
    return low - pad, min(high + 1.4 * pad, _highest(run) + 0.5 * pad)


def _highest(run: Run) -> float:
    """The best score that there can be, on the axis."""
    return 100.0 if Metric(run.result.metric).is_fraction else math.inf


def rung_label(rung: int) -> str:
    """What an evaluation on this rung did."""
    return f"rung {rung}, {_RUNGS[rung]}" if rung in _RUNGS else f"rung {rung}"
