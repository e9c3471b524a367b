"""The model card: a ``README.md`` beside an exported network, for people and for model hubs."""

from __future__ import annotations

import html
import json
import os
import platform
import re
import shlex
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from evaluators.export.int8 import SAMPLES
from search.config import repeat_arguments
from search.pick.describe import latency
from search.report.words import METHOD_NAMES, Metric, count, file_size, share

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from evaluators.export.verify import Verdict
    from evaluators.task import Loader, Task
    from search.pick.columns import Columns
    from search.result import Point

#: Longest name of a run folder that a card repeats.
_LONGEST = 200

#: Names that model hubs have for metrics.
_HUB_METRICS = {"top1": "accuracy", "top5": "accuracy"}

#: How weights came about.
_RECIPES = {
    "refit": "The kept weights were re-fitted in closed form on training data; nothing was trained after "
    "the cut.",
    "careful": "The kept weights were re-fitted in closed form, layer by layer, on training data; nothing "
    "was trained after the cut.",
    "finetune": "The kept weights were re-fitted in closed form on training data, then fine-tuned.",
    "scratch_e": "Fresh weights were trained for as many epochs as the dense network (Scratch-E).",
    "scratch_b": "Fresh weights were trained for as much training compute as the dense network, at most "
    "twice its epochs (Scratch-B).",
}

_LIBRARIES = ("espalier-nas", "torch", "torchvision", "onnx", "onnxruntime", "safetensors")


@dataclass(frozen=True, eq=False)
class Card:
    """What a card is written from.

    Attributes:
        known: The run's front and what was measured of it.
        config: The run's settings.
        task: The run's task.
        point: The network.
        dense_code: Lines of Python that make ``dense``.
        verdicts: By file, what its check found.
    """

    known: Columns
    config: Mapping[str, object]
    task: Task
    point: Point
    dense_code: str
    verdicts: Mapping[str, Verdict]


