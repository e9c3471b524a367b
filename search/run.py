"""``python -m search.run``: search a Pareto front of smaller networks and write it to a run folder."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from rich.console import Console

from evaluators.checkpoint import CheckpointFolder
from evaluators.criteria import CRITERIA, NORMALISATIONS
from evaluators.ladder import Ladder
from evaluators.options import OptionError, choose
from evaluators.prepare import prepare, train_dense
from evaluators.scoring import evaluate
from evaluators.task import SealedLoader
from search.command import INTERRUPTED, run_command
from search.config import EXTENDABLE, RunConfig, check_equal, option_name
from search.drive import TRAININGS, drive, finished_result
from search.encoding import Encoding
from search.forecast import expected_counts
from search.journal import driver_lock
from search.limits import Budget, memory_bytes
from search.problem import Clock, Problem
from search.progress import Display
from search.report.words import Metric, duration
from search.samplers import SAMPLERS
from search.seeds import Knowledge
from search.show import found_lines, plan_lines, print_result
from search.space_options import space_options
from search.study import RUNGS
from search.survey import Survey, forecast, installed_versions, measure_epoch, survey
from spaces.surgery import rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from evaluators.prepare import Prepared
    from search.result import Result

logger = logging.getLogger(__name__)

_LEAST = {"max_rung": 1, "final": 1, "final_seeds": 1, "seed": 0}

#: Columns of the table where the output is no terminal.
_PLAIN_WIDTH = 140

_EXAMPLES = """\b
Examples:
  python -m search.run --budget 40
  python -m search.run --resume --budget 80
  python -m search.run --task cifar10 --model resnet20 --weights resnet20.th --holdout test:0.5 --max-rung 1
