"""Evaluations as Ray Tune trials: proposals and promotions are made here, in the driver, and nowhere else."""

from __future__ import annotations

import contextlib
import logging
import shutil
import time
from collections import deque
from dataclasses import asdict, dataclass, field, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray import tune
from ray.tune.search import Searcher
from safetensors.torch import load_file

from evaluators.evaluation import METHODS, Evaluation
from search.drive import TRAININGS
from search.jobs import phase_of
from search.ray_cluster.capacity import Capacity
from search.ray_cluster.hooks import Promotions, Watch, trial_name
from search.ray_cluster.work import WEIGHTS, weights_file
from search.ray_cluster.worker import SHARED, EvaluationTrial, Order, Plan, placement

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from ray.tune import Callback
    from torch import Tensor

    from search.jobs import Job, Jobs, Run
    from search.ray_cluster.resources import Resources

logger = logging.getLogger(__name__)

#: Seconds after which a source that had nothing is asked again though nothing ended: clocks go on.
_ASK_AGAIN = 1.0
#: Folder in which Tune's loggers write.
_EXPERIMENT = "tune"
#: Evaluations per minute are those of so many seconds.
_PACE_WINDOW = 60.0


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

    def __call__(self, run: Run, jobs: Jobs) -> None:
        """Make every evaluation that is wanted.

        Raises:
            RuntimeError: Where every evaluation so far failed.
        """
        self.storage.mkdir(parents=True, exist_ok=True)
        if self.workers is not None:
            _ask_autoscaler(self.resources, self.workers)
        capacity = Capacity(self.resources, self.workers)
        source = Source(run, jobs, self, capacity)
        watch = Watch(source, self.timeout)
        trainable = tune.with_parameters(EvaluationTrial, plan=self.plan, storage=str(self.storage))
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
                failure_config=tune.FailureConfig(max_failures=self.retries),
                callbacks=[watch, *self.callbacks],
                verbose=0,
            ),
        )
        with contextlib.closing(source):
            tuner.fit()
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


@dataclass(slots=True)
class _Running:
    """An evaluation that was handed to Tune."""

    job: Job
    order: Order
    resources: Resources
    lost: list[str] = field(default_factory=list)


class Source(Searcher):
    """Tune's view of :class:`search.jobs.Jobs`: a trial is a job, also one that climbs.

    Args:
        run: Shared by the steps.
        jobs: Decides what is evaluated.
        executor: Its settings.
        capacity: Decides when there is room.
    """

    def __init__(self, run: Run, jobs: Jobs, executor: RayExecutor, capacity: Capacity) -> None:
        super().__init__()  # what is better is not for Tune to know
        self.run, self.capacity = run, capacity
        self._jobs, self._executor = jobs, executor
        self.running: dict[str, _Running] = {}
        self.defect: Exception | None = None
        self._dry_since: float | None = None
        self._ended: deque[float] = deque()
        self._clock = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """The next job, as values; ``None`` while there is none or no room."""
        try:
            return Searcher.FINISHED if self.defect else self._next(trial_id)
        except Exception as error:  # Tune would go on without the proposal
            self.defect = error
            return Searcher.FINISHED

    def _next(self, trial_id: str) -> Any:
        now = time.monotonic()
        if self._dry_since is not None and self.running and now - self._dry_since < _ASK_AGAIN:
            return None
        if not self.capacity.has_room(entry.resources for entry in self.running.values()):
            return None
        job = self._jobs.next()
        if job is None:
            self._dry_since = now
            return None if self.running else Searcher.FINISHED
        self._dry_since = None
        resources = self._executor.resources[job.rung]
        last = job.rung == self.run.config.max_rung
        order = Order.of(job, resources, keep=last and job.method in METHODS[job.rung])
        self._count_time()
        self.running[trial_id] = _Running(job, order, resources)
        self.run.progress.begin(self.run.described(job))
        return asdict(order)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Put the outcome on record."""
        if self.defect is not None:
            return  # what is not on record is made again by the next driver
        try:
            self._ended_with(trial_id, None if error else result)
        except Exception as defect:  # Tune would wrap it into its own
            self.defect = defect

    def _ended_with(self, trial_id: str, result: dict[str, Any] | None) -> None:
        self._count_time()
        entry = self.running.pop(trial_id)
        self._dry_since = None
        self._ended.append(time.monotonic())
        logger.info("%s ended on node %s", entry.order.name, (result or {}).get("node", "unknown"))
        if result is None:
            # Equal reasons are said once.
            self._failed(entry, "\n".join(dict.fromkeys(entry.lost)) or "its worker was lost")
        elif "failure" in result:
            self._failed(entry, result["failure"])
        else:
            self._done(entry, result)

    def lost(self, trial_id: str, reason: str) -> None:
        """A worker or node died under a trial, which Tune may start again."""
        entry = self.running[trial_id]
        entry.lost.append(reason)
        left = self._executor.retries - len(entry.lost)
        what = f"{entry.job.candidate.id} on rung {entry.job.rung}: {reason}"
        logger.warning("lost %s", what)
        self.run.progress.say(f"lost {what}" + ("; it starts again" if left >= 0 else ""))

    def evaluations_per_minute(self) -> float:
        """Of the last minute."""
        now = time.monotonic()
        while self._ended and now - self._ended[0] > _PACE_WINDOW:
            self._ended.popleft()
        return len(self._ended) * 60 / _PACE_WINDOW

    def close(self) -> None:
        """Count the time until now."""
        self._count_time()

    def save(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing: the study is the record."""

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it was given, for a restore that is never asked for."""
        return {}

    def get_state(self) -> dict[str, Any]:
        """Nothing: the study is the record."""
        return {}

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing: the study is the record."""

    def _done(self, entry: _Running, result: Mapping[str, Any]) -> None:
        evaluation = Evaluation(**{f.name: result[f.name] for f in fields(Evaluation)})
        path = weights_file(self._executor.storage, entry.order)

        def weights() -> Mapping[str, Tensor]:
            return load_file(path)

        try:
            record = self.run.record(entry.job, evaluation, weights)
        except (OSError, ArithmeticError) as error:
            self._failed(entry, f"{type(error).__name__}: {error}")
            return
        self._jobs.done(entry.job, record)
        if entry.order.keep:
            path.unlink(missing_ok=True)

    def _failed(self, entry: _Running, trace: str) -> None:
        if self._jobs.failed(entry.job, trace):
            self.defect = RuntimeError(f"Every evaluation so far failed; the last one:\n{trace}")

    def _count_time(self) -> None:
        """Split the time that went by among the phases of what ran."""
        now = time.monotonic()
        for entry in self.running.values():
            share = (now - self._clock) / len(self.running)
            self.run.clock.seconds[phase_of(entry.job.rung)] += share
        self._clock = now


def _clear(storage: Path) -> None:
    """Nothing runs any more: only what loggers wrote stays."""
    for name in (WEIGHTS, TRAININGS, SHARED):
        shutil.rmtree(storage / name, ignore_errors=True)
    for pickled in (storage / _EXPERIMENT).glob("*.pkl"):
        pickled.unlink()


def _ask_autoscaler(resources: Mapping[int, Resources], workers: int) -> None:
    """Without waiting proposals there is no demand that an autoscaler could see."""
    largest = max(resources.values(), key=lambda needed: (needed.gpu / needed.workers, needed.cpu))
    with contextlib.suppress(Exception):  # clusters without an autoscaler know no requests
        ray.autoscaler.sdk.request_resources(bundles=[largest.bundle] * workers)
