"""What a run prints at its start and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report.words import METHOD_NAMES, Metric, correlation_words, count, duration, share, verdict
from search.terminal_table import terminal_table

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import Console

    from search.forecast import Forecast
    from search.limits import Window
    from search.result import Point, Result
    from spaces.space import Space


def found_lines(name: str, space: Space, window: Window) -> list[str]:
    """What was found in the model."""
    dense, least = space.macs(space.dense), space.macs(space.smallest)
    searched = f"{share(window.low, dense)} to {share(window.high, dense)}"
    params = count(space.params(space.dense))
    return [
        f"{name}: {count(dense)} MACs, {params} parameters, {len(space.groups)} groups of channels",
        f"MACs can go down to {share(least, dense)}; searching {searched}",
        *(f"warning: {warning}" for warning in space.warnings),
    ]


def plan_lines(forecast: Forecast) -> list[str]:
    """How long it will take, rung by rung."""
    lines = []
    if forecast.search_seconds is not None:
        lines.append(f"rungs 1 and 2: {duration(forecast.search_seconds)} as asked for")
    for rung, seconds in forecast.parts().items():
        expected = forecast.counts()[rung][1]
        if not expected:
            continue
        what = f"rung {rung}: {expected} evaluations"
        if rung == 3:
            what = f"rung 3: up to {expected} final trainings, controls at equal MACs included"
        lines.append(what + (", time not known yet" if seconds is None else f", about {duration(seconds)}"))
    total = forecast.seconds_left()
    return [*lines, f"in all about {duration(total)}"] if total is not None else lines


def print_result(console: Console, result: Result, folder: Path) -> None:
    """The front as a table, whether the search paid, and where to read on."""
    metric = Metric(result.metric)
    methods = [name for name in METHOD_NAMES if any(name in point.test for point in result.points)]
    headings = (
        "id",
        "MACs",
        "params",
        *(["latency"] if result.dense.latency_ms is not None else []),
        f"holdout {metric.title}",
        *(f"{METHOD_NAMES[m]}, test" for m in methods),
    )
    dense = result.dense
    latency = _latency(dense.latency_ms, result)
    rows = [
        *(_row(point, result, metric, methods) for point in result.points),
        ["dense", "100%", "100%", *latency, metric.value(dense.score), metric.value(dense.test)],
    ]
    lines = [f"* method whose weights are saved, chosen on holdout. {_counts(result)}"]
    lines += [verdict(comparison, metric) for comparison in result.comparisons]
    lines += [correlation_words(found) for found in result.correlations[:1]]
    lines += [f"warning: {warning}" for warning in result.warnings]
    console.print(terminal_table(f"Front of {result.task}", headings, rows))
    for line in lines:  # on a terminal broken between words; else one line each, for grep
        console.print(line, highlight=False, markup=False, soft_wrap=not console.is_terminal)
    for line in (f"report: {folder / 'report.html'}", f"networks: {folder / 'architectures'}"):
        console.print(line, highlight=False, markup=False, soft_wrap=True)  # paths stay whole


def _row(point: Point, result: Result, metric: Metric, methods: list[str]) -> list[str]:
    tests = [
        (metric.summary(point.test[m]) if m in point.test else "-") + ("*" if m == point.weights else " ")
        for m in methods
    ]
    sizes = [share(point.macs, result.dense.macs), share(point.params, result.dense.params)]
    return [point.id, *sizes, *_latency(point.latency_ms, result), metric.value(point.score), *tests]


def _latency(latency_ms: float | None, result: Result) -> list[str]:
    """A cell, where latency was an objective."""
    if result.dense.latency_ms is None:
        return []
    return ["-" if latency_ms is None else f"{latency_ms / result.dense.latency_ms:.0%}"]


def _counts(result: Result) -> str:
    counted = ", ".join(
        f"{number} on {name.replace('-', ' ')}" for name, number in result.counts.items() if number
    )
    seconds = sum(result.seconds.values())
    return f"Evaluations: {counted}; {duration(seconds)}."
