"""Did the search beat uniform and random widths at equal MACs?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report import words
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.report.data import Run
    from search.report.section import Role
    from search.report.words import Metric
    from search.result import Comparison

_ROLES: dict[str, Role] = {"uniform": "uniform", "random": "random"}


def controls(run: Run) -> Section:
    """Paired differences with their intervals, on the split that chose nothing first."""
    metric, title = run.metric, "Did the search beat uniform and random widths?"
    known = [c for c in run.result.comparisons if c.n]
    if not known:
        unknown = "Not known: this run trained no controls at equal MACs."
        return Section("controls", title, (unknown,))
    found = tuple(words.verdict(comparison, metric) for comparison in words.main_comparisons(known))
    return Section(
        "controls", title, found, (_chart(known, metric),), (_table(run.result.comparisons, metric),)
    )


def _chart(known: Sequence[Comparison], metric: Metric) -> Chart:
    """A mean with its interval for each control and split."""
    series = [Series("no difference", "line", (0, 0), (_label(known[0]), _label(known[-1])), "dense")]
    for control in dict.fromkeys(c.control for c in known):
        own = [c for c in known if c.control == control]
        series.append(
            Series(
                label=f"against {control} widths",
                kind="points",
                x=tuple(metric.plain(c.mean) for c in own),
                y=tuple(_label(c) for c in own),
                role=_ROLES.get(control, "third"),
                error=tuple(None if c.high is None else metric.plain(c.high - c.mean) for c in own),
                hover=tuple(words.verdict(c, metric) for c in own),
            )
        )
    return Chart(
        name="search-minus-controls",
        title="Search minus controls at equal MACs",
        x=Axis(f"Search minus control: {metric.gap_axis}"),
        y=Axis("Control and split", categories=tuple(_label(c) for c in known)),
        series=tuple(series),
        note="Right of zero: the search is better. Bars: 95% intervals, Student's t over pairs.",
        description=" ".join(words.verdict(c, metric) for c in known),
    )


def _label(comparison: Comparison) -> str:
    return f"{comparison.control}, {comparison.split}"


def _table(comparisons: Sequence[Comparison], metric: Metric) -> Table:
    columns = (
        cells.plain("control"),
        cells.plain("split"),
        cells.signed("mean", f"search minus control: {metric.gap_axis}", metric),
        cells.signed("low", "95% from", metric),
        cells.signed("high", "to", metric),
        cells.plain("n", "pairs"),
        cells.plain("alike", "of them with itself"),
    )
    rows = tuple(
        {name: getattr(c, name) for name in ("control", "split", "mean", "low", "high", "n", "alike")}
        for c in comparisons
    )
    note = (
        "Paired over points, Student's t. The search chose its points on holdout, which flatters it there; "
        "the controls were not chosen, and test chose nothing. A pair of a network with itself is one where "
        "the search found just the control's widths and criteria: a difference of zero."
    )
    return Table("controls", "Search minus controls, both splits", columns, rows, note)
