"""``python -m search.latency RUN``: time the networks of a run, beside the dense one."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console

from evaluators.latency import Patience, Setting, check_backends, check_threads
from evaluators.options import OptionError
from evaluators.precision import checked_device, usable_cpus
from evaluators.tasks import load_task
from search.command import FilledPath, run_command
from search.config import RunConfig
from search.latencies import FILE, is_no_faster, read_latencies, write_latencies
from search.latency_options import parse_backends
from search.pick.choose import find_point
from search.report import write_report
from search.report.data import load_result
from search.report.words import share
from search.survey import task_options
from search.terminal_table import terminal_table
from search.timing import DENSE, time_networks
from spaces.surgery import rebuild

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from evaluators.task import Task
    from search.latencies import Measurement
    from search.result import Result

#: Columns of the table where the output is no terminal.
_PLAIN_WIDTH = 120

_EXAMPLES = """\b
Examples:
  python -m search.latency runs/digits
  python -m search.latency runs/digits --backend onnxruntime --batch 1,32
"""


@click.command(context_settings={"max_content_width": 110}, epilog=_EXAMPLES)
@click.argument("run", type=FilledPath(path_type=Path))
@click.option(
    "--backend",
    metavar="NAMES",
    default="eager",
    show_default=True,
    help="Ways of running: eager, compile, onnxruntime.",
)
@click.option("--batch", metavar="N,...", default="1", show_default=True, help="Examples at a time.")
@click.option("--threads", type=int, metavar="N", help="CPU threads; those of the run by default.")
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1; that of the run by default.")
@click.option(
    "--id", "ids", multiple=True, metavar="ID", help="This very network (repeatable); else the front."
)
@click.option(
    "--seconds", type=float, default=5.0, metavar="N", show_default=True, help="At most, for each network."
)
def latency(
    run: Path,
    backend: str,
    batch: str,
    threads: int | None,
    device: str | None,
    ids: tuple[str, ...],
    seconds: float,
) -> None:
    """Time the front of the run folder RUN: medians of real runs, each network in turns with the dense one.

    The run's task is loaded, so its Python file runs. Writes latency.json and the report. What was
    measured before stays, the same measurement is replaced.
    """
    try:
        result, config = load_result(run), RunConfig.load(run)
        read_latencies(run)  # what can not be added to is found before minutes of measuring
    except OptionError as error:
        raise click.UsageError(f"{run}: {error.rule}") from error
    except ValueError as error:
        raise click.UsageError(f"{run}: {error}") from error
    if not os.access(run, os.W_OK):
        raise click.UsageError(f"{run}: can not be written to.")
    device = checked_device(device or config.device)
    settings = _settings(config, backend, batch, threads, device)
    check_backends("backend", dict.fromkeys(setting.backend for setting in settings), device)
    if not seconds > 0:
        raise OptionError("seconds", seconds, "must be more than zero.")
    chosen = [find_point(result, id_).id for id_ in ids] or [point.id for point in result.points]
    for id_ in chosen:
        if not (run / "architectures" / id_ / "architecture.json").is_file():
            raise OptionError("id", repr(id_), "has no files; only the networks of the front are saved.")
    task = _task(config)
    found = [
        row for setting in settings for row in _timed(task, run, chosen, setting, Patience(seconds=seconds))
    ]
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    console.print(_table(result, found))
    for line in warnings(result, found):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    write_latencies(run, found)
    write_report(run)
    click.echo(f"wrote {run / FILE} and {run / 'report.html'}")


def _task(config: RunConfig) -> Task:
    """Weights do not matter, so that the file of one's own need not be there any more."""
    options = task_options(config)
    return load_task(config.task, options if ":" in config.task else replace(options, weights=None))


def _settings(
    config: RunConfig, backends: str, batches: str, threads: int | None, device: str
) -> list[Setting]:
    names = parse_backends("backend", backends)
    if not names:
        raise OptionError("backend", backends, "name at least one.")
    try:
        sizes = [int(size) for size in batches.split(",")]
    except ValueError:
        sizes = [0]
    if min(sizes) < 1:
        raise OptionError("batch", batches, "give whole numbers of at least 1, such as 1,32.")
    if threads is None:
        threads = min(int(config.precision.get("threads", 1)), usable_cpus())
    check_threads("threads", threads)
    return [Setting(name, size, threads, device) for name in names for size in dict.fromkeys(sizes)]


def _timed(
    task: Task, run: Path, ids: Sequence[str], setting: Setting, patience: Patience
) -> list[Measurement]:
    networks = {id_: partial(rebuild, task.model, run / "architectures" / id_) for id_ in ids}
    said = f"{setting.backend}, batch {setting.batch}, {setting.device}"
    current = DENSE

    def tell(id_: str) -> None:
        nonlocal current
        current = id_
        click.echo(f"{said}: timing {id_}")

    try:
        return time_networks(task.model, networks, task.example_inputs, setting, patience, tell)
    except OptionError:
        raise
    except Exception as error:
        reason = f"can not run {current}: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        raise OptionError("backend", setting.backend, reason) from error


def _table(result: Result, rows: Sequence[Measurement]) -> Table:
    headings = ("id", "backend", "batch", "threads", "MACs", "median", "quartiles", "of dense")
    macs = macs_by_id(result)
    cells = [
        (
            row.id,
            row.backend,
            str(row.batch),
            str(row.threads),
            share(macs[row.id], result.dense.macs),
            f"{row.median_ms:.3g} ms",
            f"{row.spread_ms:.2g} ms",
            f"{row.ratio:.0%}"
            + (" !" if is_no_faster(macs[row.id] / result.dense.macs, row.ratio) else "  "),
        )
        for row in rows
    ]
    return terminal_table(f"Latency of {result.task}", headings, cells, num_names=2)


def warnings(result: Result, rows: Sequence[Measurement]) -> list[str]:
    """A line for each way of running in which networks with fewer MACs are not faster."""
    macs = macs_by_id(result)
    slow: dict[tuple[str, int, str], list[str]] = {}
    for row in rows:
        if is_no_faster(macs[row.id] / result.dense.macs, row.ratio):
            slow.setdefault((row.backend, row.batch, row.device), []).append(
                f"{row.id} ({share(macs[row.id], result.dense.macs)} MACs, {row.ratio:.0%} latency)"
            )
    return [
        f"warning: MACs fall and latency does not, {backend} at batch {batch} on {device}: {', '.join(ids)}"
        for (backend, batch, device), ids in slow.items()
    ]


def macs_by_id(result: Result) -> dict[str, int]:
    """Multiply-adds of every network of a result."""
    points = (*result.controls, *result.dominated, *result.points)
    return {DENSE: result.dense.macs} | {point.id: point.macs for point in points}


if __name__ == "__main__":
    sys.exit(run_command(latency, "search.latency"))
