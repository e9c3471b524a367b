"""Where evaluations are made: here, one after the other, or on a cluster (``--executor``)."""

from __future__ import annotations

import contextlib
import importlib.util
from typing import TYPE_CHECKING, Protocol

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
    if importlib.util.find_spec("ray") is None:
        raise OptionError("executor", config.executor, "needs Ray: pip install 'espalier-nas[ray]'.")
    prepare_environment(config.address)
    from search.ray_cluster.sweep import sweep  # only now: it takes seconds, and reads the environment

    with sweep(config, folder) as place:
        yield place
