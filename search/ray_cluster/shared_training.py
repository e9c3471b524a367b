"""One evaluation on several GPUs: processes, placed by Ray Train, prepare the work and share its training."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ray.train
import ray.train.torch

from search.ray_cluster.resources import Resources
from search.ray_cluster.worker import SHARED, Order, Place

if TYPE_CHECKING:
    from pathlib import Path

    from search.ray_cluster.worker import Plan


@dataclass(frozen=True, eq=False)
class SharedTraining:
    """A :data:`search.ray_cluster.worker.Work` that waits for the processes that do it.

    Attributes:
        plan: Prepares the work in each of them.
        storage: Folder that all nodes share.
    """

    plan: Plan
    storage: Path

    def __call__(self, order: Order) -> dict[str, Any]:
        """Start the processes, and return what the first one found.

        Raises:
            Exception: What the evaluator raises in one of them.
        """
        bundle = Resources(order.cpu, order.gpu, order.workers).bundle
        trainer = ray.train.torch.TorchTrainer(
            _evaluate,
            train_loop_config={"order": asdict(order), "plan": self.plan, "storage": self.storage},
            scaling_config=ray.train.ScalingConfig(
                num_workers=order.workers, use_gpu=order.gpu > 0, resources_per_worker=bundle
            ),
            run_config=ray.train.RunConfig(
                name=f"{order.name}-{order.token}", storage_path=str(self.storage / SHARED)
            ),
        )
        result = trainer.fit()
        if result.error is not None:
            raise result.error
        found = _result_file(self.storage, order)
        evaluation: dict[str, Any] = json.loads(found.read_text())
        found.unlink()
        return evaluation


def _evaluate(config: dict[str, Any]) -> None:
    """In each process; Ray Train has set up the process group."""
    order = Order(**config["order"])
    context = ray.train.get_context()
    place = Place(order.gpu > 0, config["storage"], context.get_world_rank(), context.get_world_size())
    evaluation = config["plan"](place)(order)
    if place.rank == 0:
        # Ray Train hands back what is reported only together with a checkpoint of its own.
        found = _result_file(place.storage, order)
        partial = found.with_suffix(".partial")
        partial.write_text(json.dumps(evaluation))
        partial.replace(found)


def _result_file(storage: Path, order: Order) -> Path:
    return storage / SHARED / f"{order.name}-{order.token}.json"
