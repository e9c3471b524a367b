"""Which criterion won, and where?"""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from search.report import words
from search.report.names import label
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells
from search.report.trend import mean_interval, residuals

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.report.data import Run
    from search.report.history import Entry
    from search.report.trend import Interval
    from search.report.words import Metric
    from search.result import Point

_TITLE = "Which criterion won, and where?"

#: One of so many candidates counts as one of the best.
_BEST_OF = 10

_LEAST_BEST = 5

#: Of fewer candidates a criterion's mean says nothing.
_LEAST_COMPARED = 3

_NOTE = (
    "For each criterion the mean over its candidates of rung-1 score minus trend; bars: 95% intervals "
    "(Student's t over candidates). The trend is the isotonic regression of score on MACs, the curve that "
    "never falls with the MACs and has the least squared error, fitted without the tenth of the candidates "
    "that a score belongs to: right of zero is better than usual at equal MACs. A candidate counts for the "
    "criterion that cuts most of its groups. Samplers choose again what went well, so candidates are no "
    "independent draws. Two of them have no bar."
)


@dataclass(frozen=True, slots=True)
class _Standing:
    """How a criterion did on rung 1."""

    name: str
    above: Interval
    best: int
    front: int


def criteria(run: Run) -> Section | None:
    """By score above the trend of the MACs, among the best of rung 1, and on the front."""
    metric = run.metric
    entries = [entry for entry in run.history.searched(1) if entry.record.criteria]
    if not entries:
        return None
    above = residuals([_macs(e) for e in entries], [e.record.evaluation.score for e in entries])
    num_best = min(len(entries), max(_LEAST_BEST, len(entries) // _BEST_OF))
    order = np.argsort(-above, kind="stable")[:num_best]
    best = [entries[i] for i in order]
    standings = _standings(entries, above.tolist(), best, run.result.points)
    found = [_answer(standings, metric), *_on_front(run)]
    charts = (_chart(standings, metric),) if len(standings) > 1 else ()
    tables = (_table(standings, len(entries), num_best, metric), _by_group(entries, best, run))
    return Section("criteria", _TITLE, tuple(found), charts, tables)


def _macs(entry: Entry) -> int:
    return entry.record.evaluation.macs


def _main(chosen: Mapping[str, str]) -> str:
    """The criterion of most groups; of equals the first in the alphabet."""
    counts = Counter(chosen.values())
    return min(counts, key=lambda name: (-counts[name], name))


def _standings(
    entries: Sequence[Entry], above: Sequence[float], best: Sequence[Entry], points: Sequence[Point]
) -> list[_Standing]:
    """Best first."""
    values: dict[str, list[float]] = defaultdict(list)
    for entry, value in zip(entries, above, strict=True):
        values[_main(entry.record.criteria)].append(value)
    num_best = Counter(_main(entry.record.criteria) for entry in best)
    num_front = Counter(_main(point.criteria) for point in points if point.criteria)
    standings = [_Standing(n, mean_interval(of), num_best[n], num_front[n]) for n, of in values.items()]
    return sorted(standings, key=lambda standing: (-standing.above.mean, standing.name))


def _answer(standings: Sequence[_Standing], metric: Metric) -> str:
    """Whether one criterion stands out on rung 1."""
    if len(standings) == 1:
        return f"Every candidate was cut by {label(standings[0].name)}: there is nothing to compare."
    ranked = [standing for standing in standings if standing.above.n >= _LEAST_COMPARED]
    if len(ranked) < 2:
        return "Not known: fewer than two criteria cut several candidates."
    first = ranked[0].above
    # Where an interval is wide, one that lies lower on the mean may reach higher than the second.
    rival = max(ranked[1:], key=lambda standing: standing.above.high or 0.0)
    assert first.low is not None
    assert first.high is not None
    assert rival.above.high is not None
    side = "below" if first.mean < 0 else "above"
    size = f"{metric.gap(first.mean, digits=2)} {side} the trend of its MACs"
    interval = metric.interval(first.low, first.high)
    if first.low <= rival.above.high:
        return (
            f"No criterion stands out on rung 1: {label(ranked[0].name)} leads with {size} ({interval}), and "
            f"the interval of {label(rival.name)} reaches into its own."
        )
    name = label(ranked[0].name)
    return f"{name} won on rung 1: its candidates lie {size} on the mean ({interval}), clear of the rest."


def _on_front(run: Run) -> list[str]:
    """Who cut the networks of the front."""
    counts = Counter(name for point in run.result.points for name in set(point.criteria.values()))
    if not counts:
        return []
    total = len(run.result.points)
    ranked = sorted(counts.items(), key=lambda of: (-of[1], of[0]))
    named = ", ".join(f"{label(name)} in {number}" for name, number in ranked)
    return [f"Of the {words.plural(total, 'network')} on the front, units were chosen by {named}."]


def _chart(standings: Sequence[_Standing], metric: Metric) -> Chart:
    return Chart(
        name="criteria-above-trend",
        title="Rung-1 score above the trend of the MACs, by criterion",
        x=Axis(f"Above trend: {metric.gap_axis}"),
        y=Axis("Criterion", categories=tuple(s.name for s in standings)),
        series=(
            Series("the trend", "line", (0, 0), (standings[0].name, standings[-1].name), "dense"),
            Series(
                label="mean of its candidates",
                kind="points",
                x=tuple(metric.plain(s.above.mean) for s in standings),
                y=tuple(s.name for s in standings),
                role="front",
                error=tuple(_half(s, metric) for s in standings),
                hover=tuple(
                    f"{s.name}: {metric.signed(s.above.mean)}, {words.plural(s.above.n, 'candidate')}"
                    for s in standings
                ),
            ),
        ),
        note=_NOTE,
        description=_answer(standings, metric),
    )


def _half(standing: _Standing, metric: Metric) -> float | None:
    """Half an interval; that of two or three candidates would hide all others."""
    above = standing.above
    return None if above.half is None or above.n < _LEAST_COMPARED else metric.plain(above.half)


def _table(standings: Sequence[_Standing], total: int, num_best: int, metric: Metric) -> Table:
    columns = (
        cells.plain("criterion"),
        cells.plain("candidates"),
        cells.share("share", "share of candidates"),
        cells.signed("mean", f"above trend: {metric.gap_axis}", metric),
        cells.signed("low", "95% from", metric),
        cells.signed("high", "to", metric),
        cells.share("share_of_best", f"share of the best {num_best}"),
        cells.plain("front", "points of the front"),
    )
    rows = tuple(
        {
            "criterion": s.name,
            "candidates": s.above.n,
            "share": s.above.n / total,
            "mean": s.above.mean,
            "low": s.above.low,
            "high": s.above.high,
            "share_of_best": s.best / num_best,
            "front": s.front,
        }
        for s in standings
    )
    note = f"The best {num_best}: the candidates of rung 1 that lie furthest above the trend of their MACs."
    return Table("criteria", "Criteria on rung 1 and on the front", columns, rows, note)


def _by_group(entries: Sequence[Entry], best: Sequence[Entry], run: Run) -> Table:
    """How often each criterion cut each group: in all candidates, in the best, on the front."""
    everywhere = Counter(pair for e in entries for pair in e.record.criteria.items())
    among_best = Counter(pair for e in best for pair in e.record.criteria.items())
    on_front = Counter(pair for point in run.result.points for pair in point.criteria.items())
    place = {name: i for i, name in enumerate(run.full_widths)}
    pairs = sorted(
        {*everywhere, *on_front},
        key=lambda pair: (place.get(pair[0], len(place)), -on_front[pair], -among_best[pair], pair[1]),
    )
    columns = (
        cells.plain("group"),
        cells.plain("criterion"),
        cells.plain("candidates"),
        cells.plain("best", f"of the best {len(best)}"),
        cells.plain("front", "points of the front"),
    )
    rows = tuple(
        {
            "group": group,
            "criterion": name,
            "candidates": everywhere[group, name],
            "best": among_best[group, name],
            "front": on_front[group, name],
        }
        for group, name in pairs
    )
    note = "Groups that stay whole need no criterion and count for none."
    return Table("criteria-by-group", "Who cut which group, and how often", columns, rows, note)
