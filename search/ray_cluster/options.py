"""The options of a sweep on a cluster, and their rules that need no cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from evaluators.options import OptionError, choose
from search.command import FilledPath
from search.limits import Budget, parse_seconds
from search.ray_cluster.resources import Resources, parse_resources

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.config import RunConfig

_Command = TypeVar("_Command", bound="Callable[..., Any]")

EXECUTORS = ("local", "ray")
#: Who is told of every evaluation: ``--logger``. The last two are told by Tune.
LOGGERS = ("tensorboard", "none", "mlflow", "wandb")

_OPTIONS = (
    click.option(
        "--executor",
        metavar="NAME",
        default="local",
        show_default=True,
        help="local: one evaluation after the other; ray: many at once, here or on a cluster.",
    ),
    click.option(
        "--address",
        metavar="ADDRESS",
        help="Ray cluster: auto, local, HOST:PORT or ray://HOST:10001; the one that this runs in, else a "
        "local one, by default.",
    ),
    click.option(
        "--resources",
        multiple=True,
        metavar="[RUNG:]NEEDS",
        help="Of one evaluation, such as gpu=0.25,cpu=4 or, on rung 3, 3:gpu=4,cpu=16 (repeatable).",
    ),
    click.option(
        "--workers",
        type=int,
        metavar="N",
        help="Evaluations at a time, asked of an autoscaling cluster; as many as the nodes hold by default.",
    ),
    click.option(
        "--storage-path",
        type=FilledPath(),
        metavar="DIR",
        help="Folder that all nodes share: checkpoints, trained weights; inside the run folder by default.",
    ),
    click.option(
        "--timeout", metavar="TIME", help="Stop an evaluation after 90s, 30m or 2h and record it as failed."
    ),
    click.option(
        "--retries",
        type=int,
        metavar="N",
        default=3,
        show_default=True,
        help="How often an evaluation starts again when its worker or node died.",
    ),
    click.option(
        "--logger",
        "loggers",
        multiple=True,
        metavar="NAME",
        help="Who is told of every trial: tensorboard (the default), none, and on Ray mlflow or wandb "
        "(repeatable).",
    ),
)

#: Fields of the settings that say where and how evaluations run, not what comes out.
CLUSTER_FIELDS = (
    "executor",
    "address",
    "resources",
    "workers",
    "storage_path",
    "timeout",
    "retries",
    "loggers",
)


def cluster_options(command: _Command) -> _Command:
    """Add the options to a click command; they stay in this order in its help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def check_cluster_options(config: RunConfig) -> None:
    """Rules that need no cluster.

    Raises:
        OptionError: If one is broken.
    """
    choose("executor", config.executor, EXECUTORS)
    parse_resources(config.resources, Resources(), (1, 2, 3))
    for name in config.loggers:
        choose("logger", name, LOGGERS)
    if config.timeout is not None:
        parse_seconds("timeout", config.timeout)
    if config.workers is not None and config.workers < 1:
        raise OptionError("workers", config.workers, "must be at least 1.")
    if config.retries < 0:
        raise OptionError("retries", config.retries, "must be at least 0.")
    if config.storage_path is not None and "://" in config.storage_path:
        raise OptionError("storage-path", config.storage_path, "must be a folder that every node can mount.")
    if config.executor == "ray":
        return
    given = {"address": config.address, "resources": ",".join(config.resources), "workers": config.workers}
    given |= {
        "storage-path": config.storage_path,
        "timeout": config.timeout,
        "logger": ",".join(name for name in config.loggers if name not in LOGGERS[:2]),
    }
    for option, value in given.items():
        if value:
            raise OptionError(option, value, "needs --executor ray.")
    if Budget.parse(config.budget).gpu_hours is not None:
        raise OptionError("budget", config.budget, "GPU hours need --executor ray and --resources gpu=1.")
