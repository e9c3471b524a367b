"""A run's place on a cluster: joined and checked before anything is written."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import ray

from evaluators.options import OptionError
from evaluators.precision import Precision
from search.latency_options import has_latency
from search.limits import Budget, parse_seconds
from search.ray_cluster.capacity import Capacity
from search.ray_cluster.connection import check_nodes, check_resources, connected, default_gpu
from search.ray_cluster.executor import RayExecutor
from search.ray_cluster.ladder_plan import LadderPlan
from search.ray_cluster.resources import Resources, parse_resources

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ray.tune import Callback

    from evaluators.prepare import Prepared
    from search.config import RunConfig
    from search.jobs import Executor
    from search.survey import Survey

#: After so many seconds a person is told what is waited for.
_WAIT_SECONDS = 10.0


@dataclass(frozen=True, eq=False)
class Sweep:
    """Implements :class:`search.workplace.Workplace`.

    Attributes:
        config: The run's settings, as given.
        resources: Of one evaluation on each rung.
        storage: Folder that all nodes share.
        loggers: Tune's callbacks.
    """

    config: RunConfig
    resources: Mapping[int, Resources]
    storage: Path
    loggers: Sequence[Callback] = ()

    @property
    def gpus(self) -> Mapping[int, float]:
        """GPUs of one evaluation, by rung."""
        return {rung: needed.gpu for rung, needed in self.resources.items()}

    @property
    def places(self) -> int:
        """As many as the nodes hold."""
        return Capacity(self.resources, self.config.workers).places

    def detect(self, device: str | None, dense_macs: int, has_convolutions: bool) -> Precision:
        """What suits a worker, which may have a GPU where the driver has none."""
        needed = self.resources[1]
        wanted = device or ("cuda" if needed.gpu else "cpu")
        task = ray.remote(num_cpus=needed.cpu, num_gpus=needed.gpu)(_detect)
        asked = task.remote(wanted, dense_macs, has_convolutions)
        if not ray.wait([asked], timeout=_WAIT_SECONDS)[0]:
            click.echo(f"waiting for a node with {needed}: none is free yet")
        try:
            found: Precision = ray.get(asked)
        except ray.exceptions.RayTaskError as error:
            raise (error.cause if isinstance(error.cause, OptionError) else error) from None
        threads = max(1, int(needed.cpu)) if found.threads > 1 else 1
        return replace(found, threads=threads)

    def executor(self, found: Survey, prepared: Prepared) -> Executor:
        """As many evaluations at a time as there is room for."""
        config = found.config
        return RayExecutor(
            plan=LadderPlan(config, found.space, found.task.model.state_dict(), prepared.scores),
            resources=self.resources,
            storage=self.storage / config.run_id if config.storage_path else self.storage,
            workers=config.workers,
            timeout=None if config.timeout is None else parse_seconds("timeout", config.timeout),
            retries=config.retries,
            callbacks=self.loggers,
        )


@contextlib.contextmanager
def sweep(config: RunConfig, folder: Path) -> Iterator[Sweep]:
    """Join the cluster and find out at once whether it can do the work.

    Raises:
        OptionError: If it can not.
    """
    with connected(config.address):
        threads = config.precision.get("threads", 1)
        default = Resources(cpu=float(threads), gpu=0.0 if config.device == "cpu" else default_gpu())
        resources = parse_resources(config.resources, default, range(1, config.max_rung + 1))
        if Budget.parse(config.budget).gpu_hours is not None and not any(r.gpu for r in resources.values()):
            raise OptionError("budget", config.budget, "GPU hours need a GPU: --resources gpu=1.")
        if has_latency(config) and len({needed.gpu > 0 for needed in resources.values()}) > 1:
            rule = "latency as an objective needs GPUs on every rung, or on none."
            raise OptionError("resources", ",".join(config.resources), rule)
        if config.device == "cpu" and any(needed.gpu for needed in resources.values()):
            raise OptionError("device", config.device, "--resources ask for a GPU.")
        if (config.device or "cpu") != "cpu" and not all(needed.gpu for needed in resources.values()):
            raise OptionError("device", config.device, "each evaluation needs --resources gpu=1, or a share.")
        if ":" in (config.device or ""):
            raise OptionError("device", config.device, "Ray decides which GPU an evaluation gets; say cuda.")
        check_resources(resources)
        storage = Path(config.storage_path).absolute() if config.storage_path else folder.absolute()
        check_nodes(next(path for path in (storage, *storage.parents) if path.exists()))
        shared = storage if config.storage_path else storage / "cluster"
        yield Sweep(config, resources, shared, _loggers(config, folder.name))


def _detect(device: str, dense_macs: int, has_convolutions: bool) -> Precision:
    return Precision.detect(device, dense_macs, has_convolutions)


def _loggers(config: RunConfig, run: str) -> list[Callback]:
    """Tune's own callbacks.

    Raises:
        OptionError: If one's library is not installed.
    """
    made = {"mlflow": _mlflow, "wandb": _wandb}
    found = []
    for name in (name for name in made if name in config.loggers):
        try:
            found.append(made[name](run))
        except (ImportError, RuntimeError) as error:
            raise OptionError("logger", name, f"can not be used: {error}.") from error
    return found


def _mlflow(run: str) -> Callback:
    import mlflow  # noqa: F401 - the callback asks for it with the first trial only
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(experiment_name=run)


def _wandb(run: str) -> Callback:
    import wandb  # noqa: F401 - as above
    from ray.air.integrations.wandb import WandbLoggerCallback

    return WandbLoggerCallback(project="espalier", group=run)
