"""``python -m search.run``: search a Pareto front of smaller networks and write it to a run folder."""

from __future__ import annotations

import os
import shlex
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from evaluators.criteria import CRITERIA
from evaluators.options import OptionError, choose
from search.address import Address
from search.command import INTERRUPTED, FilledPath, StoppedError, run_command
from search.conduct import LOG, announce, conduct
from search.config import EXTENDABLE, RunConfig, check_equal, option_name
from search.drive import finished_result
from search.help import SectionedCommand
from search.interrupt import held_back, stoppable
from search.journal import RUNGS
from search.latency_options import (
    check_latency_options,
    check_latency_threads,
    has_latency,
    latency_options,
    parse_backends,
)
from search.limits import Budget, memory_bytes
from search.objectives import parse_objectives
from search.ray_cluster.options import CLUSTER_FIELDS, check_cluster_options, cluster_options
from search.samplers import SAMPLERS
from search.show import found_lines, print_result
from search.space_options import space_options
from search.storage import storage_of
from search.survey import Survey, installed_versions, survey
from search.workplace import run_remotely, workplace

if TYPE_CHECKING:
    from collections.abc import Sequence


_LEAST = {"max_rung": 1, "final": 1, "final_seeds": 1, "seed": 0}

#: Columns of the table where the output is no terminal.
_PLAIN_WIDTH = 140

_EXAMPLES = """\b
Examples:
  python -m search.run --budget 40
  python -m search.run --resume --budget 80
  python -m search.run --task cifar10 --model resnet20 --weights resnet20.th
"""


#: Options in ``--help-all``; the first section is what ``--help`` shows.
_SECTIONS = {
    "Options of every day": (
        "task",
        "model",
        "weights",
        "data_root",
        "out",
        "budget",
        "max_rung",
        "macs",
        "objectives",
        "final",
        "seed",
        "executor",
        "resume",
        "dry_run",
    ),
    "What may be pruned": (
        "divisor",
        "smallest",
        "include",
        "exclude",
        "ignore",
        "divisor_of",
        "smallest_of",
    ),
    "How it is searched": ("holdout", "criteria", "criterion_per_group", "statistics_memory", "sampler"),
    "How networks are trained": ("final_seeds", "device", "epochs", "lr", "batch_size"),
    "What is measured": ("latency", "latency_batch", "latency_threads"),
    "Record": ("storage", "loggers"),
    "On a Ray cluster": ("address", "resources", "workers", "storage_path", "timeout", "retries"),
}


