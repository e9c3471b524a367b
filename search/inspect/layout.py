"""The picture of a network: a row for each layer, and beside the rows a rail for each group.

A rail runs like a metro line past the layers that compute a group's units (discs) and those that read them
(rings), so what a residual sum ties together is one line. A bar is as long as the square root of the number
of outputs, in the colour of their group; its pale part may go.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING

from search.inspect.drawing import (
    BAND,
    FAINT,
    INK,
    LETTER,
    PAPER,
    RULE,
    Box,
    Dot,
    Drawing,
    Line,
    Mark,
    Shape,
    Text,
)
from search.inspect.geometry import (
    BAR,
    LEGEND_PITCH,
    MACS_BAR,
    MARGIN,
    MOST_LETTERS,
    REMARK,
    Geometry,
    font_size,
)
from search.inspect.names import one_line
from search.inspect.rails import STRONG, lay_rails
from search.inspect.words import group_tip, layer_tip, part, summary_lines, units

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from search.inspect.inspection import GroupFacts, Inspection
    from search.inspect.layers import Layer
    from search.inspect.rails import Rail

_STAYS, _MACS = "#b9c2be", "#8f9b97"
#: How strong the part of a bar is that may go.
_MAY_GO = 0.4
_LEGEND_ENTRIES, _LEGEND_LETTERS = len(STRONG), 30


def draw(found: Inspection) -> Drawing:
    """The picture of an inspection."""
    rails = lay_rails([group.name for group in found.groups], found.layers)
    lanes = 1 + max((rail.lane for rail in rails), default=-1)
    listed, hidden = _listed(found.groups)
    at = Geometry.of(
        found.layers,
        lanes=lanes,
        legend_rows=-(-(len(listed) + bool(hidden)) // 2),
        has_remarks=any(_remark(layer, found) for layer in found.layers),
    )
    marks = [
        Mark((Box(0, 0, at.width, at.height, PAPER),)),
        _head(found, at),
        _keys(at),
        *_legend(found, rails, at, listed, hidden),
        *_rows(found, rails, at),
        *(_rail(rail, found.groups[rail.group], at) for rail in sorted(rails, key=lambda rail: -rail.lane)),
        _foot(found, at),
    ]
    return Drawing(at.width, at.height, f"The space of {one_line(found.model)}", tuple(marks))


def _listed(groups: Sequence[GroupFacts]) -> tuple[list[int], int]:
    """Groups of the legend: those that couple layers, the costliest; and how many more there are."""
    coupled = [i for i, group in enumerate(groups) if len(group.layers) > 1]
    first = sorted(coupled, key=lambda i: -groups[i].macs_share)[:_LEGEND_ENTRIES]
    return sorted(first), len(coupled) - len(first)


def _head(found: Inspection, at: Geometry) -> Mark:
    shapes: list[Shape] = [Text(MARGIN, 42, ((_elided(one_line(found.model), 80), INK),), 18, bold=True)]
    for i, line in enumerate(summary_lines(found)):
        shapes.append(Text(MARGIN, 66 + 18 * i, ((one_line(line, 140), FAINT),), 12.5))
    headings = [(at.names, "layer"), (at.bars, "outputs"), (at.macs, "share of the MACs")]
    if any(_remark(layer, found) for layer in found.layers):
        headings.append((at.remarks, "remarks"))
    shapes += [Text(x, at.top - 10, ((text, FAINT),), 11) for x, text in headings]
    return Mark((*shapes, Line(MARGIN, at.top - 2, at.width - MARGIN, at.top - 2, RULE)))


def _keys(at: Geometry) -> Mark:
    """What the marks mean."""
    y = at.legend + 12
    shapes: list[Shape] = []
    x = MARGIN
    for kind, text in (
        ("made", "computes the units of a group"),
        ("read", "reads them"),
        ("bar", "outputs: solid at the smallest width, pale may go"),
        ("stays", "stays whole"),
    ):
        if kind in ("made", "read"):
            shapes.append(Line(x + 7, y - 8, x + 7, y + 8, STRONG[0], 2))
            shapes.append(Dot(x + 7, y, 4, *((STRONG[0],) if kind == "made" else (PAPER, STRONG[0]))))
        elif kind == "bar":
            shapes += [Box(x, y - 5, 6, 10, STRONG[0]), Box(x + 6, y - 5, 10, 10, STRONG[0], _MAY_GO)]
        else:
            shapes.append(Box(x, y - 5, 16, 10, _STAYS))
        shapes.append(Text(x + 24, y + 4, ((text, FAINT),), 11))
        x += 24 + 5.7 * len(text) + 22
    return Mark(tuple(shapes))


def _legend(
    found: Inspection, rails: Sequence[Rail], at: Geometry, listed: Sequence[int], hidden: int
) -> Iterator[Mark]:
    """Groups that couple layers; a group of one layer has the layer's name beside it."""
    column = (at.width - 2 * MARGIN) / 2
    for i, number in enumerate(listed):
        group = found.groups[number]
        x, y = MARGIN + (i % 2) * column, at.legend + 42 + LEGEND_PITCH * (i // 2)
        name = _elided(group.name, _LEGEND_LETTERS)
        said = f"{units(group)}, {len(group.layers)} layers, {part(group.macs_share, 1)} of MACs"
        shapes = (
            Box(x, y - 9, 16, 10, rails[number].color),
            Text(x + 24, y, ((name, INK),), 11, mono=True),
            Text(x + 34 + LETTER * 11 * len(name), y, ((said, FAINT),), 11),
        )
        yield Mark(shapes, group_tip(group), (number,))
    if hidden:
        x, y = MARGIN + (len(listed) % 2) * column, at.legend + 42 + LEGEND_PITCH * (len(listed) // 2)
        text = f"and {hidden} more that couple layers; colours come again"
        yield Mark((Text(x + 24, y, ((text, FAINT),), 11),))


def _rows(found: Inspection, rails: Sequence[Rail], at: Geometry) -> Iterator[Mark]:
    number = {group.name: i for i, group in enumerate(found.groups)}
    widest = max((layer.width for layer in found.layers), default=1)
    most = max((layer.macs for layer in found.layers), default=0) or 1
    size = font_size(at.pitch)
    before = ""
    for row, layer in enumerate(found.layers):
        y = at.middle(row)
        write = partial(Text, y=y + 0.36 * size, size=size)
        shapes: list[Shape] = [
            Box(MARGIN, y - at.pitch / 2, at.width - 2 * MARGIN, at.pitch, BAND if row % 2 else PAPER)
        ]
        shapes.append(write(x=at.names, runs=_name_runs(layer.name, before), mono=True))
        shapes.append(write(x=at.kinds, runs=((layer.kind, FAINT),)))
        end = BAR * math.sqrt(layer.width / widest)
        shapes += _bar(layer, found, rails, number, at, y, end)
        shapes.append(write(x=at.bars + end + 6, runs=((str(layer.width), FAINT),)))
        if layer.macs:
            length = MACS_BAR * layer.macs / most
            shapes.append(Box(at.macs, y - 0.2 * at.pitch, max(length, 0.5), 0.4 * at.pitch, _MACS))
            shapes.append(write(x=at.macs + length + 6, runs=((part(layer.macs, found.dense_macs), FAINT),)))
        if remark := _remark(layer, found):
            shapes.append(write(x=at.remarks, runs=((one_line(remark, int(REMARK / (0.53 * size))), FAINT),)))
        groups = {number[name] for name, _ in layer.parts} | {number[name] for name in layer.reads}
        yield Mark(tuple(shapes), layer_tip(layer, found), tuple(sorted(groups)))
        before = layer.name


def _remark(layer: Layer, found: Inspection) -> str:
    """Units that are more than a channel, and why outputs stay."""
    parts = {name for name, _ in layer.parts}
    said = [units(group) for group in found.groups if group.name in parts and group.unit_channels > 1]
    if layer.stays and layer.reason:
        said.append(f"stays: {layer.reason}")
    return ", ".join(said)


def _bar(
    layer: Layer,
    found: Inspection,
    rails: Sequence[Rail],
    number: dict[str, int],
    at: Geometry,
    y: float,
    end: float,
) -> Iterator[Box]:
    """One piece per group, solid as far as the smallest width, and a grey piece for what stays."""
    x, top, height = at.bars, y - 0.32 * at.pitch, 0.64 * at.pitch
    for name, outputs in layer.parts:
        group, color = found.groups[number[name]], rails[number[name]].color
        length = end * outputs / layer.width
        solid = length * group.smallest / group.width
        yield Box(x, top, solid, height, color)
        yield Box(x + solid, top, length - solid, height, color, _MAY_GO)
        x += length
    if layer.stays:
        yield Box(x, top, end * layer.stays / layer.width, height, _STAYS)


def _rail(rail: Rail, group: GroupFacts, at: Geometry) -> Mark:
    x, radius = at.rail(rail.lane), min(0.19 * at.pitch, 0.36 * at.lane)
    stops = rail.stops
    shapes: list[Shape] = []
    if stops:
        ends = at.middle(stops[0][0]), at.middle(stops[-1][0])
        shapes.append(Line(x, ends[0], x, ends[1], rail.color, min(2.4, 0.4 * at.lane)))
    for height, made in stops:
        y = at.middle(height)
        shapes.append(Dot(x, y, radius, rail.color) if made else Dot(x, y, 0.85 * radius, PAPER, rail.color))
    return Mark(tuple(shapes), group_tip(group), (rail.group,))


def _foot(found: Inspection, at: Geometry) -> Mark:
    said = "Layers in the order of execution, from the top down. Length of a bar: square root of the outputs."
    if found.other_macs:
        said += f" Products of activations have {part(found.other_macs, found.dense_macs)} of the MACs."
    return Mark((Text(MARGIN, at.height - 16, ((said, FAINT),), 11),))


def _name_runs(name: str, before: str) -> tuple[tuple[str, str], ...]:
    """What a name shares with the one above it steps back, so that the eye finds where blocks begin."""
    shown = _elided(name, MOST_LETTERS)
    if shown != name:
        return ((shown, INK),)
    shared = 0
    for mine, theirs in zip(name.split("."), before.split("."), strict=False):
        if mine != theirs:
            break
        shared += len(mine) + 1
    shared = min(shared, name.rfind(".") + 1)
    return ((name[:shared], FAINT), (name[shared:], INK)) if shared else ((name, INK),)


def _elided(name: str, most: int) -> str:
    """Without its middle where it is too long: both ends tell names apart."""
    if len(name) <= most:
        return name
    head = (most - 1) // 3
    return f"{name[:head]}\N{HORIZONTAL ELLIPSIS}{name[len(name) - (most - 1 - head) :]}"
