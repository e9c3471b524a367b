"""What runs on a worker: one process that builds its evaluator once and makes one evaluation per trial."""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from safetensors.torch import save_file

from evaluators.candidate import Candidate
from spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from evaluators.evaluation import Evaluation, Evaluator
    from search.jobs import Job


@dataclass(frozen=True, slots=True)
class Place:
    """Where an evaluator is to work.

    Attributes:
        gpu: Whether it has one, or a share of one.
        checkpoints: Folder for checkpoints of long trainings.
        rank: Of this process among those that share a training.
        world: How many share it.
    """

    gpu: bool
    checkpoints: Path
    rank: int = 0
    world: int = 1


#: Makes an evaluator on a worker; travels there once per process, through the object store.
Plan = Callable[[Place], "Evaluator"]


@dataclass(frozen=True, slots=True)
class Order:
    """A job as it travels: plain values, which loggers of Tune can write down.

    Attributes:
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
    """

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

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.candidate}-{self.rung}-{self.method}-{self.seed}"

    @classmethod
    def of(cls, job: Job, *, keep: bool, gpu: float, cpu: float, workers: int) -> Order:
        """Of a job and what it may occupy."""
        return cls(
            job.candidate.id,
            job.rung,
            job.method,
            job.seed,
            json.dumps(dict(job.candidate.architecture.items)),
            json.dumps(dict(job.candidate.chosen)),
            keep,
            gpu,
            cpu,
            workers,
        )


class EvaluationTrial(tune.Trainable):
    """One evaluation per trial. What the evaluator raises is a result; only a lost process is an error."""

    def setup(self, config: dict[str, Any], *, plan: Plan, storage: str) -> None:  # type: ignore[override]
        """Build the evaluator: once per process, which Tune then reuses for other trials."""
        self._plan, self._storage_folder = plan, Path(storage)
        self._evaluator: Evaluator | None = None
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take the next trial."""
        self._take(new_config)
        return True

    def step(self) -> dict[str, Any]:
        """The evaluation as plain values, or ``failure`` with a traceback."""
        order = self._order
        try:
            if order.workers > 1:
                from search.ray_cluster.shared_training import evaluate_shared

                evaluation = evaluate_shared(order, self._plan, self._storage_folder)
            else:
                evaluation = carry_out(order, self._evaluator, self._storage_folder)
        except Exception:
            return {"done": True, "failure": traceback.format_exc()}
        return {"done": True, **asdict(evaluation)}

    def _take(self, config: dict[str, Any]) -> None:
        self._order = Order(**config)
        if self._evaluator is None and self._order.workers == 1:
            place = Place(self._order.gpu > 0, checkpoint_folder(self._storage_folder))
            self._evaluator = self._plan(place)


def carry_out(order: Order, evaluator: Evaluator | None, storage: Path) -> Evaluation:
    """Evaluate, and leave the weights in the shared folder where they are wanted.

    Raises:
        Exception: What the evaluator raises.
    """
    assert evaluator is not None
    widths = Architecture.of(json.loads(order.widths))
    candidate = Candidate(widths, tuple(json.loads(order.criteria).items()))
    outcome = evaluator.evaluate(candidate, rung=order.rung, method=order.method, seed=order.seed)  # type: ignore[arg-type]
    if order.keep:
        _save_weights(weights_file(storage, order.name), outcome.model.state_dict())
    return outcome.evaluation


def weights_file(storage: Path, name: str) -> Path:
    """Where the weights of an evaluation wait for the driver."""
    return storage / "weights" / f"{name}.safetensors"


def checkpoint_folder(storage: Path) -> Path:
    """Where long trainings leave their checkpoints."""
    return storage / "checkpoints"


def _save_weights(path: Path, weights: Mapping[str, Tensor]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, partial)
    partial.replace(path)
