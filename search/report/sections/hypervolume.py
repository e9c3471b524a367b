"""How did the front grow while the search went on?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

import numpy as np

from search.front import Mark, front, reference_score
from search.report import words
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells
from search.report.sections.origins import KINDS, kind_of
from search.report.volume import elapsed, gains

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from search.report.data import Run
    from search.report.history import Entry
    from search.report.words import Metric

_TITLE = "How the front of rung 1 grew"

#: Share of the final hypervolume by which most of the work is done.
_NEARLY = 0.99


def hypervolume(run: Run) -> Section | None:
    """Hypervolume of rung 1 over evaluations and over seconds, and who raised it."""
    entries = run.history.searched(1)
    if not entries:
        return None
    metric, dense = run.metric, run.result.dense.macs
    scores = [entry.record.evaluation.score for entry in entries]
    reference = _reference(entries)
    added = gains([e.record.evaluation.macs / dense for e in entries], scores, reference)
    when = elapsed(entries, run.history.entries)
    note = (
        "Hypervolume: the area that the evaluations so far dominate, MACs as a share of dense times score, "
        f"up to the reference point of all dense MACs and {metric.title} {metric.value(reference)}. Marks: "
        "evaluations that raised it, by who proposed them."
    )
    labels = _labels(entries, added, metric)
    size, unit = words.clock(float(when[-1]))
    evaluations, time = np.arange(1.0, len(entries) + 1), when / size
    charts = (
        _chart("evaluations", "Evaluations on rung 1", evaluations, entries, added, labels, note),
        _chart("time", f"{unit.capitalize()} since the first one began", time, entries, added, labels, note),
    )
    return Section("hypervolume", _TITLE, _words(run, added, when), charts, (_table(entries, added),))


def _reference(entries: Sequence[Entry]) -> float:
    """A score of nothing; where scores are negative, the worst on the front: outliers would hide the rest."""
    evaluations = [entry.record.evaluation for entry in entries]
    return reference_score(
        mark.score for mark in front(Mark(e.macs, e.score, e.candidate) for e in evaluations)
    )


def _words(run: Run, added: NDArray[np.float64], when: NDArray[np.float64]) -> tuple[str, ...]:
    total, own = float(added.sum()), run.result.hypervolume
    corner = ", ".join(f"{name} = {words.significant(value, 6)}" for name, value in own.reference.items())
    final = (
        f"The final front has hypervolume {words.significant(own.value)}, up to the reference point {corner} "
        "(costs as shares of dense)."
    )
    if set(own.reference) != {"macs", "score"}:
        final += " Rung 1 is shown over MACs and the score alone, so the two can not be compared."
    if total <= 0:
        return ("No evaluation of rung 1 dominates any area up to the reference point.", final)
    reached = words.significant(total)
    near = int(np.searchsorted(np.cumsum(added), _NEARLY * total))
    last = int(np.flatnonzero(added)[-1])
    return (
        f"Rung 1 reached {reached}; 99% of it was there after {near + 1} of {len(added)} evaluations "
        f"({words.duration(float(when[near]))}), and evaluation {last + 1} was the last to raise it.",
        final,
    )


def _labels(entries: Sequence[Entry], added: NDArray[np.float64], metric: Metric) -> dict[int, str]:
    """Hover text of the evaluations that raised it."""
    found = {}
    for i in np.flatnonzero(added).tolist():
        record = entries[i].record
        score = metric.value(record.evaluation.score)
        found[i] = (
            f"{record.evaluation.candidate}, {record.origin}\n+{words.significant(added[i], 2)} by {score}"
        )
    return found


def _chart(
    over: str,
    axis: str,
    x: NDArray[np.float64],
    entries: Sequence[Entry],
    added: NDArray[np.float64],
    labels: dict[int, str],
    note: str,
) -> Chart:
    total = np.cumsum(added)
    # A step line needs its corners only.
    corners = sorted({0, len(entries) - 1, *labels})
    series = [
        Series("hypervolume", "steps", tuple(x[corners].tolist()), tuple(total[corners].tolist()), "front")
    ]
    for kind, role in KINDS.items():
        own = [i for i in labels if kind_of(entries[i].record.origin) == kind]
        if own:
            series.append(
                Series(
                    label=kind,
                    kind="points",
                    x=tuple(x[own].tolist()),
                    y=tuple(total[own].tolist()),
                    role=role,
                    hover=tuple(labels[i] for i in own),
                )
            )
    reached = f"{words.significant(float(total[-1]))} after {words.plural(len(entries), 'evaluation')}"
    return Chart(
        name=f"hypervolume-over-{over}",
        title=f"Hypervolume over {over}",
        x=Axis(axis),
        y=Axis("Hypervolume"),
        series=tuple(series),
        note=note,
        description=f"The hypervolume of rung 1 rises to {reached}.",
    )


def _table(entries: Sequence[Entry], added: NDArray[np.float64]) -> Table:
    """What each origin added."""
    gained: dict[str, float] = defaultdict(float)
    counts: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    for entry, gain in zip(entries, added.tolist(), strict=True):
        origin = entry.record.origin
        gained[origin] += gain
        counts[origin][0] += 1
        counts[origin][1] += gain > 0
    total = sum(gained.values()) or 1.0
    columns = (
        cells.plain("origin", "proposed by"),
        cells.plain("evaluations"),
        cells.plain("raised", "raised it"),
        cells.number("added", "added", words.significant),
        cells.share("share", "share"),
    )
    rows = tuple(
        {
            "origin": origin,
            "evaluations": counts[origin][0],
            "raised": counts[origin][1],
            "added": gained[origin],
            "share": gained[origin] / total,
        }
        for origin in sorted(gained, key=lambda name: (-gained[name], name))
    )
    note = "What comes first has the most to add, so shares favour the seeds, which open the search."
    return Table("hypervolume-by-origin", "Who raised the hypervolume of rung 1", columns, rows, note)
