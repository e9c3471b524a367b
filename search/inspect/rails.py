"""Where each group's rail runs beside the rows of a picture, and which colour it has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.inspect.layers import Layer

#: Groups that couple several layers, and groups of a single one: the same hues, strong and pale.
STRONG = ("#17724a", "#c2571a", "#6a55b5", "#2a6fb0", "#b0285a", "#8a6d00", "#0a8383", "#7a4a2b")
PALE = ("#86bd9f", "#e3ab86", "#b2a6de", "#8fb6dd", "#dc98b4", "#cdb85e", "#7cc2c2", "#c0a08d")

#: A layer reads above the middle of its row and computes below it, so that chains share a lane.
_ABOVE, _BELOW = -0.25, 0.25


@dataclass(frozen=True, slots=True)
class Rail:
    """One group beside the rows.

    Attributes:
        group: Number of the group.
        makes: Rows that compute its units.
        reads: Rows that read them.
        lane: Column, counted from the rows outwards.
        color: Of the group.
    """

    group: int
    makes: tuple[int, ...]
    reads: tuple[int, ...]
    lane: int
    color: str

    @property
    def stops(self) -> list[tuple[float, bool]]:
        """``(height in rows, whether it is computed there)``, from the top down."""
        made = [(row + _BELOW, True) for row in self.makes]
        return sorted([*made, *((row + _ABOVE, False) for row in self.reads)])


def lay_rails(names: Sequence[str], layers: Sequence[Layer]) -> list[Rail]:
    """A rail for each group, in the groups' order; those whose spans overlap are in different lanes.

    Short ones are next to the rows, and no two that overlap have the same hue while hues last.

    Args:
        names: Of the groups.
        layers: The rows.
    """
    makes: dict[str, list[int]] = {name: [] for name in names}
    reads: dict[str, list[int]] = {name: [] for name in names}
    for row, layer in enumerate(layers):
        for name, _ in layer.parts:
            makes[name].append(row)
        for name in layer.reads:
            reads[name].append(row)
    spans = [_span(makes[name], reads[name]) for name in names]
    lanes = _assign(spans, sorted(range(len(names)), key=lambda i: spans[i][1] - spans[i][0]), None)
    # Strong colours first: their groups are few and long, and should differ from everything.
    first = sorted(range(len(names)), key=lambda i: (len(makes[names[i]]) < 2, spans[i][0]))
    hues = _assign(spans, first, len(STRONG))
    return [
        Rail(
            i,
            tuple(dict.fromkeys(makes[name])),
            tuple(dict.fromkeys(reads[name])),
            lanes[i],
            (STRONG if len(makes[name]) > 1 else PALE)[hues[i]],
        )
        for i, name in enumerate(names)
    ]


def _span(makes: list[int], reads: list[int]) -> tuple[float, float]:
    stops = [row + _BELOW for row in makes] + [row + _ABOVE for row in reads]
    return (min(stops), max(stops)) if stops else (0.0, 0.0)


def _assign(spans: Sequence[tuple[float, float]], order: Sequence[int], most: int | None) -> list[int]:
    """The first number that no overlapping span has; with ``most`` numbers, the one used least and last."""
    given = [-1] * len(spans)
    used: list[int] = [0] * (most or 0)
    for index in order:
        low, high = spans[index]
        taken = [given[i] for i, (a, b) in enumerate(spans) if given[i] >= 0 and a <= high and low <= b]
        if most is None:
            number = next(n for n in range(len(spans)) if n not in taken)
        else:
            number = min(range(most), key=lambda n: (taken.count(n), used[n], n))
            used[number] += 1
        given[index] = number
    return given