@click.command(
    cls=SectionedCommand,
    sections=_SECTIONS,
    context_settings={"max_content_width": 110},
    epilog=_EXAMPLES,
)
@click.option(
    "--task",
    metavar="NAME",
    default="digits",
    show_default=True,
    help="digits, cifar10, imagefolder, or path/to/file.py:function.",
)
@click.option("--model", metavar="NAME", help="Network of the task, such as resnet20.")
@click.option(
    "--weights",
    type=FilledPath(),
    metavar="FILE",
    help="Weights of the trained network; without them it is trained first.",
)
@click.option(
    "--data-root",
    type=FilledPath(),
    metavar="DIR",
    default="data",
    show_default=True,
    help="Where data sets lie or are downloaded to.",
)
@click.option(
    "--holdout",
    metavar="SPLIT",
    help="What the search scores on: train:0.1 or test:0.5; the task's own by default.",
)
@click.option("--out", type=FilledPath(), metavar="DIR", help="Run folder; runs/TASK by default.")
@click.option(
    "--budget",
    metavar="N|TIME",
    default="40",
    show_default=True,
    help="Candidates to evaluate, or 90s, 30m, 2h, 8gpuh for rungs 1 and 2.",
)
@click.option(
    "--max-rung",
    type=int,
    metavar="1|2|3",
    default=3,
    show_default=True,
    help="1 training-free, 2 brief fine-tune, 3 final trainings.",
)
@click.option(
    "--macs",
    metavar="LOW:HIGH",
    default="20%:90%",
    show_default=True,
    help="Window of multiply-adds: shares of dense, or 10M:30M.",
)
@space_options
@click.option(
    "--criterion",
    "criteria",
    multiple=True,
    metavar="NAMES",
    help=f"Criteria to search among: {', '.join(CRITERIA)}; all by default.",
)
@click.option(
    "--statistics-memory",
    metavar="SIZE",
    default="4GiB",
    show_default=True,
    help="Memory for the layers' second moments; those that do not fit are approximated per channel.",
)
@click.option(
    "--criterion-per-group", is_flag=True, help="Search a criterion for each group instead of one for all."
)
@click.option(
    "--sampler",
    metavar="NAME",
    default="front",
    show_default=True,
    help=f"Who proposes: {', '.join(SAMPLERS)}.",
)
@click.option(
    "--final",
    type=int,
    metavar="N",
    default=5,
    show_default=True,
    help="Points that are trained to the end.",
)
@click.option(
    "--final-seeds",
    type=int,
    metavar="N",
    help="Training seeds of each of them; the task's own by default (digits 3, others 1).",
)
@click.option(
    "--seed",
    type=int,
    metavar="N",
    default=0,
    show_default=True,
    help="Of everything that is random.",
)
@click.option("--device", metavar="NAME", help="cpu, cuda or cuda:1; the best there is by default.")
@click.option("--epochs", type=float, metavar="N", help="Epochs of full training; the task's own by default.")
@click.option(
    "--lr", type=float, metavar="RATE", help="Peak learning rate of full training; the task's own by default."
)
@click.option("--batch-size", type=int, metavar="N", help="Images per step; the task's own by default.")
@latency_options
@cluster_options
@click.option(
    "--storage",
    metavar="URL",
    help="PostgreSQL database for the record, postgresql://USER@HOST/DATABASE; study.journal in the run "
    "folder by default. A password comes from PGPASSWORD, ~/.pgpass or the URL, and is kept nowhere.",
)
@click.option(
    "--resume",
    is_flag=True,
    help="Continue the run in --out; --budget and --final may be larger, and it may run elsewhere.",
)
@click.option("--dry-run", is_flag=True, help="Say what was found and how long it will take; write nothing.")
@click.pass_context
def run(ctx: click.Context, /, out: str | None, resume: bool, dry_run: bool, **options: Any) -> int:
    """Search smaller networks: a trained model and data in, a Pareto front out.

    Opens with widths from error curves and other seeds, searches keep ratios and criteria, promotes the best,
    trains the finals in three ways, and writes front.json, report.html and the networks into the run folder.
    """
    for name in ("criteria", "loggers"):
        options[name] = _names(options[name])
    options["objectives"] = parse_objectives(options["objectives"])
    options["latency"] = parse_backends("latency", options["latency"])
    default_out = f"runs/{_task_name(options['task'])}"
    options |= _absolute(options)
    address = None if options["storage"] is None else Address.parse(options["storage"])
    options["storage"] = address and address.url
    given = {
        name: v
        for name, v in options.items()
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }
    if options["executor"] == "ray" and (options["address"] or "").startswith("ray://"):
        return run_remotely(options["address"], ctx)
    folder = Path(out or default_out)
    config = _resumed(folder, given) if resume else _new(folder, options)
    if not resume and not dry_run:
        _check_free(folder)
    storage = storage_of(folder, config, address)
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    if resume and (result := finished_result(folder, config, storage)):
        click.echo(f"{folder} is finished; a larger --budget extends it.")
        print_result(console, result, folder)
        return 0
    if dry_run:
        storage.exists()  # a database that can not be used is found now
        with workplace(config, folder) as place:
            found = survey(config, place.detect)
            _say_found(found)
            announce(found, place)
        return 0
    with storage.lock():
        if not resume and storage.exists():
            rule = f"{config.storage} has a run {config.run_name} already; name another folder, or --resume."
            raise OptionError("out", folder, rule)
        with workplace(config, folder) as place, stoppable():
            found = survey(config, place.detect)
            storage.prepare()
            _say_found(found)
            if not resume:
                _create(folder, found.config)
            try:
                result = conduct(console, folder, found, place, storage)
            except KeyboardInterrupt:
                return _stopped("stopped", folder)
            except StoppedError as error:
                return _stopped(f"{error}; see {folder / LOG}", folder)
    print_result(console, result, folder)
    return 0


