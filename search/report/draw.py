"""The charts of a report as PNG and SVG, light, for papers and slides."""

from __future__ import annotations

import io
import textwrap
import warnings
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import matplotlib as mpl
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search.report.names import label, plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.axes import Axes

    from search.report.section import Chart, Role, Series

DPI = 160

_WIDTH_INCHES, _HEIGHT_INCHES = 8.0, 4.8
_HEIGHT_OF_CATEGORY, _HEIGHT_OF_LINE = 0.3, 0.17
_CHARACTERS_IN_LINE = 132

#: So many marks are drawn small.
_MANY = 500

_INK, _FAINT, _GRID = "#1c2321", "#5f6a66", "#e9ecea"

_SETTINGS: dict[Any, Any] = {"svg.fonttype": "none", "svg.hashsalt": "espalier", "font.size": 9}

Format = Literal["png", "svg"]


class _Look(NamedTuple):
    """Colour and shape of a role, so that neither alone tells marks apart."""

    color: str
    marker: str


_LOOKS: dict[Role, _Look] = {
    "front": _Look("#17724a", "o"),
    "dominated": _Look(_FAINT, "o"),
    "uniform": _Look("#c2571a", "s"),
    "random": _Look("#6a55b5", "D"),
    "dense": _Look(_INK, "*"),
    "rung-1": _Look("#a9b3af", "o"),
    "rung-2": _Look("#7d8985", "o"),
    "rung-3": _Look(_FAINT, "o"),
    "first": _Look("#17724a", "o"),
    "second": _Look("#1f6fb2", "^"),
    "third": _Look("#a8326e", "v"),
}


def draw(chart: Chart, formats: Sequence[Format] = ("png", "svg")) -> dict[Format, bytes]:
    """The pictures of a chart by format; equal charts give equal bytes."""
    found: dict[Format, bytes] = {}
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # fonts lack most emoji, which is no reason to speak
        figure = _figure(chart)
        for name in formats:
            found[name] = _saved(figure, name)
            figure.set_layout_engine("none")  # once is enough, and half of the work
    return found


def _saved(figure: Figure, name: Format) -> bytes:
    buffer = io.BytesIO()
    # A date would make every picture another file.
    figure.savefig(buffer, format=name, dpi=DPI, metadata={"Date": None} if name == "svg" else None)
    return buffer.getvalue()


def _figure(chart: Chart) -> Figure:
    note = textwrap.wrap(plain(chart.note), _CHARACTERS_IN_LINE)
    categories = chart.y.categories
    height = 1.9 + _HEIGHT_OF_CATEGORY * len(categories) if categories else _HEIGHT_INCHES
    foot = 0.1 + _HEIGHT_OF_LINE * len(note)
    height += foot
    figure = Figure(figsize=(_WIDTH_INCHES, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    engine = figure.get_layout_engine()
    assert engine is not None
    engine.set(rect=(0, foot / height, 1, 1 - (foot + 0.05) / height))  # type: ignore[call-arg]
    axes = figure.add_subplot()
    _frame(axes, chart)
    bars = [series for series in chart.series if series.kind == "bars"]
    for series in chart.series:
        if series.kind == "bars":
            _draw_bars(axes, series, categories, bars.index(series), len(bars))
        else:
            _draw(axes, series, categories)
    _explain(axes, chart)
    figure.text(0.012, foot / height, "\n".join(note), va="top", fontsize=7.5, color=_FAINT, parse_math=False)
    return figure


def _frame(axes: Axes, chart: Chart) -> None:
    axes.set_xlabel(label(chart.x.title, 80), color=_INK, parse_math=False)
    axes.set_ylabel(label(chart.y.title, 80), color=_INK, parse_math=False)
    axes.tick_params(colors=_FAINT, length=3)
    axes.grid(color=_GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c0bd")
    for axis, scale in ((chart.x, axes.set_xscale), (chart.y, axes.set_yscale)):
        if axis.log:
            scale("log")
    if chart.y.categories:
        names = [label(name) for name in chart.y.categories]
        axes.set_yticks(range(len(names)), labels=names, parse_math=False)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_ylabel("")


def _draw(axes: Axes, series: Series, categories: Sequence[str]) -> None:
    """Points, a line or steps, with error bars along the scores: along x where y has categories."""
    look = _LOOKS[series.role]
    x, y = [_number(value) for value in series.x], _places(series.y, categories)
    if any(series.error):
        errors = [abs(_number(error)) for error in series.error]
        along_x, along_y = (errors, None) if categories else (None, errors)
        axes.errorbar(
            x, y, along_y, along_x, fmt="none", ecolor=look.color, elinewidth=1.2, alpha=0.6, capsize=2
        )
    name = label(series.label)
    if series.kind == "points":
        size = 9 if len(x) > _MANY else 26
        axes.scatter(x, y, s=size, color=look.color, marker=look.marker, linewidths=0, label=name)
        return
    style = "steps-post" if series.kind == "steps" else "default"
    dashed = "--" if series.role == "dense" else "-"
    axes.plot(x, y, drawstyle=style, color=look.color, linestyle=dashed, linewidth=1.4, label=name)


def _draw_bars(axes: Axes, series: Series, categories: Sequence[str], index: int, count: int) -> None:
    """One of the bars beside each other in every category."""
    height = 0.8 / count
    places = [place + (index - (count - 1) / 2) * height for place in _places(series.y, categories)]
    lengths = [value or 0.0 for value in series.x]
    axes.barh(places, lengths, height=height, color=_LOOKS[series.role].color, label=label(series.label))


def _places(values: Sequence[object], categories: Sequence[str]) -> list[float]:
    """Numbers as they are, names as the place of their category; what has none is not drawn."""
    place = {name: float(i) for i, name in enumerate(categories)}
    return [place[v] if isinstance(v, str) else _number(v) for v in values]


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else float("nan")


def _explain(axes: Axes, chart: Chart) -> None:
    title = "\n".join(textwrap.wrap(label(chart.title, 200), 78))
    axes.set_title(title, loc="left", fontsize=11, weight="bold", color=_INK, parse_math=False)
    if len(chart.series) > 1:
        legend = axes.legend(frameon=False, fontsize=8, labelcolor=_INK, loc="best")
        for text in legend.get_texts():
            text.set_parse_math(False)
