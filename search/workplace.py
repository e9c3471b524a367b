"""Where evaluations are made: here, one after the other, or on a cluster (``--executor``)."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Protocol

import click
from click.core import ParameterSource

from evaluators.options import OptionError
from evaluators.precision import Precision
from search.local import execute as execute_here
from search.ray_cluster.environment import prepare_environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from evaluators.prepare import Prepared
    from search.config import RunConfig
    from search.jobs import Executor
    from search.survey import Survey


class Workplace(Protocol):
    """Knows what evaluations are made on, and makes them."""

    @property
    def gpus(self) -> Mapping[int, float]:
        """GPUs that one evaluation occupies, by rung."""
        ...

    @property
    def places(self) -> int:
        """Evaluations at a time, as far as it is known now."""
        ...

    def detect(self, device: str | None, dense_macs: int, has_convolutions: bool) -> Precision:
        """How evaluations compute there, as :meth:`evaluators.precision.Precision.detect`."""
        ...

    def executor(self, found: Survey, prepared: Prepared) -> Executor:
        """Makes evaluations of what was prepared."""
        ...


class Here:
    """This process."""

    def __init__(self) -> None:
        self._on_gpu = False

    @property
    def gpus(self) -> Mapping[int, float]:
        """One where there is one."""
        return dict.fromkeys((1, 2, 3), float(self._on_gpu))

    @property
    def places(self) -> int:
        """One."""
        return 1

    def detect(self, device: str | None, dense_macs: int, has_convolutions: bool) -> Precision:
        """What suits this machine."""
        precision = Precision.detect(device, dense_macs, has_convolutions)
        self._on_gpu = precision.device.startswith("cuda")
        return precision

    def executor(self, found: Survey, prepared: Prepared) -> Executor:  # noqa: ARG002 - the ladder has both
        """One evaluation after the other."""
        return execute_here


@contextlib.contextmanager
def workplace(config: RunConfig, folder: Path) -> Iterator[Workplace]:
    """Go where ``--executor`` says.

    Args:
        config: Checked as far as it can be without a cluster.
        folder: The run folder, which need not exist yet.

    Raises:
        OptionError: If there is no such cluster, or it can not do the work.
    """
    if config.executor == "local":
        yield Here()
        return
    _require_ray(config.address)
    from search.ray_cluster.sweep import sweep  # only now: it takes seconds, and reads the environment

    with sweep(config, folder) as place:
        yield place


def run_remotely(address: str, ctx: click.Context) -> int:
    """Run this very command on the head node of a cluster, and return its exit code.

    Args:
        address: ``ray://HOST:PORT``.
        ctx: Of the command, with what was given on the command line.

    Raises:
        OptionError: If nobody answers there.
    """
    _require_ray(address)
    from search.ray_cluster.remote_driver import drive_remotely

    return drive_remotely(address, _arguments(ctx))


def _require_ray(address: str | None) -> None:
    if importlib.util.find_spec("ray") is None:
        raise OptionError("executor", "ray", "needs Ray: pip install 'espalier-nas[ray]'.")
    prepare_environment(address)


def _arguments(ctx: click.Context) -> list[str]:
    """The command line that gives the same options, but for the address."""
    found = ["--address=auto"]
    for option in ctx.command.params:
        name, value = str(option.name), ctx.params[str(option.name)]
        if name == "address" or ctx.get_parameter_source(name) != ParameterSource.COMMANDLINE:
            continue
        if isinstance(option, click.Option) and option.is_flag:
            found.append(option.opts[0])
        else:
            values = value if option.multiple else (value,)
            found += [f"{option.opts[0]}={given}" for given in values]
    return found
