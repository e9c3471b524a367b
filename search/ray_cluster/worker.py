"""What runs on a worker: one process that prepares its work once and makes one evaluation per trial.

It imports neither torch nor what an evaluator needs: that comes with the plan, so that a benchmark can
simulate a hundred workers on one machine.
"""

from __future__ import annotations

import importlib.metadata
import json
import secrets
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray import tune

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.jobs import Job
    from search.ray_cluster.resources import Resources

#: Folder in which Ray Train keeps its own records.
SHARED = "train"


@dataclass(frozen=True, slots=True)
class Order:
    """A job as it travels: plain values, which loggers of Tune can write down.

    Attributes:
        name: Of the evaluation.
        candidate: The candidate's id.
        rung: Fidelity.
        method: Where the weights come from.
        seed: Of the training.
        widths: JSON: kept units per group.
        criteria: JSON: criterion per group.
        keep: Whether the trained weights are wanted.
        gpu: GPUs of this evaluation.
        cpu: Cores of this evaluation.
        workers: Processes that share the training.
        attempt: How many workers were lost with it before.
        token: Different for each order: files of one that was believed dead are not those of the next.
    """

    name: str
    candidate: str
    rung: int
    method: str
    seed: int
    widths: str
    criteria: str
    keep: bool
    gpu: float
    cpu: float
    workers: int
    attempt: int
    token: str

    @classmethod
    def of(cls, job: Job, resources: Resources, *, keep: bool, attempt: int = 0) -> Order:
        """Of a job and what it may occupy."""
        return cls(
            job.name,
            job.candidate.id,
            job.rung,
            job.method,
            job.seed,
            json.dumps(dict(job.candidate.architecture.items)),
            json.dumps(dict(job.candidate.chosen)),
            keep,
            resources.gpu,
            resources.cpu,
            resources.workers,
            attempt,
            secrets.token_hex(4),
        )


@dataclass(frozen=True, slots=True)
class Place:
    """Where evaluations are made.

    Attributes:
        gpu: Whether there is one, or a share of one.
        storage: Folder that all nodes share.
        rank: Of this process among those that share a training.
        world: How many share it.
    """

    gpu: bool
    storage: Path
    rank: int = 0
    world: int = 1


#: Makes one evaluation, leaves its weights in the shared folder where they are wanted, and returns the
#: fields of a :class:`evaluators.evaluation.Evaluation`.
Work = Callable[[Order], dict[str, Any]]

#: Prepares the work; travels to each process once, through the object store.
Plan = Callable[[Place], Work]


class EvaluationTrial(tune.Trainable):
    """One evaluation per trial. What the evaluator raises is a result; only a lost process is an error."""

    def setup(  # type: ignore[override]
        self, config: dict[str, Any], *, plan: Plan, storage: str, versions: dict[str, str]
    ) -> None:
        """Prepare: once per process, which Tune then reuses for other trials.

        Raises:
            RuntimeError: If a library is not the driver's: nodes may join after the sweep was started.
        """
        _check_versions(versions)
        self._plan, self._shared = plan, Path(storage)
        self._work: Work | None = None
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        order = self._order = Order(**new_config)
        if order.workers > 1:
            from search.ray_cluster.shared_training import SharedTraining

            self._work = SharedTraining(self._plan, self._shared)
        elif self._work is None:
            self._work = self._plan(Place(order.gpu > 0, self._shared))
        return True

    def step(self) -> dict[str, Any]:
        """The evaluation as plain values, or ``failure`` with a traceback."""
        assert self._work is not None
        try:
            found = self._work(self._order)
        except (Exception, SystemExit) as error:
            if hasattr(error, "ray_terminate_msg"):
                raise  # it is Ray that ends this process; a loader that does so has failed
            found = {"failure": traceback.format_exc()}
        return {"done": True, "node": ray.get_runtime_context().get_node_id(), **found}


def _check_versions(versions: Mapping[str, str]) -> None:
    for name, version in versions.items():
        found = importlib.metadata.version(name)
        if found != version:
            address = ray.util.get_node_ip_address()  # type: ignore[no-untyped-call]
            raise RuntimeError(f"{name} is {found} on node {address}, and {version} where the driver is.")


def placement(
    reserved: Mapping[int, tune.PlacementGroupFactory], config: Mapping[str, Any]
) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial with these values: by its rung."""
    return reserved[config["rung"]]
