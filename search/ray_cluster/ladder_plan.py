"""What a worker needs to build its evaluator: prepared once by the driver, sent once per node."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from evaluators.calibration import calibration_batches
from evaluators.checkpoint import TRAININGS, CheckpointFolder
from evaluators.ladder import Ladder
from evaluators.precision import Precision
from evaluators.reconstruct.refit import Refit
from evaluators.shards import Shards
from evaluators.tasks import load_task
from search.dense_latency import meter
from search.ray_cluster.work import EvaluatorWork
from search.survey import task_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from evaluators.task import Task
    from search.config import RunConfig
    from search.ray_cluster.worker import Place
    from spaces.space import Space


@dataclass(frozen=True, eq=False)
class LadderPlan:
    """A :data:`search.ray_cluster.worker.Plan`. Data are read by each worker; everything else comes along.

    The second-order cache stays with the driver: scores and seeds were made from it, and evaluations fit
    layers on the cut network's own activations.

    Attributes:
        config: The run's settings.
        space: Traced by the driver.
        dense: Weights of the dense network.
        scores: Group -> criterion -> scores.
    """

    config: RunConfig
    space: Space
    dense: Mapping[str, Tensor]
    scores: Mapping[str, Mapping[str, Tensor]]

    def __call__(self, place: Place) -> EvaluatorWork:
        """Load the task, take over the dense weights, build the evaluator."""
        precision = Precision(**self.config.precision)
        precision = replace(precision, device="cuda" if place.gpu else "cpu")
        precision.apply()
        task = self._task()
        batches = calibration_batches(task, precision)
        refit = Refit(task, self.space, {}, batches, precision)
        ladder = Ladder(
            task,
            self.space,
            self.scores,
            refit,
            precision,
            checkpoints=CheckpointFolder(place.storage / TRAININGS),
            shards=Shards(place.rank, place.world),
            latency=meter(self.config, task, precision.device),
        )
        return EvaluatorWork(ladder, place)

    def _task(self) -> Task:
        options = task_options(self.config)
        if ":" not in self.config.task:
            # The dense weights come along; the file need not be there.
            options = replace(options, weights=None)
        task = load_task(self.config.task, options)
        task.model.load_state_dict(dict(self.dense))
        task.model.eval()
        return task
