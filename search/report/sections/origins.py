"""Where did the points of the front come from?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from search.report import words
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.report.data import Run
    from search.report.section import Role

#: Who proposes, coarsely, with the colour of each; random and uniform widths are what a search has to beat.
KINDS: dict[str, Role] = {
    "sampler": "first",
    "other seeds": "second",
    "uniform seeds": "uniform",
    "random seeds": "random",
    "others": "third",
}


def kind_of(origin: str) -> str:
    """The key of :data:`KINDS` that an origin belongs to."""
    source, _, name = origin.partition(": ")
    if source == "seed":
        return f"{name} seeds" if name in ("uniform", "random") else "other seeds"
    return "sampler" if source == "sampler" else "others"


def origins(run: Run) -> Section | None:
    """Each origin's share of the proposals against its share of the front."""
    proposed = Counter(entry.record.origin for entry in run.history.searched(1))
    points = Counter(point.origin for point in run.result.points)
    if not proposed or not points:
        return None
    names = sorted({*proposed, *points}, key=lambda name: (-points[name], -proposed[name], name))
    finding = _finding(proposed, points)
    table = _table(names, proposed, points)
    return Section(
        "origins",
        "Where the points of the front came from",
        (finding,),
        (_chart(names, proposed, points, finding),),
        (table,),
    )


def _finding(proposed: Counter[str], points: Counter[str]) -> str:
    """What the sampler found in proportion to what it proposed."""
    own = sum(n for name, n in points.items() if kind_of(name) == "sampler")
    asked = sum(n for name, n in proposed.items() if kind_of(name) == "sampler")
    total, num_points = proposed.total(), points.total()
    if not asked:
        return (
            f"All {words.plural(num_points, 'point')} of the front are seeds: no sampler proposed anything."
        )
    named = words.share(own, num_points)
    return (
        f"The sampler found {own} of {words.plural(num_points, 'point')} of the front ({named}) with "
        f"{words.share(asked, total)} of the {words.plural(total, 'evaluation')} on rung 1; the rest came "
        "from the seeds that open every search."
    )


def _chart(names: Sequence[str], proposed: Counter[str], points: Counter[str], finding: str) -> Chart:
    shares: tuple[tuple[str, Counter[str], Role], ...] = (
        ("share of rung 1", proposed, "rung-1"),
        ("share of the front", points, "front"),
    )
    series: list[Series] = []
    for label, counts, role in shares:
        x = tuple(100 * counts[name] / counts.total() for name in names)
        hover = tuple(f"{name}: {counts[name]} of {counts.total()}" for name in names)
        series.append(Series(label, "bars", x, tuple(names), role, hover=hover))
    return Chart(
        name="origins",
        title="Share of the evaluations and share of the front, by origin",
        x=Axis("Share (%)"),
        y=Axis("Proposed by", categories=tuple(names)),
        series=tuple(series),
        note="Seeds open the search; the sampler goes on from there.",
        description=finding,
    )


def _table(names: Sequence[str], proposed: Counter[str], points: Counter[str]) -> Table:
    columns = (
        cells.plain("origin", "proposed by"),
        cells.plain("evaluations", "evaluations on rung 1"),
        cells.share("share_of_evaluations", "share"),
        cells.plain("points", "points of the front"),
        cells.share("share_of_front", "share"),
    )
    rows = tuple(
        {
            "origin": name,
            "evaluations": proposed[name],
            "share_of_evaluations": proposed[name] / proposed.total(),
            "points": points[name],
            "share_of_front": points[name] / points.total(),
        }
        for name in names
    )
    return Table("origins", "Proposals and points of the front", columns, rows)
