"""Which groups decide how good a candidate is?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report import words
from search.report.importance import LEAST, MOST, best_share, importances
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells
from search.report.trend import residuals

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.report.data import Run

_TITLE = "Which groups mattered?"

#: Bars of the chart; the table has the rest.
_MOST_BARS = 25


def groups(run: Run) -> Section | None:
    """Importance of each group's keep ratio and of the criterion, at equal MACs and in all."""
    entries = run.history.searched(1)
    if not entries:
        return None
    metric = words.Metric(run.result.metric)
    params = [entry.params for entry in entries]
    scores = [entry.record.evaluation.score for entry in entries]
    above = residuals([entry.record.evaluation.macs for entry in entries], scores).tolist()
    distributions = run.history.distributions
    at_equal_macs = importances(params, above, distributions)
    if at_equal_macs is None:
        unknown = (
            f"Not known: PED-ANOVA needs {LEAST} evaluations on rung 1 that differ in score and parameters; "
            f"this run has {len(entries)}."
        )
        return Section("groups", _TITLE, (unknown,))
    in_all = importances(params, scores, distributions) or {}
    finding, note = _finding(at_equal_macs), _note(len(entries), metric.title)
    chart = _chart(at_equal_macs, note, finding)
    return Section("groups", _TITLE, (finding,), (chart,), (_table(at_equal_macs, in_all),))


def _named(parameter: str) -> str:
    """``keep:layer1`` is the width of layer1."""
    kind, colon, group = parameter.partition(":")
    if kind == "keep":
        return group
    return f"criterion of {group}" if colon else "criterion"


def _finding(found: Mapping[str, float]) -> str:
    names = list(found)
    leading = ", ".join(f"{_named(name)} ({words.share(found[name], 1)})" for name in names[:3])
    return (
        f"What sets the best candidates apart at equal MACs is above all {leading}. Importances sum to 100% "
        "and say how much a parameter matters, not in which direction."
    )


def _note(num: int, title: str) -> str:
    looked_at = min(num, MOST)
    drawn = f", {MOST:,} drawn at random from {num:,}" if num > MOST else ""
    best = words.share(best_share(looked_at), 1)
    return (
        f"PED-ANOVA (Watanabe et al., 2023) of {looked_at:,} evaluations of rung 1{drawn}: how far the "
        f"parameters of the best {best} differ from those of all. At equal MACs: the best by {title} above "
        "the trend of the MACs."
    )


def _chart(found: Mapping[str, float], note: str, finding: str) -> Chart:
    shown = list(found)[:_MOST_BARS]
    rest = len(found) - len(shown)
    return Chart(
        name="importance-of-groups",
        title="Importance of each group for the score at equal MACs",
        x=Axis("Importance (%)"),
        y=Axis("Group", categories=tuple(_named(name) for name in shown)),
        series=(
            Series(
                label="importance",
                kind="bars",
                x=tuple(100 * found[name] for name in shown),
                y=tuple(_named(name) for name in shown),
                role="front",
            ),
        ),
        note=f"{note} The table has {rest} more." if rest else note,
        description=finding,
    )


def _table(at_equal_macs: Mapping[str, float], in_all: Mapping[str, float]) -> Table:
    columns = (
        cells.plain("parameter"),
        cells.share("at_equal_macs", "for the score at equal MACs"),
        cells.share("in_all", "for the score itself"),
    )
    rows = tuple(
        {"parameter": _named(name), "at_equal_macs": value, "in_all": in_all.get(name)}
        for name, value in at_equal_macs.items()
    )
    note = "For the score itself, what saves MACs matters too."
    return Table("importance", "Importance of every parameter", columns, rows, note)
