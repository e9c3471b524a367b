"""Which network of a front: within limits, then by one column, or at the knee."""

from __future__ import annotations

import difflib
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from evaluators.options import OptionError
from search.pick import amounts
from search.pick.columns import LATENCY, RATIO, SIZE, columns
from search.report.words import Metric, hyphened, share

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from search.pick.columns import Columns
    from search.result import Point, Result

_OPERATORS: dict[str, Callable[[Any, Any], Any]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "!=": operator.ne,
    "==": operator.eq,
    "<": operator.lt,
    ">": operator.gt,
    "=": operator.eq,
}

#: Columns that are better when lower, by how they begin; also every standard deviation.
_COSTS = ("macs", "params", SIZE, LATENCY, RATIO)


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picked network must meet, as given on the command line; ``None`` where nothing is asked.

    Attributes:
        max_macs: Most multiply-adds: ``50%`` of dense, ``30M`` or a plain number.
        max_params: Most parameters, in the same forms.
        min_score: Least holdout score: ``93%``, ``93`` or ``0.93`` for a fraction such as top-1.
        max_latency_ms: Most milliseconds, or ``50%`` of dense, in the only way that was measured.
        max_size: Most bytes of weights on disk: ``1MB``.
        where: Conditions ``COLUMN<=VALUE``.
        best: Column that decides within the limits; the score when ``None``, or with a least score the MACs.
        knee: Whether the knee of what meets the limits is wanted.
        min_score_option: The least score's option, for messages.
    """

    max_macs: str | None = None
    max_params: str | None = None
    min_score: str | None = None
    max_latency_ms: str | None = None
    max_size: str | None = None
    where: tuple[str, ...] = ()
    best: str | None = None
    knee: bool = False
    min_score_option: str = "min-score"


def pick_point(result: Result, limits: Limits, known: Columns | None = None) -> Point:
    """The point of the front with the highest score within the limits, or what else decides.

    With a least score and nothing else to decide it is the one with the fewest MACs that reaches it.

    Args:
        result: ``front.json``, with a point on the front.
        limits: What is asked for.
        known: What is known of its points; no more than the result says when ``None``.

    Raises:
        OptionError: If a limit can not be read, or no point meets it; the rule says what can be met.
    """
    known = columns(result) if known is None else known
    points = list(result.points)
    points = _within(points, "max-macs", limits.max_macs, result.dense.macs, lambda point: point.macs)
    points = _within(points, "max-params", limits.max_params, result.dense.params, lambda point: point.params)
    points = _small_enough(known, points, limits.max_size)
    points = _fast_enough(known, points, limits.max_latency_ms)
    for text in limits.where:
        points = _meeting(known, points, text)
    if limits.min_score is not None:
        points = _good_enough(result, points, limits)
    if limits.knee:
        return knee(points)
    if limits.best is not None:
        return _best(known, points, limits.best)
    if limits.min_score is not None:
        return min(points, key=lambda point: (point.macs, -point.score))
    return max(points, key=lambda point: (point.score, -point.macs))


def knee(points: Sequence[Point]) -> Point:
    """The point farthest above the line between the ends of a front, MACs and score scaled to 0 to 1.

    Raises:
        OptionError: If there is none between two ends.

    References:
        Das, On characterizing the "knee" of the Pareto curve, 1999.
    """
    points = sorted(points, key=lambda point: point.macs)
    if len(points) < 3:
        raise OptionError(
            "knee", None, f"needs at least three networks to choose among, found {len(points)}."
        )
    first, last = points[0], points[-1]

    def above(point: Point) -> float:
        along = (point.macs - first.macs) / ((last.macs - first.macs) or 1)
        return (point.score - first.score) / ((last.score - first.score) or 1) - along

    return max(points[1:-1], key=lambda point: (above(point), -point.macs))


def find_point(result: Result, id_: str) -> Point:
    """The final or control with this id.

    Raises:
        OptionError: If there is none; the rule names the front's.
    """
    # A proposed point can be its own control: the front comes last, so that it wins.
    points = {point.id: point for point in (*result.controls, *result.dominated, *result.points)}
    if id_ not in points:
        front = ", ".join(point.id for point in result.points)
        raise OptionError("id", repr(id_), f"no such network in this run; the front has {front}.")
    return points[id_]


def _within(
    points: list[Point], option: str, text: str | None, dense: int, size: Callable[[Point], int]
) -> list[Point]:
    """The points whose size is at most ``text``; earlier limits have thinned them out already."""
    if text is None:
        return points
    most = amounts.amount(option, text, dense)
    small = [point for point in points if size(point) <= most]
    if not small:
        least = min(map(size, points))
        rule = f"no network fits; the smallest has {least} ({share(least, dense)} of the dense one's)."
        raise OptionError(option, text, rule)
    return small


def _small_enough(known: Columns, points: list[Point], text: str | None) -> list[Point]:
    if text is None:
        return points
    most = amounts.size("max-size", text)
    sizes = {point.id: known.number(point, SIZE) for point in points}
    small = [point for point in points if (found := sizes[point.id]) is not None and found <= most]
    if not small:
        least = min((found for found in sizes.values() if found is not None), default=None)
        rule = (
            "no weights are in the run folder." if least is None else f"the smallest has {least:.0f} bytes."
        )
        raise OptionError("max-size", text, f"no network fits; {rule}")
    return small


def _fast_enough(known: Columns, points: list[Point], text: str | None) -> list[Point]:
    if text is None:
        return points
    setups = known.latency_setups
    if not setups and LATENCY not in known.names:
        rule = "nothing was measured on this front; `python -m search.latency RUN` does so."
        raise OptionError("max-latency-ms", text, rule)
    if len(setups) > 1:
        named, column = ", ".join(setups), RATIO if text.endswith("%") else LATENCY
        rule = f"was measured in several ways; name one with --where '{column}:{setups[0]}<={text}': {named}."
        raise OptionError("max-latency-ms", text, rule)
    name = ":".join([RATIO if text.endswith("%") else LATENCY, *setups])
    most = amounts.plain(text)
    if most is None or most <= 0:
        raise OptionError(
            "max-latency-ms", repr(text), "must be milliseconds like 3, or 50% of dense, above 0."
        )
    found = {point.id: known.number(point, name) for point in points}
    fast = [point for point in points if (ms := found[point.id]) is not None and ms <= most]
    if not fast:
        least = min((ms for ms in found.values() if ms is not None), default=math.nan)
        shown = f"{least:.0%} of dense" if text.endswith("%") else f"{least:.3g} ms"
        raise OptionError("max-latency-ms", text, f"no network fits; the fastest takes {shown}.")
    return fast


def _meeting(known: Columns, points: list[Point], text: str) -> list[Point]:
    """The points that meet a condition on a column."""
    name, sign, value = _condition(known, text)
    wanted: object = _value(known, name, value)
    if wanted is None:
        raise OptionError("where", repr(text), f"{name} is a number; {value!r} is none.")
    if isinstance(wanted, str) and sign not in ("=", "==", "!="):
        raise OptionError("where", repr(text), f"{name} is a text, which can be compared by = and != only.")
    cells = [(point, known.cells[point.id].get(name)) for point in points]
    good = [point for point, cell in cells if cell is not None and _OPERATORS[sign](cell, wanted)]
    if not good:
        found = sorted({cell for _, cell in cells if isinstance(cell, int | float)})
        span = f"; {name} goes from {found[0]:.6g} to {found[-1]:.6g}" if found else ""
        raise OptionError("where", repr(text), f"no network meets it{span}.")
    return good


def _condition(known: Columns, text: str) -> tuple[str, str, str]:
    """Column, operator and value; a column's own name may hold operators."""
    for name in sorted([*known.names, *known.aliases], key=len, reverse=True):
        found = re.fullmatch(r"\s*(<=|>=|!=|==|<|>|=)\s*(.*\S)\s*", text.strip().removeprefix(name))
        if text.strip().startswith(name) and found:
            return known.aliases.get(name, name), found[1], found[2]
    found = re.match(r"\s*([^<>=!]*[^<>=!\s])\s*[<>=!]", text)
    if found is None:
        raise OptionError("where", repr(text), "must be COLUMN<=VALUE, with <=, >=, <, >, = or !=.")
    raise OptionError("where", repr(text), _unknown(known, found[1]))


