"""What is found before a run writes anything: task, space, window, and how long it may take."""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import secrets
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from evaluators.cache import fingerprint
from evaluators.calibration import SAMPLES
from evaluators.flops import count_macs
from evaluators.latency import hardware_divisor
from evaluators.options import OptionError
from evaluators.precision import Precision
from evaluators.prepare import check_criteria
from evaluators.statistics.gather import check_calibration
from evaluators.tasks import TaskOptions, load_task
from evaluators.train import train
from search.forecast import Forecast
from search.latency_options import check_latency_backends, has_latency
from search.limits import Budget, Window, memory_bytes
from search.machine import this_machine
from search.objectives import check_metric
from search.samplers import population
from search.seeds import num_targets
from search.space_options import check_patterns
from spaces.trace import trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluators.task import Recipe, Task
    from search.config import RunConfig
    from spaces.space import Space

_LIBRARIES = ("espalier-nas", "torch", "torchvision", "optuna", "numpy")

#: Training steps that are timed, after one that warms up.
_TIMED_STEPS = 3

#: Share of the dense MACs that widths which suit the hardware must be able to reach.
_REACH = 0.5

#: A forward pass costs about a third of a training step.
_FORWARD_SHARE = 1 / 3


@dataclass(frozen=True, eq=False)
class Survey:
    """A loaded task, its space, and the settings with everything resolved.

    ``precision`` is that of this process; workers have that of the settings.
    """

    config: RunConfig
    task: Task
    space: Space
    window: Window
    precision: Precision


def survey(config: RunConfig, detect: Callable[[str | None, int, bool], Precision]) -> Survey:
    """Load, trace and check; of a run that is resumed, keep what it was started with.

    Args:
        config: Settings.
        detect: How evaluations compute, as :meth:`evaluators.precision.Precision.detect`.

    Raises:
        OptionError: If a setting breaks a rule.
    """
    task = load_task(config.task, task_options(config))
    config = replace(config, objectives=check_metric(config.objectives, task.metric))
    arguments, space = _traced(config, task)
    check_patterns(arguments, task.model, space)
    _check_groups(config, space)
    _check_cost(config, task, space)
    check_criteria(task, space, config.criteria)
    _check_calibration(config, task, space)
    window = Window.parse(config.macs, space)
    precision = _precision(config, task.model, space.macs(space.dense), detect)
    # What was prepared on one device is not prepared again on another: scores would differ within a run.
    own = Precision.from_dict(config.driver_precision) if config.driver_precision else precision.here()
    found = _fingerprint(config, task.model)
    if config.fingerprint and config.fingerprint != found:
        raise OptionError(
            "resume",
            config.task,
            "the dense network or the task file is not the one that the run was started with.",
        )
    config = replace(
        config,
        divisor=arguments["divisor"],
        final_seeds=config.final_seeds or task.recipe.final_seeds,
        fingerprint=found,
        precision=precision.to_dict(),
        driver_precision=own.to_dict(),
    )
    check_latency_backends(config, own.device)
    config = config if config.versions else _fixed(config, task.recipe)
    return Survey(config, task, space, window, own)


def task_options(config: RunConfig) -> TaskOptions:
    """The part of the settings that is the task's."""
    return TaskOptions(
        model=config.model,
        weights=None if config.weights is None else Path(config.weights),
        data_root=Path(config.data_root),
        holdout=config.holdout,
        epochs=config.epochs,
        lr=config.lr,
        batch_size=config.batch_size,
        seed=config.seed,
    )


def forecast(found: Survey, seconds_per_epoch: float | None) -> Forecast:
    """What each evaluation costs in training epochs, where a network of half the MACs costs half as much."""
    recipe, task = found.task.recipe, found.task
    calibration = (
        len(task.calibration) if task.calibration else min(len(task.train), SAMPLES / recipe.batch_size)
    )
    passes = (len(task.holdout) + calibration) * _FORWARD_SHARE / len(task.train)
    epochs = {
        (1, "refit"): passes,
        (1, "careful"): passes,
        (2, "finetune"): recipe.brief_epochs + 2 * passes,
        (3, "finetune"): recipe.finetune_epochs,
        (3, "scratch_e"): recipe.epochs,
        (3, "scratch_b"): 2 * recipe.epochs,
    }
    return Forecast(epochs, seconds_per_epoch, Budget.parse(found.config.budget).seconds)


