"""The interactive plot of ``report.html``: plotly's data and layout, without colours."""

from __future__ import annotations

import html
import json
from typing import TYPE_CHECKING, Any

import plotly.graph_objects as go

from search.report import marks
from search.report.marks import AXIS_END
from search.report.words import Metric, count, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.report.data import Dot, Run
    from search.result import Point


def plot_json(run: Run) -> dict[str, Any]:
    """The figure; the page gives each trace the colour that its ``meta`` names, for light and dark."""
    figure = go.Figure()
    for rung, dots in marks.background(run).items():
        _add_marks(figure, run, dots, f"rung-{rung}", marks.rung_label(rung), {"size": 6})
    _add_steps(figure, run)
    _add_finals(figure, run, run.result.points, "front", "front", {"size": 11})
    for kind, mark in marks.OTHERS.items():
        points = marks.points_of(run, kind)
        _add_marks(
            figure, run, points, kind, mark.label, {"symbol": mark.plotly, "size": 9, "line": {"width": 2}}
        )
    metric, dense = Metric(run.result.metric), run.result.dense
    figure.add_scatter(
        x=[100],
        y=[metric.plain(dense.score)],
        mode="markers",
        name="dense",
        meta="ink",
        marker={"symbol": "star", "size": 15},
        hovertext=[_hover("dense", dense.macs, dense.score, "", run)],
        hoverinfo="text",
    )
    figure.update_layout(**_layout(run))
    decoded: dict[str, Any] = json.loads(figure.to_json())
    return decoded


def _add_marks(
    figure: go.Figure,
    run: Run,
    items: Sequence[Point] | Sequence[Dot],
    color: str,
    label: str,
    marker: dict[str, Any],
) -> None:
    if not items:
        return
    x, y = marks.position(run, items)
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        name=label,
        meta=color,
        marker=marker,
        hovertext=[_hover(item.id, item.macs, item.score, item.origin, run) for item in items],
        hoverinfo="text",
    )


def _add_finals(
    figure: go.Figure, run: Run, points: Sequence[Point], color: str, label: str, marker: dict[str, Any]
) -> None:
    """Marks with a bar of one standard deviation."""
    _add_marks(figure, run, points, color, label, marker)
    if points:
        spreads = [marks.deviation(run, point) for point in points]
        figure.data[-1].error_y = {"array": spreads, "width": 0, "thickness": 1.2}


def _add_steps(figure: go.Figure, run: Run) -> None:
    """Steps: what the MACs buy. Controls stand under the risers, so only the treads are strong."""
    if not run.result.points:
        return
    x, y = marks.position(run, run.result.points)
    treads_x, treads_y = [], []
    for start, end, level in zip(x, x[1:], y, strict=False):
        treads_x += [start, end, None]
        treads_y += [level, level, None]
    lines = {"mode": "lines", "meta": "front", "showlegend": False, "hoverinfo": "skip"}
    figure.add_scatter(
        x=[*x, AXIS_END], y=[*y, y[-1]], line={"shape": "hv", "width": 1}, opacity=0.4, **lines
    )
    figure.add_scatter(x=treads_x, y=treads_y, line={"width": 2.5}, **lines)


def _hover(name: str, macs: int, score: float, origin: str, run: Run) -> str:
    """Plotly reads a small HTML here, so names are escaped once for it."""
    metric, dense = Metric(run.result.metric), run.result.dense
    lines = [
        f"<b>{html.escape(marks.shortened(name))}</b>",
        f"{html.escape(metric.value(score))} on holdout",
        f"{count(macs)} MACs, {share(macs, dense.macs)} of dense",
    ]
    return "<br>".join([*lines, html.escape(marks.shortened(origin))] if origin else lines)


def _layout(run: Run) -> dict[str, Any]:
    axis = html.escape(f"Holdout {Metric(run.result.metric).axis}")
    return {
        "template": "none",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "height": 480,
        "margin": {"l": 52, "r": 12, "t": 12, "b": 48},
        "xaxis": {"title": {"text": marks.MACS_AXIS, "standoff": 10}, "range": [0, AXIS_END], "dtick": 20},
        "yaxis": {"title": {"text": axis}, "range": list(marks.score_range(run))},
        "legend": {"orientation": "h", "y": -0.16, "yanchor": "top", "traceorder": "reversed"},
        "hovermode": "closest",
    }
