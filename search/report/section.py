"""What a report is made of: sections with words, charts and tables, without a word on how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Number = float | int | None

#: What a series stands for; page and pictures give each role its colour, in light and dark.
Role = Literal[
    "front",
    "dominated",
    "uniform",
    "random",
    "dense",
    "rung-1",
    "rung-2",
    "rung-3",
    "first",
    "second",
    "third",
]


@dataclass(frozen=True, slots=True)
class Axis:
    """One axis of a chart.

    Attributes:
        title: With its unit.
        log: Whether it is logarithmic.
        categories: Names instead of numbers, in their order; empty for numbers.
    """

    title: str
    log: bool = False
    categories: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Series:
    """Marks of one kind.

    Attributes:
        label: In the legend.
        kind: How they are drawn; ``bars`` are horizontal, one for each category of the y axis.
        x: Numbers.
        y: Numbers, or names of categories; as many as ``x``.
        role: Whose colour they have.
        error: Half lengths of error bars, along x where the y axis has categories, else along y; as many as
            ``x``, or none. ``None`` for a mark without a bar.
        hover: A line or more for each mark; as many as ``x``, or none.
    """

    label: str
    kind: Literal["points", "line", "steps", "bars"]
    x: tuple[Number, ...]
    y: tuple[Number | str, ...]
    role: Role
    error: tuple[Number, ...] = ()
    hover: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure of the report; also written as PNG and SVG.

    Attributes:
        name: File name without ending, e.g. ``hypervolume-over-evaluations``.
        title: What it shows.
        x: Its horizontal axis.
        y: Its vertical axis.
        series: From back to front.
        note: What a reader must know; may be empty.
        description: For those who can not see it: the finding in a sentence.
    """

    name: str
    title: str
    x: Axis
    y: Axis
    series: tuple[Series, ...]
    note: str
    description: str


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table.

    Attributes:
        key: Its name in the CSV file.
        title: Its name on the page.
        show: Writes a cell's value for people.
    """

    key: str
    title: str
    show: Callable[[object], str] = str


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report; also written as CSV, with raw values.

    Attributes:
        name: File name without ending, e.g. ``failures``.
        title: What it lists.
        columns: From left to right.
        rows: Cells by column key; a cell that is missing or ``None`` is empty.
        note: What a reader must know; may be empty.
    """

    name: str
    title: str
    columns: tuple[Column, ...]
    rows: tuple[Mapping[str, object], ...]
    note: str = ""


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and what stands under it.

    Attributes:
        id: Of the heading, for links.
        title: A question that it answers, or its subject.
        words: Findings, a paragraph each, the answer first.
        charts: Figures.
        tables: Tables; folded on the page where long.
    """

    id: str
    title: str
    words: tuple[str, ...] = ()
    charts: tuple[Chart, ...] = ()
    tables: tuple[Table, ...] = ()
