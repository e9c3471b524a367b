"""Sections' charts and tables as plain values for the page's scripts; what is no finite number is nothing."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from search.report.names import label, plain

if TYPE_CHECKING:
    from search.report.section import Axis, Chart, Series, Table

Json = dict[str, Any]

#: Rows of a table that the page shows; the CSV file has all.
SHOWN_ROWS = 100

#: Characters of a cell; the file in ``tables/`` has all.
_LONGEST = 1000


def chart_json(chart: Chart) -> Json:
    """A chart: its axes and its series; categories by their number, so that long names are written once."""
    return {
        "name": plain(chart.name),
        "title": plain(chart.title),
        "x": _axis(chart.x),
        "y": _axis(chart.y),
        "series": [_series(series, chart) for series in chart.series],
    }


def table_json(table: Table) -> Json:
    """A table's raw values, for its CSV file; long texts, such as tracebacks, by their ends."""
    keys = [column.key for column in table.columns]
    return {
        "name": plain(table.name),
        "columns": keys,
        "rows": [[_cell(row.get(key)) for key in keys] for row in table.rows],
    }


def _axis(axis: Axis) -> Json:
    return {
        "title": label(axis.title, 80),
        "log": axis.log,
        "categories": [label(name) for name in axis.categories],
    }


def _series(series: Series, chart: Chart) -> Json:
    return {
        "label": label(series.label),
        "kind": series.kind,
        "role": series.role,
        "x": _numbers(series.x, chart.x.categories),
        "y": _numbers(series.y, chart.y.categories),
        "error": _numbers(series.error, ()),
        "hover": ["\n".join(label(line, 80) for line in text.splitlines()[:12]) for text in series.hover],
    }


def _numbers(values: tuple[Any, ...], categories: tuple[str, ...]) -> list[float | int | None]:
    places = {name: i for i, name in enumerate(categories)}
    return [places.get(value) if categories else _number(value) for value in values]


def _number(value: object) -> float | int | None:
    return value if isinstance(value, int | float) and math.isfinite(value) else None


def _cell(value: object) -> str | float | int | bool | None:
    if isinstance(value, str) and len(value) > _LONGEST:
        return f"... {value[-_LONGEST:]}"
    if value is None or isinstance(value, bool | str):
        return value
    return _number(value) if isinstance(value, int | float) else str(value)
