"""From what was found to a result: trains and prepares, then searches where evaluations are made."""

from __future__ import annotations

import contextlib
import logging
import shlex
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import click

from evaluators.checkpoint import TRAININGS, CheckpointFolder
from evaluators.criteria import NORMALISATIONS
from evaluators.ladder import Ladder
from evaluators.latency import Patience, check_backends
from evaluators.precision import Precision
from evaluators.prepare import prepare, train_dense
from evaluators.scoring import evaluate
from evaluators.task import SealedLoader
from search.dense_latency import meter, with_dense_latency
from search.drive import drive
from search.encoding import Encoding
from search.forecast import expected_counts
from search.journal import driver_lock
from search.latencies import write_latencies
from search.latency_options import settings_of
from search.limits import memory_bytes
from search.objectives import Objectives
from search.problem import Clock, Problem
from search.progress import Display
from search.report.words import Metric, duration
from search.scalars import Scalars
from search.seeds import Knowledge
from search.show import plan_lines
from search.survey import Survey, forecast, measure_epoch
from search.timing import time_networks
from spaces.surgery import rebuild

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from rich.console import Console

    from evaluators.prepare import Prepared
    from search.result import Result
    from search.storage import Storage
    from search.workplace import Workplace

logger = logging.getLogger(__name__)

#: Of a run folder: decisions and their causes, failures with their tracebacks.
LOG = "run.log"

#: At the end of a run each network of the front is timed for at most so long.
_FRONT = Patience(tolerance=0.02, seconds=0.5)
#: For all of them together, nearly: a large network takes longer than it is given.
_FRONT_SECONDS = 20.0


def announce(found: Survey, place: Workplace) -> None:
    """Say how good the dense network is, if it comes trained, and how long it will take."""
    found.precision.apply()
    task, metric = found.task, Metric(found.task.metric)
    if task.pretrained:
        score = evaluate(task.model, task, task.holdout, found.precision.exact)
        click.echo(f"dense network: {metric.value(score)} {metric.title} on holdout")
    seconds = measure_epoch(found)
    plan = forecast(found, seconds)
    plan.at_once = max(1, place.places)
    plan.expect(expected_counts(found.config))
    if not task.pretrained:
        dense = duration(seconds * task.recipe.epochs)
        click.echo(f"dense network: trained first, about {dense}")
    for line in plan_lines(plan):
        click.echo(line)


def conduct(console: Console, folder: Path, found: Survey, place: Workplace, storage: Storage) -> Result:
    """Carry a run to its end, continuing whatever its folder holds.

    Args:
        console: Where progress is shown.
        folder: The run folder, which exists.
        found: Task, space and settings.
        place: Where evaluations are made.
        storage: The record, locked by the caller.

    Raises:
        NothingSucceededError: If no candidate came through a rung.
        RuntimeError: If fvcore's count differs from the closed form.
    """
    clock = Clock()
    with driver_lock(folder), _log_to(folder / LOG):
        found.config.save(folder)
        found.precision.apply()
        plan = forecast(found, None)
        metric = Metric(found.task.metric)
        dense_macs = found.space.macs(found.space.dense)
        with contextlib.ExitStack() as opened:
            listeners = []
            if "tensorboard" in (found.config.loggers or ("tensorboard",)):
                scalars = opened.enter_context(Scalars(folder, found.task.metric, dense_macs))
                listeners.append(scalars.evaluated)
            display = opened.enter_context(Display(console, dense_macs, plan, metric, listeners))
            return _search(display, folder, found, clock, place, storage)


def _search(
    display: Display, folder: Path, found: Survey, clock: Clock, place: Workplace, storage: Storage
) -> Result:
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
        display.forecast.at_once = max(1, place.places)
    display.say(f"dense network: {metric.value(prepared.dense_score)} {metric.title} on holdout")
    display.begin("timing the dense network")
    config = with_dense_latency(config, task, folder)
    found = replace(found, config=config)
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
            _evaluating(found),
            on_step=display.step,
            checkpoints=trainings,
            latency=meter(config, task, found.precision.device),
        ),
        dense_model=task.model,
        dense_score=prepared.dense_score,
        unseal=task.test.unseal,
        rebuild=lambda path: rebuild(task.model, path),
        exact_scores=config.precision["dtype"] == "float32",
        knowledge=_knowledge(prepared),
    )
    applicable = {group.name: prepared.criteria_for(group.name) for group in found.space.groups}
    encoding = Encoding(
        found.space,
        found.window,
        config.criteria,
        config.criterion_per_group,
        applicable,
        Objectives.of(config.objectives),
        config.dense_latency_ms,
    )
    warnings = (*found.space.warnings, *prepared.warnings)
    execute = place.executor(found, prepared)
    return drive(
        problem,
        config,
        encoding,
        folder,
        display,
        clock,
        warnings,
        execute=execute,
        gpus=place.gpus,
        storage=storage,
        on_front=lambda result: _time_front(display, folder, found, result),
    )


def _time_front(display: Display, folder: Path, found: Survey, result: Result) -> None:
    """Into ``latency.json``; a run is not lost for it."""
    task, ids = found.task, [point.id for point in result.points]
    networks = {id_: partial(rebuild, task.model, folder / "architectures" / id_) for id_ in ids}
    for setting in settings_of(found.config):
        setting = replace(setting, device=found.precision.device)
        try:
            check_backends("latency", [setting.backend], setting.device)
            rows = time_networks(
                task.model,
                networks,
                task.example_inputs,
                setting,
                _FRONT,
                partial(_begin_timing, display, setting.backend),
                _FRONT_SECONDS,
            )
            write_latencies(folder, rows)
            missing = len(set(ids).difference(row.id for row in rows))
            if missing:
                display.say(
                    f"{missing} of {len(ids)} networks were not timed by {setting.backend}, which took long "
                    f"enough: python -m search.latency {shlex.quote(str(folder))} times all"
                )
        except Exception as error:
            logger.exception("latency by %s", setting.backend)
            display.say(f"warning: no latency by {setting.backend}: {' '.join(str(error).split())[:200]}")


def _begin_timing(display: Display, backend: str, id_: str) -> None:
    display.begin(f"timing {id_}, {backend}")


def _evaluating(found: Survey) -> Precision:
    """Of evaluations that are made here; where workers make them, only the front's are made again."""
    return (
        Precision.from_dict(found.config.precision) if found.config.executor == "local" else found.precision
    )


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