def write_card(folder: Path, card: Card) -> None:
    """Write ``README.md`` into a folder that holds the other files already."""
    environment = Environment(
        loader=PackageLoader("search.pick", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,
        keep_trailing_newline=True,
    )
    environment.filters |= {"md": markdown, "yaml": yaml, "fenced": fenced}
    text = environment.get_template("card.md.j2").render(facts(folder, card))
    (folder / "README.md").write_text(text, encoding="utf-8")


def facts(folder: Path, card: Card) -> dict[str, Any]:
    """What the template names."""
    result, point = card.known.result, card.point
    metric, dense = Metric(result.metric), result.dense
    macs, params = share(point.macs, dense.macs), share(point.params, dense.params)
    return {
        "card": card,
        "metric": metric,
        "hub_metric": _HUB_METRICS.get(result.metric, result.metric),
        "point": point,
        "result": result,
        "macs": f"{count(point.macs)} ({macs} of dense, {count(dense.macs)})",
        "params": f"{count(point.params)} ({params} of dense, {count(dense.params)})",
        "scores": _scores(card, metric),
        "files": _files(folder, card, metric),
        "int8": _int8(card, metric),
        "latencies": [latency(m) for m in card.known.latencies if m.id == point.id],
        "dense_latencies": [latency(m) for m in card.known.latencies if m.id == "dense"],
        "splits": _splits(card),
        "recipe": _RECIPES.get(point.weights, point.weights),
        "training": _training(card),
        "widths": _widths(card),
        "command": _portable(_command(card.config), card.config),
        "dense_code": _portable(card.dense_code, card.config),
        "versions": _versions(card.config),
        "input": _shape(card.task.example_inputs),
        "calibration": SAMPLES,
    }


def markdown(text: object) -> str:
    """Foreign text in a line of Markdown: nothing of it is markup, and it ends after a while."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text))
    line = line if len(line) <= _LONGEST else f"{line[:_LONGEST]}..."
    return re.sub(r"([\\`*_\[\]|~:@$])", r"\\\1", html.escape(line, quote=False))


def yaml(text: object) -> str:
    """Foreign text as a scalar of YAML, of which JSON is a part."""
    line = "".join(letter if letter.isprintable() else " " for letter in str(text)[:_LONGEST])
    return json.dumps(line, ensure_ascii=False)  # the escapes of JSON split an emoji into halves


def fenced(text: object, language: str = "") -> str:
    """Foreign text as a block of code, which nothing in it can end."""
    clean = "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in str(text))
    longest = max((len(run) for run in re.findall("`+", clean)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{clean}\n{fence}"


def _scores(card: Card, metric: Metric) -> list[tuple[str, str, str]]:
    """Name, test and holdout of every method, the dense network last."""
    point, dense = card.point, card.known.result.dense
    rows = []
    if point.saved_test is not None:
        rows.append(("**these weights**", metric.value(point.saved_test), ""))
    for method in dict.fromkeys((*point.scores, *point.test)):
        told = [summaries.get(method) for summaries in (point.test, point.scores)]
        test, holdout = ("" if s is None else f"{metric.summary(s)} (n = {s.n})" for s in told)
        best = ", the best on holdout" if method == point.weights else ""
        rows.append((f"{markdown(METHOD_NAMES.get(method, method))}{best}", test, holdout))
    return [*rows, ("dense network", metric.value(dense.test), metric.value(dense.score))]


def _files(folder: Path, card: Card, metric: Metric) -> list[tuple[str, str, str, str]]:
    """Name, size, how far its outputs are from the network's, and its score on test."""
    rows = []
    for path in sorted(folder.iterdir()):
        verdict = card.verdicts.get(path.name)
        told = ("", "") if verdict is None else (f"{verdict.difference:.1g}", metric.value(verdict.test))
        rows.append((path.name, file_size(path.stat().st_size), *told))
    return rows


def _int8(card: Card, metric: Metric) -> str:
    verdict = card.verdicts.get("model-int8.onnx")
    if verdict is None or verdict.holdout is None or verdict.holdout_before is None:
        return ""
    measured = [("holdout", verdict.holdout_before, verdict.holdout)]
    if card.point.saved_test is not None:
        measured.insert(0, ("test", card.point.saved_test, verdict.test))
    return " and ".join(
        f"{metric.signed(after - before)} on {split}, {metric.value(after)} after {metric.value(before)}"
        for split, before, after in measured
    )


def _splits(card: Card) -> list[tuple[str, str, str]]:
    task, holdout = card.task, card.config.get("holdout")
    cut = f", cut by --holdout {holdout}" if holdout else ""
    return [
        ("train", _num_samples(task.train), "trains, re-fits and calibrates"),
        ("holdout", _num_samples(task.holdout), f"the search scored and chose on it{cut}"),
        ("test", _num_samples(getattr(task.test, "_loader", task.test)), "read when the front was final"),
    ]


def _num_samples(loader: Loader) -> str:
    """How many a loader has, as far as it says."""
    for name in ("targets", "dataset"):
        if hasattr(found := getattr(loader, name, None), "__len__"):
            return str(len(found))  # type: ignore[arg-type]
    return f"{len(loader)} batches"


def _training(card: Card) -> list[tuple[str, str]]:
    """Settings of the training that made the weights."""
    recipe = card.config.get("recipe")
    if not isinstance(recipe, dict) or card.point.weights in ("refit", "careful"):
        return []
    tuned = card.point.weights == "finetune"
    used = {"finetune_epochs": "epochs", "finetune_lr": "peak learning rate"} if tuned else {}
    used = used or {"epochs": "epochs", "lr": "peak learning rate"}
    used |= {name: name.replace("_", " ") for name in ("batch_size", "optimizer", "weight_decay")}
    used |= {"label_smoothing": "label smoothing", "warmup": "share of warm-up, then a cosine"}
    return [(title, str(recipe[name])) for name, title in used.items() if name in recipe]


def _widths(card: Card) -> list[tuple[str, str, str]]:
    full, point = card.known.result.dense.widths, card.point
    rows = [(name, f"{width} of {full.get(name, '?')}") for name, width in point.widths.items()]
    return [(name, width, point.criteria.get(name, "")) for name, width in rows]


def _command(config: Mapping[str, object]) -> str:
    """The command that searched; folders are those of the machine that ran it, so they are left out."""
    known = {name: of for name, of in config.items() if name not in ("storage", "storage_path", "address")}
    known |= {
        name: for_any for name, for_any in (("data_root", "DIR"), ("weights", "FILE")) if known.get(name)
    }
    options = (" ".join((option, *map(_quoted, value))) for option, *value in repeat_arguments(known))
    return " \\\n    ".join(["python -m search.run", *options])


def _portable(text: str, config: Mapping[str, object]) -> str:
    """Text that names a user's file, without the folder where that is an absolute one of this machine."""
    task = str(config.get("task"))
    folder = os.path.dirname(task.rpartition(":")[0])
    return text.replace(folder, "path/to") if ".py:" in task and os.path.isabs(folder) else text


def _quoted(text: str) -> str:
    return shlex.quote(text[:_LONGEST])


def _versions(config: Mapping[str, object]) -> list[tuple[str, str, str]]:
    """Library, version of the search, version of the export."""
    searched = config.get("versions")
    searched = searched if isinstance(searched, dict) else {}
    rows = [("python", "", platform.python_version())]
    for name in dict.fromkeys((*_LIBRARIES, *map(str, searched))):
        try:
            now = metadata.version(name)
        except metadata.PackageNotFoundError:
            now = ""
        if now or name in searched:
            rows.append((name, str(searched.get(name, "")), now))
    return rows


def _shape(inputs: Any) -> str:
    """What the network is called with."""
    if isinstance(inputs, dict):
        return ", ".join(f"{name}: {_shape(value)}" for name, value in inputs.items())
    if isinstance(inputs, list | tuple):
        return ", ".join(_shape(value) for value in inputs)
    if not hasattr(inputs, "shape"):
        return repr(inputs)
    sizes: Sequence[int] = inputs.shape[1:]
    return f"{str(inputs.dtype).removeprefix('torch.')} ({', '.join(['batch', *map(str, sizes)])})"
