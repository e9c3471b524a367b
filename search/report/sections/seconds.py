"""Where did the time go?"""

from __future__ import annotations

from collections import defaultdict
from statistics import median
from typing import TYPE_CHECKING

from search.report import words
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.report.data import Run

_PHASES = {
    "dense": "training the dense network",
    "prepare": "scoring its units",
    "rung-1": "rung 1, untrained",
    "rung-2": "rung 2, brief training",
    "finals": "finals and controls",
    "test": "reading test",
    "latency": "measuring latency",
    "report": "writing the report",
    "other": "proposals and records",
}


def seconds(run: Run) -> Section | None:
    """Wall clock of each phase, and what single evaluations took."""
    spent = run.result.seconds
    if not spent and not run.history.entries:
        return None
    found = [_answer(spent)] if spent else []
    tables = [_phases(spent)] if spent else []
    counts = ", ".join(f"{number} on {name.replace('-', ' ')}" for name, number in run.result.counts.items())
    if counts:
        found.append(f"Evaluations: {counts}.")
    if run.history.entries:
        tables.append(_evaluations(run))
    charts = (_chart(spent),) if spent else ()
    return Section("seconds", "What it took", tuple(found), charts, tuple(tables))


def _named(phase: str) -> str:
    return _PHASES.get(phase, phase)


def _answer(spent: Mapping[str, float]) -> str:
    total = sum(spent.values())
    if total <= 0:
        return "No time is on record."
    most = max(spent, key=lambda name: spent[name])
    return (
        f"{words.duration(total)} in all, most of it ({words.share(spent[most], total)}) on {_named(most)}. "
        "Wall clock, sessions before a resumption included as far as evaluations took time in them."
    )


def _chart(spent: Mapping[str, float]) -> Chart:
    order = [name for name in _PHASES if name in spent] + sorted(set(spent) - set(_PHASES))
    names = tuple(_named(name) for name in order)
    size, unit = words.clock(max(spent.values()))
    bars = Series(
        label="wall clock",
        kind="bars",
        x=tuple(spent[name] / size for name in order),
        y=names,
        role="front",
        hover=tuple(words.duration(spent[name]) for name in order),
    )
    return Chart(
        name="seconds-per-phase",
        title="Wall clock of each phase",
        x=Axis(unit.capitalize()),
        y=Axis("Phase", categories=names),
        series=(bars,),
        note="",
        description=_answer(spent),
    )


def _phases(spent: Mapping[str, float]) -> Table:
    rows = tuple({"phase": name, "what": _named(name), "seconds": value} for name, value in spent.items())
    columns = (cells.plain("phase"), cells.plain("what"), cells.seconds("seconds", "wall clock"))
    return Table("seconds", "Wall clock of each phase", columns, rows)


def _evaluations(run: Run) -> Table:
    """By rung and method."""
    took: dict[tuple[int, str], list[float]] = defaultdict(list)
    for record in run.history.records:
        took[record.evaluation.rung, record.evaluation.method].append(record.evaluation.seconds)
    rows = tuple(
        {
            "rung": rung,
            "method": words.METHOD_NAMES.get(method, method),
            "evaluations": len(values),
            "median_seconds": median(values),
            "total_seconds": sum(values),
        }
        for (rung, method), values in sorted(took.items())
    )
    columns = (
        cells.plain("rung"),
        cells.plain("method"),
        cells.plain("evaluations"),
        cells.seconds("median_seconds", "median"),
        cells.seconds("total_seconds", "sum"),
    )
    note = "Sums add up what ran at the same time."
    return Table("evaluations", "Evaluations and what one takes", columns, rows, note)
