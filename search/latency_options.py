"""The options about objectives and latency: how networks are timed during a run, and at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import click

from evaluators.latency import BACKENDS, Setting, check_backends, check_threads
from evaluators.options import OptionError, choose
from search.objectives import COSTS, LATENCY

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.config import RunConfig

_Command = TypeVar("_Command", bound="Callable[..., Any]")

#: What ``--latency`` says where nothing is to be measured.
NONE = "none"

_OPTIONS = (
    click.option(
        "--objectives",
        metavar="NAMES",
        default="score,macs",
        show_default=True,
        help=f"What is searched for: the metric's name, or score, and one or more of {', '.join(COSTS)}. "
        "With latency_ms candidates are timed beside the dense network, so that equal seeds no longer give "
        "equal studies.",
    ),
    click.option(
        "--latency",
        metavar="NAMES",
        default="eager",
        show_default=True,
        help=f"How the front is timed: {', '.join(BACKENDS)}, or {NONE}. The first one is the objective's.",
    ),
    click.option(
        "--latency-batch", type=int, metavar="N", default=1, show_default=True, help="Examples at a time."
    ),
    click.option(
        "--latency-threads", type=int, metavar="N", help="CPU threads; those of the run by default."
    ),
)


def latency_options(command: _Command) -> _Command:
    """Add the options to a click command; they stay in this order in its help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def parse_backends(option: str, text: str) -> tuple[str, ...]:
    """``eager,onnxruntime``, or none of them.

    Raises:
        OptionError: If one is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    if names == (NONE,):
        return ()
    for name in names:
        choose(option, name, BACKENDS)
    return names


def check_latency_options(config: RunConfig) -> None:
    """Rules that need neither model nor device.

    Raises:
        OptionError: If one is broken.
    """
    if config.latency_batch < 1:
        raise OptionError("latency-batch", config.latency_batch, "must be at least 1.")
    if has_latency(config) and not config.latency:
        raise OptionError("latency", NONE, "latency_ms is an objective; name a backend.")


def check_latency_threads(config: RunConfig) -> None:
    """For a new run; one that goes on elsewhere keeps its number, so that what it measured stays comparable.

    Raises:
        OptionError: If this machine has fewer CPUs.
    """
    if config.latency_threads is not None:
        check_threads("latency-threads", config.latency_threads)


def check_latency_backends(config: RunConfig, driver_device: str) -> None:
    """Whether networks can be timed as the objective asks, and where the driver computes.

    Raises:
        OptionError: If not.
    """
    if not has_latency(config):
        return
    device = config.precision["device"]
    if device.partition(":")[0] != driver_device.partition(":")[0]:
        rule = f"candidates run on {device}, so the driver needs one too: it times the dense network."
        raise OptionError("objectives", ",".join(config.objectives), rule)
    check_backends("latency", config.latency[:1], driver_device)


def has_latency(config: RunConfig) -> bool:
    """Whether latency is an objective."""
    return LATENCY in config.objectives


def settings_of(config: RunConfig) -> tuple[Setting, ...]:
    """How a run times networks; the objective's way first.

    Args:
        config: With its precision resolved.
    """
    threads = config.latency_threads or config.precision["threads"]
    device = config.precision["device"]
    return tuple(Setting(name, config.latency_batch, threads, device) for name in config.latency)
