"""Which groups decide how good a candidate is?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report import words
from search.report.importance import LEAST, MOST, SHUFFLES, best_share, importances
from search.report.names import label
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells
from search.report.trend import residuals

if TYPE_CHECKING:
    from search.report.data import Run
    from search.report.importance import Importances

_TITLE = "Which groups mattered?"

#: Bars of the chart; the table has the rest.
_MOST_BARS = 25


def groups(run: Run) -> Section | None:
    """Importance of each group's keep ratio and of the criterion, at equal MACs and in all."""
    entries = run.history.searched(1)
    if not entries:
        return None
    metric = run.metric
    params = [entry.params for entry in entries]
    scores = [entry.record.evaluation.score for entry in entries]
    above = residuals([entry.record.evaluation.macs for entry in entries], scores).tolist()
    found = importances(params, above, scores, run.history.distributions)
    if found is None:
        unknown = (
            f"Not known: PED-ANOVA needs {LEAST} evaluations on rung 1 that differ in score and parameters; "
            f"this run has {len(entries)}{', which do not differ' if len(entries) >= LEAST else ''}."
        )
        return Section("groups", _TITLE, (unknown,))
    finding, note = _finding(found), _note(len(entries), metric.title)
    return Section("groups", _TITLE, (finding,), (_chart(found, note, finding),), (_table(found),))


def _named(parameter: str) -> str:
    """``keep:layer1`` is the width of layer1."""
    kind, colon, group = parameter.partition(":")
    if kind == "keep":
        return group
    return f"criterion of {group}" if colon else "criterion"


def _finding(found: Importances) -> str:
    beyond = found.beyond_chance
    if not beyond:
        first = next(iter(found.shares))
        return (
            f"No group stands out: {label(_named(first))} leads, but shuffled scores make one group "
            f"{found.chance / found.shares[first]:.1f} times as important. More evaluations could tell."
        )
    leading = ", ".join(
        f"{label(_named(name))} ({found.shares[name] / found.chance:.1f} times chance)" for name in beyond[:3]
    )
    more = f" and {len(beyond) - 3} more" if len(beyond) > 3 else ""
    return (
        f"What sets the best candidates apart at equal MACs is above all {leading}{more}. It says how much a "
        "width matters, not whether wider or narrower is better."
    )


def _note(num: int, title: str) -> str:
    looked_at = min(num, MOST)
    drawn = f" that were drawn at random from {num:,}" if num > MOST else ""
    best = words.share(best_share(looked_at), 1)
    return (
        f"PED-ANOVA (Watanabe et al., 2023) of {looked_at:,} evaluations of rung 1{drawn}: how far the "
        f"parameters of the best {best} differ from those of all. At equal MACs: the best by {title} above "
        f"the trend of the MACs. Chance: the largest importance of any group in {SHUFFLES} shuffles of the "
        "scores."
    )


def _chart(found: Importances, note: str, finding: str) -> Chart:
    shown = list(found.shares)[:_MOST_BARS]
    rest, names = len(found.shares) - len(shown), tuple(map(_named, shown))
    return Chart(
        name="importance-of-groups",
        title="Importance of each group for the score at equal MACs",
        x=Axis("Importance, as a multiple of chance"),
        y=Axis("Group", categories=names),
        series=(
            Series(
                label="importance",
                kind="bars",
                x=tuple(found.shares[name] / found.chance for name in shown),
                y=names,
                role="front",
            ),
            Series(
                label="chance",
                kind="line",
                x=(1, 1),
                y=(names[0], names[-1]),
                role="dense",
            ),
        ),
        note=f"{note} The table has {rest} more." if rest else note,
        description=finding,
    )


def _table(found: Importances) -> Table:
    columns = (
        cells.plain("parameter"),
        cells.share("at_equal_macs", "for the score at equal MACs"),
        cells.two_digits("against_chance", "multiple of chance"),
        cells.share("in_all", "for the score itself"),
    )
    rows = tuple(
        {
            "parameter": _named(name),
            "at_equal_macs": value,
            "against_chance": value / found.chance,
            "in_all": found.others.get(name),
        }
        for name, value in found.shares.items()
    )
    note = "Shares of all importance. For the score itself, what saves MACs matters too."
    return Table("importance", "Importance of every parameter", columns, rows, note)
