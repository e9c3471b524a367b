"""``front.png``: the front, everything that was evaluated, the dense network and the controls."""

from __future__ import annotations

import io
import textwrap
import warnings
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from search.report import marks
from search.report.marks import AXIS_END
from search.report.names import label as readable
from search.report.words import Metric, count, headline, nearest_to_half, saved_summary, share

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from matplotlib.axes import Axes

    from search.report.data import Run
    from search.result import Point

DPI = 160
SIZE_INCHES = (8.0, 5.2)

_FRONT, _INK, _FAINT = "#17724a", "#1c2321", "#5f6a66"
_COLORS = {"dominated": _FAINT, "uniform": "#c2571a", "random": "#6a55b5"}
_RUNG_COLORS = {1: "#c9d0cd", 2: "#8f9b97"}


def front_png(run: Run) -> bytes:
    """The picture, 1280 by 832 pixels, with the finding as its title; scores are those on holdout."""
    run = replace(run, result=replace(run.result, metric=readable(run.result.metric)))
    figure = Figure(figsize=SIZE_INCHES, dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.195, 0.88, 0.585))
    _draw_evaluations(axes, run)
    _draw_others(axes, run)
    _draw_front(axes, run)
    x, y = [100.0], [Metric(run.result.metric).plain(run.result.dense.score)]
    axes.scatter(x, y, s=170, marker="*", color=_INK, linewidths=0, label="dense", zorder=5)
    _frame(axes, run)
    _explain(figure, axes, run)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # A letter that the font lacks, such as an emoji, is drawn as a box.
        warnings.filterwarnings("ignore", message="Glyph")
        figure.savefig(buffer, format="png", dpi=DPI)
    return buffer.getvalue()


def _draw_evaluations(axes: Axes, run: Run) -> None:
    for rung, dots in marks.background(run).items():
        color, label = _RUNG_COLORS.get(rung, _FAINT), f"rung {rung}"
        axes.scatter(
            *marks.position(run, dots), s=15, color=color, linewidths=0, label=label, zorder=1 + rung / 10
        )


def _draw_others(axes: Axes, run: Run) -> None:
    for kind, mark in marks.OTHERS.items():
        points = marks.points_of(run, kind)
        if points:
            _draw_deviations(axes, run, points, _COLORS[kind])
            axes.scatter(
                *marks.position(run, points),
                s=mark.size,
                marker=mark.matplotlib,
                facecolors="none",
                edgecolors=_COLORS[kind],
                linewidths=1.4,
                label=mark.label,
                zorder=4.5,
            )


def _draw_front(axes: Axes, run: Run) -> None:
    """Steps: what the MACs buy. Controls stand under the risers, so only the treads are strong."""
    points = run.result.points
    if not points:
        return
    x, y = marks.position(run, points)
    steps = ([*x, AXIS_END], [*y, y[-1]])
    axes.fill_between(*steps, -1e9, step="post", color=_FRONT, alpha=0.06, linewidth=0, zorder=0.5)
    axes.plot(*steps, drawstyle="steps-post", color=_FRONT, linewidth=0.8, alpha=0.4, zorder=1.5)
    axes.hlines(y[:-1], x[:-1], x[1:], color=_FRONT, linewidth=2, zorder=3.5)
    _draw_deviations(axes, run, points, _FRONT)
    axes.scatter(x, y, s=46, color=_FRONT, edgecolors="white", linewidths=1, label="front", zorder=4)
    label = partial(axes.annotate, textcoords="offset points", ha="right", color=_FRONT, zorder=6)
    for i in _labelled(x, y, marks.score_range(run)):
        text = Metric(run.result.metric).value(points[i].score)
        label(text, (x[i], y[i]), xytext=(-5, 7), fontsize=9, weight="bold")


def _draw_deviations(axes: Axes, run: Run, points: Iterable[Point], color: str) -> None:
    for point in points:
        spread = marks.deviation(run, point)
        if spread:
            (x,), (y,) = marks.position(run, [point])
            axes.plot([x, x], [y - spread, y + spread], color=color, linewidth=1, alpha=0.7, zorder=2.5)


def _labelled(x: Sequence[float], y: Sequence[float], ends: tuple[float, float]) -> list[int]:
    """Points with room for a label at their upper left, from the highest score down."""
    near_x, near_y = 0.1 * AXIS_END, 0.07 * (ends[1] - ends[0])
    chosen: list[int] = []
    for i in reversed(range(len(x))):
        if not any(abs(x[i] - x[j]) < near_x and abs(y[i] - y[j]) < near_y for j in chosen):
            chosen.append(i)
    return chosen


def _frame(axes: Axes, run: Run) -> None:
    """Axes with units, light grid, MACs in absolute numbers along the top."""
    axes.set_xlim(0, AXIS_END)
    axes.set_ylim(*marks.score_range(run))
    axes.set_xticks(range(0, 101, 10))
    axes.set_xlabel(marks.MACS_AXIS, color=_INK, fontsize=10)
    axes.set_ylabel(f"Holdout {Metric(run.result.metric).axis}", color=_INK, fontsize=10, parse_math=False)
    axes.tick_params(colors=_FAINT, labelsize=9, length=3)
    axes.grid(color="#e9ecea", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("#b8c0bd")
    above = partial(
        axes.text, y=1.015, transform=axes.get_xaxis_transform(), va="bottom", color=_FAINT, fontsize=8.5
    )
    above(x=0, s="MACs")
    for percent in (25, 50, 75, 100):
        above(x=percent, s=count(run.result.dense.macs * percent / 100), ha="center")


def _explain(figure: Figure, axes: Axes, run: Run) -> None:
    """Title, what is shown, legend, footnote."""
    write = partial(figure.text, 0.03, va="top", parse_math=False)
    title = headline(run.result, "holdout")
    write(0.955, title, fontsize=14 if len(title) < 60 else 11, weight="bold", color=_INK)
    write(0.888, textwrap.fill(_subtitle(run), 108), fontsize=9, color=_FAINT)
    write(0.045, _footnote(run), fontsize=7.5, color=_FAINT)
    handles, labels = axes.get_legend_handles_labels()
    order = sorted(range(len(labels)), key=lambda i: (labels[i] != "front", labels[i] != "dense", i))
    figure.legend(
        [handles[i] for i in order],
        [labels[i] for i in order],
        loc="lower left",
        bbox_to_anchor=(0.02, 0.045),
        ncols=len(order),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.2,
        columnspacing=1.1,
        labelcolor=_INK,
    )


def _subtitle(run: Run) -> str:
    """Which task and split, and what the test split says about the network of the title."""
    result, metric = run.result, Metric(run.result.metric)
    text = f"{readable(result.task)}, on holdout, where the front was chosen."
    point = nearest_to_half(result)
    summary = saved_summary(point, "test") if point else None
    if point and summary:
        text += (
            f" On test: {metric.value(result.dense.test)} dense, {metric.summary(summary)} "
            f"at {share(point.macs, result.dense.macs)} of the MACs."
        )
    return text


def _footnote(run: Run) -> str:
    """What the marks leave out."""
    sentences = ["One multiply-add counts one.", "Rung 1: untrained, 2: brief training."]
    if any(marks.deviation(run, final.point) for final in run.finals):
        sentences.append("Bars: one standard deviation over seeds.")
    low, _ = marks.score_range(run)
    hidden = sum(y < low for dots in marks.background(run).values() for y in marks.position(run, dots)[1])
    if hidden:
        sentences.append(
            f"Below the axis: {hidden} evaluations." if hidden > 1 else "Below the axis: 1 evaluation."
        )
    return " ".join(sentences)
