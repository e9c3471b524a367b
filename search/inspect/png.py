"""A drawing as PNG, by matplotlib, which needs no browser."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Circle, Rectangle

from search.inspect.drawing import LETTER, Box, Dot, Line

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from search.inspect.drawing import Drawing, Shape, Text

#: Pixels of the drawing per inch of the figure, and pixels of the file per pixel of the drawing.
_PER_INCH, _SCALE = 100.0, 2.0
#: The longer side of the file is at most so many pixels long.
_LONGEST = 20_000


def png(drawing: Drawing) -> bytes:
    """The drawing as the bytes of a PNG file, two pixels for one where it is not huge."""
    dpi = min(_SCALE, _LONGEST / max(drawing.width, drawing.height)) * _PER_INCH
    figure = Figure(figsize=(drawing.width / _PER_INCH, drawing.height / _PER_INCH), dpi=dpi)
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, drawing.width)
    axes.set_ylim(drawing.height, 0)
    shapes = [shape for mark in drawing.marks for shape in mark.shapes]
    for order, shape in enumerate(shapes):
        _add(axes, shape, order)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi)
    return buffer.getvalue()


def _add(axes: Axes, shape: Shape, order: int) -> None:
    if isinstance(shape, Box):
        box = Rectangle((shape.x, shape.y), shape.width, shape.height, linewidth=0, zorder=order)
        box.set(facecolor=shape.color, alpha=shape.opacity)
        axes.add_patch(box)
    elif isinstance(shape, Line):
        ends, thickness = ((shape.x1, shape.x2), (shape.y1, shape.y2)), _points(shape.thickness)
        axes.add_line(Line2D(*ends, color=shape.color, linewidth=thickness, zorder=order))
    elif isinstance(shape, Dot):
        dot = Circle((shape.x, shape.y), shape.radius, facecolor=shape.color, zorder=order)
        dot.set(edgecolor=shape.stroke or "none", linewidth=_points(1.4) if shape.stroke else 0)
        axes.add_patch(dot)
    else:
        _add_text(axes, shape, order)


def _add_text(axes: Axes, text: Text, order: int) -> None:
    x = text.x
    for letters, color in text.runs:
        axes.text(
            x,
            text.y,
            letters,
            color=color,
            fontsize=_points(text.size),
            fontfamily="monospace" if text.mono else "sans-serif",
            fontweight="bold" if text.bold else "normal",
            va="baseline",
            zorder=order,
            parse_math=False,
        )
        x += len(letters) * LETTER * text.size


def _points(pixels: float) -> float:
    return pixels * 72 / _PER_INCH
