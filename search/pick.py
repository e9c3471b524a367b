"""``python -m search.pick RUN``: the best network of a front within limits, to look at or to take away."""

from __future__ import annotations

import math
import os
import shutil
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evaluators.options import OptionError, choose
from search.command import run_command
from search.report.data import load_config, load_result
from search.report.words import METHOD_NAMES, Metric, count, share

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from search.result import Point, Result

#: Forms in which a network can be taken away, and the files of each.
FORMATS = {"architecture": ("architecture.json", "weights.safetensors")}

_MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}


@dataclass(frozen=True, slots=True)
class Limits:
    """What a picked network must meet, as given on the command line; ``None`` where nothing is asked.

    Attributes:
        max_macs: Most multiply-adds: ``50%`` of dense, ``30M`` or a plain number.
        max_params: Most parameters, in the same forms.
        min_score: Least holdout score: ``93%``, ``93`` or ``0.93`` for a fraction such as top-1.
    """

    max_macs: str | None = None
    max_params: str | None = None
    min_score: str | None = None


def pick_point(result: Result, limits: Limits) -> Point:
    """The point of the front with the highest score within the limits.

    With a least score it is the one with the fewest MACs that reaches it.

    Raises:
        OptionError: If a limit can not be read, or no point meets it; the rule says what can be met.
    """
    points = list(result.points)
    points = _within(points, "max-macs", limits.max_macs, result.dense.macs, lambda point: point.macs)
    points = _within(points, "max-params", limits.max_params, result.dense.params, lambda point: point.params)
    if limits.min_score is None:
        return max(points, key=lambda point: (point.score, -point.macs))
    metric = Metric(result.metric)
    least = _score("min-top1", limits.min_score, metric)
    good = [point for point in points if point.score >= least - 1e-12]
    if not good:
        best = max(point.score for point in points)
        reachable = f"{math.floor(best * 1e4) / 100:.2f}%" if metric.is_fraction else repr(best)
        among = " within the other limits" if len(points) < len(result.points) else ""
        rule = f"no network{among} reaches it; the best {metric.title} on holdout is {reachable}."
        raise OptionError("min-top1", limits.min_score, rule)
    return min(good, key=lambda point: (point.macs, -point.score))


def _within(
    points: list[Point], option: str, text: str | None, dense: int, size: Callable[[Point], int]
) -> list[Point]:
    """The points whose size is at most ``text``; earlier limits have thinned them out already."""
    if text is None:
        return points
    most = _amount(option, text, dense)
    small = [point for point in points if size(point) <= most]
    if not small:
        least = min(map(size, points))
        rule = f"no network fits; the smallest has {least} ({share(least, dense)} of the dense one's)."
        raise OptionError(option, text, rule)
    return small


def _amount(option: str, text: str, dense: int) -> Decimal:
    """``50%`` of dense, ``30M`` or a plain number."""
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in {"%", *_MULTIPLES} else (text, "")
    try:
        number = Decimal(digits)
    except InvalidOperation:
        number = Decimal(0)
    if not (number.is_finite() and number > 0):
        raise OptionError(
            option, repr(text), "must be a share of dense like 50%, or a number like 30M, above 0."
        )
    return number / 100 * dense if unit == "%" else number * _MULTIPLES.get(unit, 1)


def _score(option: str, text: str, metric: Metric) -> float:
    """``93%``, ``93`` or ``0.93`` of a fraction; any other metric as it is."""
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    is_percent = text.endswith("%") or (metric.is_fraction and number > 1)
    number = number / 100 if is_percent else number
    if not math.isfinite(number) or (metric.is_fraction and not 0 <= number <= 1):
        rule = "must lie between 0% and 100%, like 93% or 0.93."
        raise OptionError(option, repr(text), rule if metric.is_fraction else "must be a number.")
    return number


def find_point(result: Result, id_: str) -> Point:
    """The final or control with this id.

    Raises:
        OptionError: If there is none; the rule names the front's.
    """
    # A proposed point can be its own control: the front comes last, so that it wins.
    points = {point.id: point for point in (*result.controls, *result.dominated, *result.points)}
    if id_ not in points:
        front = ", ".join(point.id for point in result.points)
        raise OptionError("id", repr(id_), f"no such network in this run; the front has {front}.")
    return points[id_]