def _stopped(why: str, folder: Path) -> int:
    """Tell it with the command that continues the run, and return the exit code."""
    again = f"python -m search.run --resume --out {shlex.quote(str(folder))}"
    click.echo(f"search.run: {why}; continue with: {again}", err=True)
    return INTERRUPTED


def _say_found(found: Survey) -> None:
    for line in (*found_lines(found.task.name, found.space, found.window), *_changed(found.config)):
        click.echo(line)
    if has_latency(found.config):
        click.echo(f"latency is an objective: widths in steps of {found.config.divisor}, see --divisor")


def _new(folder: Path, options: dict[str, Any]) -> RunConfig:
    config = RunConfig(**options, run_name=os.path.basename(os.path.abspath(folder)))
    config = replace(config, criteria=config.criteria or tuple(CRITERIA))
    _check(config)
    check_latency_threads(config)
    return config


def _check_free(folder: Path) -> None:
    """Refuse a folder that exists, or that can not be made."""
    if folder.exists():
        raise OptionError("out", folder, "exists already; continue with --resume or name another folder.")
    parent = next(path for path in folder.absolute().parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK):
        raise OptionError("out", folder, f"can not be made: {parent} is no folder that can be written to.")


def _resumed(folder: Path, given: dict[str, Any]) -> RunConfig:
    stored = RunConfig.load(folder)
    if given.get("executor", stored.executor) != stored.executor:
        stored = replace(stored, **{name: getattr(RunConfig(), name) for name in CLUSTER_FIELDS})
    _check(replace(stored, **given))
    check_equal(stored, given)
    _check_growth(stored, given)
    return replace(stored, **{name: value for name, value in given.items() if name in EXTENDABLE})


def _check_growth(stored: RunConfig, given: dict[str, Any]) -> None:
    """A run is extended, not shortened: what is recorded stays."""
    if given.get("final", stored.final) < stored.final:
        raise OptionError(
            "final", given["final"], f"the run has {stored.final} finals; name as many or more."
        )
    before, now = Budget.parse(stored.budget), Budget.parse(given.get("budget", stored.budget))
    if now.is_less_than(before):
        raise OptionError("budget", given["budget"], f"the run has {stored.budget}; name as much or more.")


def _task_name(task: str) -> str:
    """``digits``, or ``mine`` for ``path/to/mine.py:function``."""
    path, colon, _ = task.rpartition(":")
    return Path(path).stem if colon else task


def _absolute(options: dict[str, Any]) -> dict[str, Any]:
    """Paths that also hold when the run is resumed from another folder."""
    path, colon, function = options["task"].rpartition(":")
    found = {"data_root": os.path.abspath(options["data_root"])}
    if options["storage_path"] is not None and "://" not in options["storage_path"]:
        found["storage_path"] = os.path.abspath(options["storage_path"])
    if colon:
        found["task"] = f"{os.path.abspath(path)}:{function}"
    if options["weights"] is not None:
        found["weights"] = os.path.abspath(options["weights"])
    return found


def _check(config: RunConfig) -> None:
    """Rules that need neither model nor data."""
    Budget.parse(config.budget)
    check_cluster_options(config)
    memory_bytes(config.statistics_memory)
    choose("sampler", config.sampler, SAMPLERS)
    for name in config.criteria:
        choose("criterion", name, CRITERIA)
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise OptionError(option_name(name), value, f"must be at least {least}.")
    check_latency_options(config)
    config.trace_arguments(divisor=1)
    if config.max_rung > max(RUNGS):
        raise OptionError("max-rung", config.max_rung, "must be 1, 2 or 3.")


def _names(values: Sequence[str]) -> tuple[str, ...]:
    """Repeated options and comma lists, each name once."""
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",")))


def _changed(config: RunConfig) -> list[str]:
    """Libraries that are not those that the run was started with; equal results are not promised then."""
    now = installed_versions()
    return [
        f"warning: {name} was {version} when the run was started, is {now.get(name, 'missing')}"
        for name, version in config.versions.items()
        if now.get(name) != version
    ]


def _create(folder: Path, config: RunConfig) -> None:
    """Make the run folder with its settings; it appears whole or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with held_back():
        partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
        config.save(partial)
        partial.chmod(0o755)
        os.rename(partial, folder)


if __name__ == "__main__":
    sys.exit(run_command(run, "search.run"))
