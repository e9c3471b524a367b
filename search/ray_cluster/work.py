"""The work of a worker that has an evaluator: candidates in, evaluations and weights out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, cast

from safetensors.torch import save_file

from evaluators.candidate import Candidate
from spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from evaluators.evaluation import Evaluator, Method
    from search.ray_cluster.worker import Order, Place

#: Folder for weights on their way to the driver.
WEIGHTS = "weights"


@dataclass(frozen=True, eq=False)
class EvaluatorWork:
    """A :data:`search.ray_cluster.worker.Work`.

    Attributes:
        evaluator: Does it.
        place: Where; of several processes that share a training the first one saves the weights.
    """

    evaluator: Evaluator
    place: Place

    def __call__(self, order: Order) -> dict[str, Any]:
        """Evaluate, and leave the weights in the shared folder where they are wanted.

        Raises:
            Exception: What the evaluator raises.
        """
        architecture = Architecture.of(json.loads(order.widths))
        candidate = Candidate(architecture, tuple(json.loads(order.criteria).items()))
        method = cast("Method", order.method)
        outcome = self.evaluator.evaluate(candidate, rung=order.rung, method=method, seed=order.seed)
        if order.keep and self.place.rank == 0:
            _save(weights_file(self.place.storage, order), outcome.model.state_dict())
        return asdict(outcome.evaluation)


def weights_file(storage: Path, order: Order) -> Path:
    """Where the weights of an evaluation wait for the driver."""
    return storage / WEIGHTS / f"{order.name}-{order.token}.safetensors"


def _save(path: Path, weights: Mapping[str, Tensor]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    save_file({name: tensor.contiguous().clone() for name, tensor in weights.items()}, partial)
    partial.replace(path)
