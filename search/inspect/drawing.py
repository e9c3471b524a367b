"""What a picture is made of: four kinds of marks at fixed places, the same for SVG and PNG."""

from __future__ import annotations

from dataclasses import dataclass

#: Width of one letter of the monospaced font, relative to its size.
LETTER = 0.602

INK, FAINT, RULE, PAPER, BAND = "#1c2321", "#66716d", "#dfe5e1", "#ffffff", "#f4f6f4"


@dataclass(frozen=True, slots=True)
class Box:
    """A filled rectangle."""

    x: float
    y: float
    width: float
    height: float
    color: str
    opacity: float = 1.0


@dataclass(frozen=True, slots=True)
class Line:
    """A straight stroke."""

    x1: float
    y1: float
    x2: float
    y2: float
    color: str
    thickness: float = 1.0


@dataclass(frozen=True, slots=True)
class Dot:
    """A disc, or a ring where it has a stroke."""

    x: float
    y: float
    radius: float
    color: str
    stroke: str | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Letters on a baseline; the runs follow each other, each in its colour.

    Attributes:
        x: Left end.
        y: Baseline.
        runs: ``(letters, colour)``; more than one in the monospaced font only.
        size: Of the font.
        mono: Whether all letters are equally wide.
        bold: Whether the letters are heavy.
    """

    x: float
    y: float
    runs: tuple[tuple[str, str], ...]
    size: float
    mono: bool = False
    bold: bool = False


Shape = Box | Line | Dot | Text


@dataclass(frozen=True, slots=True)
class Mark:
    """Shapes that belong together.

    Attributes:
        shapes: In the order in which they are painted.
        tip: What a pointer over them is told.
        groups: Numbers of the groups that they stand for.
    """

    shapes: tuple[Shape, ...]
    tip: str = ""
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Drawing:
    """A picture: its size in pixels, what it shows in words, and its marks from back to front."""

    width: float
    height: float
    title: str
    marks: tuple[Mark, ...]