def describe_point(result: Result, point: Point, folder: Path) -> str:
    """Everything that one needs to know of a point, in lines of plain text."""
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
    rows += [(METHOD_NAMES.get(method, method), _scores(point, method, metric)) for method in _methods(point)]
    chosen = [f"{name} x {n}" for name, n in Counter(point.criteria.values()).most_common()]
    rows.append(("criteria", ", ".join(chosen) or "none: nothing was removed"))
    saved = (folder / "architecture.json").is_file()
    rows.append(("files", str(folder) if saved else "not saved; only the networks of the front are"))
    width = max(len(name) for name, _ in rows)
    return printable("\n".join(f"{name:<{width}}  {text}" for name, text in rows))


def _size(part: int, whole: int) -> str:
    return f"{part} ({count(part)}), {share(part, whole)} of dense"


def _methods(point: Point) -> list[str]:
    return [name for name in METHOD_NAMES if name in point.scores or name in point.test]


def _scores(point: Point, method: str, metric: Metric) -> str:
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


def export(source: Path, target: Path) -> list[str]:
    """Copy a network's files into a new folder, which appears whole or not at all; returns their names.

    Raises:
        OptionError: If ``target`` is there already or can not be written.
        click.UsageError: If the run has no files of this network.
    """
    if target.exists() or target.is_symlink():
        raise OptionError("to", target, "is there already; name a new folder.")
    names = [name for name in FORMATS["architecture"] if (source / name).is_file()]
    if "architecture.json" not in names:
        raise click.UsageError(f"{source}: holds no architecture.json; this network was not saved.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}."))
    except OSError as error:
        raise OptionError("to", target, f"can not be written: {error.strerror}.") from error
    try:
        for name in names:
            shutil.copyfile(source / name, scratch / name)
        scratch.chmod(0o755)
        os.rename(scratch, target)
    except BaseException:
        shutil.rmtree(scratch)
        raise
    return names


def _default_target(run: Path, point: Point) -> Path:
    run = run if run.name else run.resolve()
    return run.with_name(f"{run.name}-{point.id}")


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--max-macs", metavar="LIMIT", help="Most multiply-adds: 50% of the dense network's, or 30M.")
@click.option("--max-params", metavar="LIMIT", help="Most parameters: 40% of the dense network's, or 1M.")
@click.option("--min-top1", metavar="SCORE", help="Least holdout score (93%, 0.93); fewest MACs win then.")
@click.option("--id", "id_", metavar="ID", help="This very network.")
@click.option("--export", "format_", metavar="FORMAT", help=f"Take it away as: {', '.join(FORMATS)}.")
@click.option("--to", type=click.Path(path_type=Path), help="New folder for --export; RUN-ID by default.")
def pick(
    run: Path,
    max_macs: str | None,
    max_params: str | None,
    min_top1: str | None,
    id_: str | None,
    format_: str | None,
    to: Path | None,
) -> None:
    """Pick from the front of the run folder RUN: the highest holdout score within the limits."""
    if format_ is not None:
        choose("export", format_, FORMATS)
    elif to is not None:
        raise OptionError("to", to, "needs --export architecture beside it.")
    try:
        result, config = load_result(run), load_config(run)
    except ValueError as error:
        raise click.UsageError(f"{run}: {error}") from error
    limits = Limits(max_macs, max_params, min_top1)
    if id_ is not None and limits != Limits():
        raise OptionError("id", id_, "takes no limits beside it.")
    if id_ is None and not result.points:
        raise click.UsageError(f"{run}: its front is empty, so there is nothing to pick.")
    point = pick_point(result, limits) if id_ is None else find_point(result, id_)
    folder = run / "architectures" / point.id
    if format_ is not None:
        source, folder = folder, to or _default_target(run, point)
        names = export(source, folder)
        click.echo(printable(f"wrote {' and '.join(names)} to {folder}\n"))
    click.echo(describe_point(result, point, folder))
    if (folder / "architecture.json").is_file():
        click.echo(f"\n{snippet(config, folder)}")


if __name__ == "__main__":
    sys.exit(run_command(pick, "search.pick"))
