"""Evaluations as Ray Tune trials: proposals and promotions are made here, in the driver, and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import shutil
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ray import tune

from evaluators.checkpoint import TRAININGS
from search.ray_cluster.capacity import Capacity
from search.ray_cluster.hooks import OnDefect, Promotions, Watch, trial_name
from search.ray_cluster.source import Source
from search.ray_cluster.work import WEIGHTS
from search.ray_cluster.worker import SHARED, EvaluationTrial, Plan, placement
from search.survey import installed_versions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ray.tune import Callback

    from search.jobs import Jobs, Run
    from search.ray_cluster.resources import Resources

#: Folder in which Tune's loggers write.
_EXPERIMENT = "tune"

#: What Tune itself writes there, for a restore that is never asked for: the study is the record.
_OF_TUNE = (
    "*.pkl",
    "experiment_state-*.json",
    "search_gen_state-*.json",
    ".validate_storage_marker",
    "error.txt",
)


@dataclass(frozen=True, eq=False)
class RayExecutor:
    """A :data:`search.jobs.Executor` for as many evaluations at a time as a cluster holds.

    Attributes:
        plan: Makes the evaluator on a worker.
        resources: Of one evaluation on each rung.
        storage: Folder that all nodes share.
        workers: Evaluations at a time, at most; as many as the nodes hold when ``None``.
        timeout: Seconds after which an evaluation is stopped; never when ``None``.
        retries: How often an evaluation whose worker or node died starts again.
        callbacks: Of Tune: loggers.
    """

    plan: Plan
    resources: Mapping[int, Resources]
    storage: Path
    workers: int | None = None
    timeout: float | None = None
    retries: int = 3
    callbacks: Sequence[Callback] = ()

    @cached_property
    def _capacity(self) -> Capacity:
        """Of all sweeps of a run: who left between two of them is told too."""
        return Capacity(self.resources, self.workers)

    def __call__(self, run: Run, jobs: Jobs) -> None:
        """Make every evaluation that is wanted.

        Raises:
            NothingSucceededError: Where every evaluation so far of a rung failed.
            RuntimeError: Where workers are lost whatever they do.
            Exception: What kept the driver from recording.
        """
        self.storage.mkdir(parents=True, exist_ok=True)
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # what failed is told by us
        source = Source(
            run,
            jobs,
            self.resources,
            self._capacity,
            self.storage,
            self.workers,
            f"{self.timeout or 0:g} s",
            self.retries,
        )
        trainable = tune.with_parameters(
            EvaluationTrial, plan=self.plan, storage=str(self.storage), versions=installed_versions()
        )
        reserved = {rung: _placement(needed) for rung, needed in self.resources.items()}
        tuner = tune.Tuner(
            tune.with_resources(trainable, partial(placement, reserved)),
            tune_config=tune.TuneConfig(
                search_alg=source,
                scheduler=Promotions(source),
                num_samples=-1,
                reuse_actors=True,
                trial_name_creator=trial_name,
                trial_dirname_creator=trial_name,
            ),
            run_config=tune.RunConfig(
                name=_EXPERIMENT,
                storage_path=str(self.storage),
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                callbacks=[Watch(source, self.timeout), *self.callbacks],
                stop=OnDefect(source),
                verbose=0,
            ),
        )
        try:
            tuner.fit()
        finally:
            source.close()
            _leave_logs(self.storage / _EXPERIMENT)
        if source.defect is not None:
            raise source.defect
        _clear(self.storage)


def _placement(needed: Resources) -> tune.PlacementGroupFactory:
    """What Tune reserves for a trial."""
    if needed.workers > 1:
        # Ray Train reserves places for the processes. The trial itself only waits for them, and any share of
        # a core could be the one that they lack; something it must ask for.
        return tune.PlacementGroupFactory([{"memory": 2**20}])
    return tune.PlacementGroupFactory([needed.bundle])


def _leave_logs(experiment: Path) -> None:
    """Remove what Tune wrote, and folders of trials that no logger wrote into."""
    for pattern in _OF_TUNE:
        for file in experiment.rglob(pattern):
            file.unlink(missing_ok=True)
    folders = [path for path in experiment.rglob("*") if path.is_dir()]
    for folder in (*sorted(folders, reverse=True), experiment):  # what is inside comes first
        _remove_if_empty(folder)


def _clear(storage: Path) -> None:
    """Nothing runs any more: only what loggers wrote stays."""
    for name in (WEIGHTS, TRAININGS, SHARED):
        shutil.rmtree(storage / name, ignore_errors=True)
    _remove_if_empty(storage)


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()