"""


@click.command(context_settings={"max_content_width": 110}, epilog=_EXAMPLES)
@click.option(
    "--task",
    metavar="NAME",
    default="digits",
    show_default=True,
    help="digits, cifar10, imagefolder, or path/to/file.py:function.",
)
@click.option("--model", metavar="NAME", help="Network of the task, such as resnet20.")
@click.option(
    "--weights", metavar="FILE", help="Weights of the trained network; without them it is trained first."
)
@click.option(
    "--data-root",
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
@click.option("--out", metavar="DIR", help="Run folder; runs/TASK by default.")
@click.option(
    "--budget",
    metavar="N|TIME",
    default="40",
    show_default=True,
    help="Candidates to evaluate, or 90s, 30m, 2h for rungs 1 and 2.",
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
@click.option(
    "--resume", is_flag=True, help="Continue the run in --out; --budget and --final may be larger then."
)
@click.option("--dry-run", is_flag=True, help="Say what was found and how long it will take; write nothing.")
@click.pass_context
def run(ctx: click.Context, /, out: str | None, resume: bool, dry_run: bool, **options: Any) -> int:
    """Search smaller networks: a trained model and data in, a Pareto front out.

    Opens with widths from error curves and other seeds, searches keep ratios and criteria, promotes the best,
    trains the finals in three ways, and writes front.json, report.html and the networks into the run folder.
    """
    options["criteria"] = _names(options["criteria"])
    default_out = f"runs/{_task_name(options['task'])}"
    options |= _absolute(options)
    given = {
        name: v
        for name, v in options.items()
        if ctx.get_parameter_source(name) == ParameterSource.COMMANDLINE
    }
    folder = Path(out or default_out)
    config = _resumed(folder, given) if resume else _new(options)
    if not resume and not dry_run:
        _check_free(folder)
    console = Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH)
    if resume and (result := finished_result(folder, config)):
        click.echo(f"{folder} is finished; a larger --budget extends it.")
        print_result(console, result, folder)
        return 0
    found = survey(config)
    for line in (*found_lines(found.task.name, found.space, found.window), *_changed(found.config)):
        click.echo(line)
    if dry_run:
        _announce(found)
        return 0
    if not resume:
        _create(folder, found.config)
    try:
        return _work(console, folder, found)
    except KeyboardInterrupt:
        click.echo(
            f"search.run: stopped; continue with: python -m search.run --resume --out {folder}", err=True
        )
        return INTERRUPTED


def _new(options: dict[str, Any]) -> RunConfig:
    config = RunConfig(**options)
    config = replace(config, criteria=config.criteria or tuple(CRITERIA))
    _check(config)
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
    fewer = (now.evaluations or 0) < (before.evaluations or 0) and now.evaluations is not None
    shorter = (now.seconds or 0) < (before.seconds or 0) and now.seconds is not None
    if fewer or shorter:
        raise OptionError("budget", given["budget"], f"the run has {stored.budget}; name as much or more.")


def _task_name(task: str) -> str:
    """``digits``, or ``mine`` for ``path/to/mine.py:function``."""
    path, colon, _ = task.rpartition(":")
    return Path(path).stem if colon else task


def _absolute(options: dict[str, Any]) -> dict[str, Any]:
    """Paths that also hold when the run is resumed from another folder."""
    path, colon, function = options["task"].rpartition(":")
    found = {"data_root": os.path.abspath(options["data_root"])}
    if colon:
        found["task"] = f"{os.path.abspath(path)}:{function}"
    if options["weights"] is not None:
        found["weights"] = os.path.abspath(options["weights"])
    return found


def _check(config: RunConfig) -> None:
    """Rules that need neither model nor data."""
    Budget.parse(config.budget)
    memory_bytes(config.statistics_memory)
    choose("sampler", config.sampler, SAMPLERS)
    for name in config.criteria:
        choose("criterion", name, CRITERIA)
    for name, least in _LEAST.items():
        value = getattr(config, name)
        if value is not None and value < least:
            raise OptionError(option_name(name), value, f"must be at least {least}.")
    config.trace_arguments(divisor=1)
    if config.max_rung > max(RUNGS):
        raise OptionError("max-rung", config.max_rung, "must be 1, 2 or 3.")


def _names(values: Sequence[str]) -> tuple[str, ...]:
    """Repeated options and comma lists, each name once."""
    return tuple(dict.fromkeys(name.strip() for value in values for name in value.split(",")))


def _announce(found: Survey) -> None:
    """Say how good the dense network is, if it comes trained, and how long it will take."""
    found.precision.apply()
    task, metric = found.task, Metric(found.task.metric)
    if task.pretrained:
        score = evaluate(task.model, task, task.holdout, found.precision.exact)
        click.echo(f"dense network: {metric.value(score)} {metric.title} on holdout")
    seconds = measure_epoch(found)
    plan = forecast(found, seconds)
    plan.expect(expected_counts(found.config))
    if not task.pretrained:
        dense = duration(seconds * task.recipe.epochs)
        click.echo(f"dense network: trained first, about {dense}")
    for line in plan_lines(plan):
        click.echo(line)


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
    partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    config.save(partial)
    partial.chmod(0o755)
    os.rename(partial, folder)


def _work(console: Console, folder: Path, found: Survey) -> int:
    clock = Clock()
    with driver_lock(folder), _log_to(folder / "run.log"):
        found.config.save(folder)
        found.precision.apply()
        plan = forecast(found, None)
        metric = Metric(found.task.metric)
        with Display(console, found.space.macs(found.space.dense), plan, metric) as display:
            result = _search(display, folder, found, clock)
    print_result(console, result, folder)
    return 0


def _search(display: Display, folder: Path, found: Survey, clock: Clock) -> Result:
    task, config, metric = found.task, found.config, Metric(found.task.metric)
    trainings = CheckpointFolder(folder / TRAININGS)
    display.begin("training the dense network")
    with clock.phase("dense"):
        train_dense(
            task,
            found.precision,
            seed=config.seed,
            folder=folder,
            on_step=display.step,
            checkpoints=trainings("dense"),
        )
    display.begin("scoring the dense network and its units")
    with clock.phase("prepare"):
        prepared = prepare(
            task,
            found.space,
            found.precision,
            seed=config.seed,
            folder=folder,
            criteria=config.criteria,
            memory=memory_bytes(config.statistics_memory),
            on_stage=display.begin,
        )
        display.forecast.seconds_per_epoch = measure_epoch(found)
    display.say(f"dense network: {metric.value(prepared.dense_score)} {metric.title} on holdout")
    display.expect(expected_counts(config))
    for line in plan_lines(display.forecast):
        display.say(line)
    assert isinstance(task.test, SealedLoader)
    problem = Problem(
        task=task.name,
        metric=task.metric,
        space=found.space,
        evaluator=Ladder(
            task,
            found.space,
            prepared.scores,
            prepared.refit,
            found.precision,
            on_step=display.step,
            checkpoints=trainings,
        ),
        dense_model=task.model,
        dense_score=prepared.dense_score,
        unseal=task.test.unseal,
        rebuild=lambda path: rebuild(task.model, path),
        exact_scores=found.precision.dtype == "float32",
        knowledge=_knowledge(prepared),
    )
    applicable = {group.name: prepared.criteria_for(group.name) for group in found.space.groups}
    encoding = Encoding(found.space, found.window, config.criteria, config.criterion_per_group, applicable)
    warnings = (*found.space.warnings, *prepared.warnings)
    return drive(problem, config, encoding, folder, display, clock, warnings)


def _knowledge(prepared: Prepared) -> Knowledge:
    """For the seeds. Divided by the group's mean, a criterion's scores compare across groups."""
    criteria = dict.fromkeys(name for scores in prepared.scores.values() for name in scores)
    scores = {
        name: {
            g: NORMALISATIONS["mean"](found[name]) for g, found in prepared.scores.items() if name in found
        }
        for name in criteria
    }
    return Knowledge(curves=prepared.curves, sensitivities=prepared.sensitivities, scores=scores)


@contextlib.contextmanager
def _log_to(path: Path) -> Iterator[None]:
    """Keep decisions and their causes in a file of the run folder."""
    handler = logging.FileHandler(path)
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s"))
    root = logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        handler.close()


if __name__ == "__main__":
    sys.exit(run_command(run, "search.run"))