def measure_epoch(found: Survey) -> float:
    """Seconds that one epoch of the dense network takes, from a few steps of a copy."""
    task, precision = found.task, found.precision
    model = copy.deepcopy(task.model)
    seconds = []
    for steps in (1, 1 + _TIMED_STEPS):
        start = time.monotonic()
        train(
            model,
            task,
            epochs=steps / len(task.train),
            lr=task.recipe.finetune_lr,
            seed=0,
            precision=precision,
        )
        seconds.append(time.monotonic() - start)
    return max(seconds[1] - seconds[0], seconds[1] / 2) / _TIMED_STEPS * len(task.train)


def _traced(config: RunConfig, task: Task) -> tuple[dict[str, Any], Space]:
    """The space, and what it was traced with.

    Where latency counts and no option says otherwise, widths are those that the hardware likes, or half of
    them and so on where so coarse steps leave the network nearly whole.
    """
    divisor = task.divisor
    if has_latency(config):
        device = config.device or ("cuda" if torch.cuda.is_available() else "cpu")
        divisor = max(divisor, hardware_divisor(device))
    while True:
        arguments = config.trace_arguments(divisor=divisor)
        space = trace(task.model, task.example_inputs, **arguments)
        reached = space.macs(space.smallest) <= _REACH * space.macs(space.dense)
        if reached or config.divisor is not None or divisor <= task.divisor:
            return arguments, space
        divisor = max(divisor // 2, task.divisor)


def _precision(
    config: RunConfig,
    model: nn.Module,
    dense_macs: int,
    detect: Callable[[str | None, int, bool], Precision],
) -> Precision:
    if config.precision:
        if config.executor == "local":
            return Precision.from_dict(config.precision)
        return Precision(**config.precision)  # workers have the device
    # The layout that makes bf16 convolutions fast on CPUs exists for images only.
    images = any(isinstance(module, nn.Conv2d) for module in model.modules())
    volumes = any(parameter.ndim > 4 for parameter in model.parameters())
    return detect(config.device, dense_macs, images and not volumes)


def _check_groups(config: RunConfig, space: Space) -> None:
    if any(len(group.choices) > 1 for group in space.groups):
        return
    for option in ("include", "exclude", "ignore"):
        if given := getattr(config, option):
            raise OptionError(option, ",".join(given), "leaves no group that could be pruned.")
    cause = " ".join(space.warnings) or f"no group is wider than --divisor {config.divisor}."
    raise OptionError("model", config.model or "of the task", f"nothing in it can be pruned: {cause}")


def installed_versions() -> dict[str, str]:
    """Versions of the libraries that decide what numbers come out."""
    found = {}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _check_calibration(config: RunConfig, task: Task, space: Space) -> None:
    try:
        check_calibration(task, space, memory_bytes(config.statistics_memory))
    except FloatingPointError as error:
        option, value = ("weights", config.weights) if config.weights else ("task", config.task)
        raise OptionError(option, value, str(error)) from error


def _check_cost(config: RunConfig, task: Task, space: Space) -> None:
    """Find now, not after the last training, that fvcore and the closed form disagree on this model."""
    own = space.macs(space.dense)
    try:
        counted = count_macs(task.model, task.example_inputs)
    except RuntimeError as error:
        raise OptionError("model", config.model or f"of {config.task}", str(error)) from error
    if counted != own:
        rule = f"fvcore counts {counted} MACs where the closed form has {own}; please report this."
        raise OptionError("model", config.model or f"of {config.task}", rule)


def _fixed(config: RunConfig, recipe: Recipe) -> RunConfig:
    """Decided when a run starts, and kept when it is extended."""
    budget = Budget.parse(config.budget)
    return replace(
        config,
        num_targets=num_targets(budget),
        population=population(budget),
        recipe=asdict(recipe),
        run_id=secrets.token_hex(4),
        versions=installed_versions(),
        machine=this_machine(),
    )


def _fingerprint(config: RunConfig, model: nn.Module) -> str:
    """Of what a run starts from and no option says: the dense weights, and the code of a user's own task."""
    path = Path(config.task.rpartition(":")[0])
    return fingerprint(path.read_text() if path.is_file() else "", model.state_dict())[:16]