def _unknown(known: Columns, name: str) -> str:
    names = known.names
    near = [other for other in names if name and name.lower() in other.lower()][:4]
    near = near or difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    return f"no column {name!r}; did you mean {' or '.join(near or names[:4])}?"


def _value(known: Columns, name: str, text: str) -> object:
    """What a column is compared with: a number where it has numbers."""
    if not known.is_numeric(name):
        return text
    if name in ("macs", "params") and text.endswith("%"):
        return float(amounts.amount("where", text, getattr(known.result.dense, name)))
    return amounts.plain(text)


def _good_enough(result: Result, points: list[Point], limits: Limits) -> list[Point]:
    assert limits.min_score is not None
    option, metric = limits.min_score_option, Metric(result.metric)
    least = amounts.score(option, limits.min_score, metric)
    shown = metric.value(least)
    # 91.17% takes the network that every table tells as 91.17%; more digits than that are meant as they are.
    is_as_shown = math.isclose(amounts.score(option, hyphened(shown), metric), least, rel_tol=1e-12)
    good = [p for p in points if p.score >= least or (is_as_shown and metric.value(p.score) == shown)]
    if not good:
        best = max(point.score for point in points)
        reachable = f"{math.floor(best * 1e4) / 100:.2f}%" if metric.is_fraction else repr(best)
        among = " within the other limits" if len(points) < len(result.points) else ""
        rule = f"no network{among} reaches it; the best {metric.title} on holdout is {reachable}."
        raise OptionError(option, limits.min_score, rule)
    return good


def _best(known: Columns, points: list[Point], name: str) -> Point:
    """The best by one column; of equals the one with the higher score."""
    name = known.aliases.get(name, name)
    if name not in known.names:
        raise OptionError("best", repr(name), _unknown(known, name))
    numbers = [(point, number) for point in points if (number := known.number(point, name)) is not None]
    if not numbers or not known.is_numeric(name):
        raise OptionError("best", repr(name), "has no numbers to choose by.")
    sign = -1 if is_cost(name) else 1
    return max(numbers, key=lambda pair: (sign * pair[1], pair[0].score, -pair[0].macs))[0]


def is_cost(name: str) -> bool:
    """Whether a column is better when lower."""
    return name.startswith(_COSTS) or name.endswith("_sd")
