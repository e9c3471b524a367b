"""A network of a run in lines of plain text, with what can be done next."""

from __future__ import annotations

import shlex
from collections import Counter
from typing import TYPE_CHECKING

from search.report.words import METHOD_NAMES, Metric, count, file_size, share

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from search.latencies import Measurement
    from search.pick.columns import Columns
    from search.result import Point


def describe_point(known: Columns, point: Point, folder: Path) -> str:
    """Everything that one needs to know of a point.

    Args:
        known: The front and what was measured of it.
        point: One of its finals or controls.
        folder: Where its files are, or would be.
    """
    result = known.result
    metric, dense = Metric(result.metric), result.dense
    rows = [
        ("network", f"{point.id} of {result.task}"),
        ("MACs", _size(point.macs, dense.macs)),
        ("parameters", _size(point.params, dense.params)),
        (metric.title, f"{metric.value(point.score)} on holdout (dense: {metric.value(dense.score)})"),
    ]
    if point.saved_test is not None:
        test, dense_test = metric.value(point.saved_test), metric.value(dense.test)
        rows.append(("", f"{test} on test, by the saved weights (dense: {dense_test})"))
    rows += [(METHOD_NAMES.get(method, method), scores(point, method, metric)) for method in methods(point)]
    if (ms := getattr(point, "latency_ms", None)) is not None:
        rows.append(("latency", f"{ms:.3g} ms during the search, where it was an objective"))
    rows += [("latency", latency(m)) for m in known.latencies if m.id == point.id]
    chosen = [f"{name} x {n}" for name, n in Counter(point.criteria.values()).most_common()]
    rows.append(("criteria", ", ".join(chosen) or "none: nothing was removed"))
    weights = folder / "weights.safetensors"
    saved = folder.is_dir() and any(folder.iterdir())
    on_disk = f" ({file_size(weights.stat().st_size)} of weights)" if weights.is_file() else ""
    rows.append(("files", f"{folder}{on_disk}" if saved else "not saved; only the networks of the front are"))
    width = max(len(name) for name, _ in rows)
    return printable("\n".join(f"{name:<{width}}  {text}" for name, text in rows))


def next_steps(run: Path, point: Point) -> str:
    """Commands that take a network of the front away."""
    command = f"python -m search.pick {shlex.quote(str(run))} --id {point.id} --export"
    lines = [
        ("architecture", "weights to train on, and a loader in plain PyTorch"),
        ("onnx,pt2,int8", "for ONNX Runtime, for torch.export, in 8 bits"),
    ]
    width = max(len(formats) for formats, _ in lines)
    shown = [f"  {command} {formats:<{width}}   # {what}" for formats, what in lines]
    return printable("\n".join(["take it away:", *shown]))


def latency(measurement: Measurement) -> str:
    """A measurement in words."""
    m = measurement
    threads = f"{m.threads} thread" + ("" if m.threads == 1 else "s")
    how = ", ".join([m.backend, m.device, threads, f"batch {m.batch}"])
    spread = f"quartiles {m.spread_ms:.2g} ms apart"
    return f"{m.median_ms:.3g} ms ({spread}), {m.ratio:.0%} of dense ({how}; {m.machine})"


def methods(point: Point) -> list[str]:
    """Methods that were tried, in the order in which people compare them."""
    return [name for name in METHOD_NAMES if name in point.scores or name in point.test]


def scores(point: Point, method: str, metric: Metric) -> str:
    """Mean and deviation of a method on both splits."""
    parts = [
        f"{metric.summary(summaries[method])} on {split} (n = {summaries[method].n})"
        for split, summaries in (("test", point.test), ("holdout", point.scores))
        if method in summaries
    ]
    return ", ".join(parts) + (", the best" if method == point.weights else "")


def snippet(config: Mapping[str, object], folder: Path) -> str:
    """Python that makes a module of the files in ``folder``, with the dense code of the run's task."""
    task = config.get("task", "path/to/file.py:function")
    choices = [f"model={config['model']!r}"] if config.get("model") else []
    if config.get("data_root", "data") != "data":
        choices.append(f"data_root=Path({config['data_root']!r})")
    lines = [
        "from evaluators.tasks import TaskOptions, load_task",
        "from spaces import rebuild",
        f"dense = load_task({task!r}, TaskOptions({', '.join(choices)})).model",
        f"model = rebuild(dense, {str(folder)!r})",
    ]
    return printable("\n".join(["from pathlib import Path"] * ("Path(" in lines[2]) + lines))


def printable(text: str) -> str:
    """Text of a run folder without what would steer a terminal."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _size(part: int, whole: int) -> str:
    return f"{part} ({count(part)}), {share(part, whole)} of dense"
