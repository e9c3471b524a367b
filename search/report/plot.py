"""What the interactive front is drawn from: numbers and names, without a word on how; the page draws."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from search.report import marks
from search.report.cards import dense_bytes
from search.report.names import label
from search.report.peers import read_peers
from search.report.words import METHOD_NAMES, Metric, count, file_size, nearest_to_half, saved_summary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.latencies import Measurement
    from search.report.cards import Card
    from search.report.data import Dot, Run
    from search.result import Summary

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Size:
    """Something to have less of, along which the front can be shown.

    Attributes:
        key: Names it on the page.
        title: For people.
        dense: Of the dense network.
        text: The same with its unit.
        unit: What stands behind a number.
    """

    key: str
    title: str
    dense: float
    text: str
    unit: str


def front_json(run: Run, cards: Sequence[Card]) -> Json:
    """Everything that the plot of the front shows, in numbers that any JSON reader takes.

    Raises:
        ValueError: If ``peers.json`` is not what it should be.
    """
    result, metric = run.result, Metric(run.result.metric)
    latencies = [found for found in run.latencies if found.id == "dense"]
    sizes = _sizes(run, cards, latencies)
    half = nearest_to_half(result)
    criteria = list(dict.fromkeys(name for card in cards for name in card.final.point.criteria.values()))
    return {
        "metric": {"title": label(metric.title), "axis": label(metric.axis), "fraction": metric.is_fraction},
        "dense": {"holdout": result.dense.score, "test": result.dense.test},
        "sizes": [
            {"key": size.key, "title": size.title, "dense": size.dense, "text": size.text, "unit": size.unit}
            for size in sizes
        ],
        "groups": [(label(name, 60), full) for name, full in run.full_widths.items()],
        "criteria": [label(name, 24) for name in criteria],
        "finals": [_final(run, card, latencies) | _cut(run, card, criteria) for card in cards],
        "dots": _dots(run),
        "peers": [
            {
                "name": label(peer.name),
                "source": label(peer.source, 80),
                "split": peer.split,
                "score": peer.score,
                "sizes": {"macs": peer.macs} | ({} if peer.params is None else {"params": peer.params}),
            }
            for peer in read_peers(run.folder)
        ],
        "chosen": result.points.index(half) if half else None,
    }


def _sizes(run: Run, cards: Sequence[Card], latencies: Sequence[Measurement]) -> list[Size]:
    dense = run.result.dense
    sizes = [
        Size("macs", "MACs", dense.macs, count(dense.macs), ""),
        Size("params", "Parameters", dense.params, count(dense.params), ""),
    ]
    if any(card.weights_bytes for card in cards):
        weights = dense_bytes(run)
        sizes.append(Size("bytes", "Weights file", weights, file_size(weights), "B"))
    several = len({found.machine for found in latencies}) > 1
    sizes += [
        Size(
            f"latency-{i}",
            f"Latency, {_way(found, machine=several)}",
            found.median_ms,
            f"{found.median_ms:.3g} ms",
            "ms",
        )
        for i, found in enumerate(latencies)
    ]
    return sizes


def _way(found: Measurement, *, machine: bool) -> str:
    """How it was measured, in a line; where, too, if two lines could be the same otherwise."""
    threads = "1 thread" if found.threads == 1 else f"{found.threads} threads"
    where = label(found.device, 24) if found.device != "cpu" else f"CPU, {threads}"
    where += f", {label(found.machine, 24)}" if machine and found.device == "cpu" else ""
    return f"{label(found.backend, 24)}, batch {found.batch}, {where}"


def _how(found: Measurement) -> tuple[object, ...]:
    return found.backend, found.device, found.threads, found.batch, found.machine


def _final(run: Run, card: Card, latencies: Sequence[Measurement]) -> Json:
    """A final's place along each size, as a share of dense and as a number, and its score on each split."""
    point, dense = card.final.point, run.result.dense
    sizes: dict[str, tuple[float, float]] = {
        "macs": (point.macs / dense.macs, point.macs),
        "params": (point.params / dense.params, point.params),
    }
    if card.weights_bytes:
        sizes["bytes"] = (card.weights_bytes / dense_bytes(run), card.weights_bytes)
    ways = {_how(found): found for found in card.latencies}
    for i, of_dense in enumerate(latencies):
        found = ways.get(_how(of_dense))
        if found is not None:
            # The ratio was measured in turns with the dense network, so drifts of the machine are not in it.
            sizes[f"latency-{i}"] = (found.ratio, found.median_ms)
    return {
        "key": card.key,
        "id": point.id,
        "kind": kind if (kind := card.final.kind) in {"front", *marks.OTHERS} else "dominated",
        "origin": label(point.origin),
        "score": point.score,
        "method": label(METHOD_NAMES.get(point.weights, point.weights)),
        "sizes": sizes,
        "holdout": _score(saved_summary(point, "holdout"), point.score),
        "test": _score(saved_summary(point, "test"), None),
    }


def _cut(run: Run, card: Card, criteria: Sequence[str]) -> Json:
    """Kept units of each group, and the number of the criterion that chose them."""
    point = card.final.point
    chosen = [point.criteria.get(name) for name in run.full_widths]
    return {
        "widths": [point.widths.get(name) for name in run.full_widths],
        "criteria": [None if name is None else criteria.index(name) for name in chosen],
    }


def _score(summary: Summary | None, otherwise: float | None) -> tuple[float | None, float | None, int]:
    """Mean, standard deviation and number of seeds."""
    return (otherwise, None, 1) if summary is None else (summary.mean, summary.sd, summary.n)


def _dots(run: Run) -> list[Json]:
    """What no final's mark shows: a column for each fact, since thousands of small objects read slowly."""
    return [_columns(rung, dots) for rung, dots in marks.background(run).items()]


def _columns(rung: int, dots: Sequence[Dot]) -> Json:
    origins = {origin: i for i, origin in enumerate(dict.fromkeys(dot.origin for dot in dots))}
    return {
        "rung": rung,
        "label": marks.rung_label(rung),
        "ids": [label(dot.id, 24) for dot in dots],
        "macs": [dot.macs for dot in dots],
        "params": [dot.params for dot in dots],
        "scores": [float(f"{dot.score:.6g}") for dot in dots],
        "origins": [label(origin) for origin in origins],
        "origin": [origins[dot.origin] for dot in dots],
    }
