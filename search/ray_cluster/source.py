"""What Tune asks for trials: the jobs of the run, again where a worker was lost, while there is room."""

from __future__ import annotations

import contextlib
import logging
import time
from collections import deque
from dataclasses import asdict, dataclass, fields
from typing import TYPE_CHECKING, Any

import ray
from ray.tune.search import Searcher
from safetensors import SafetensorError
from safetensors.torch import load_file

from evaluators.checkpoint import TRAININGS, CheckpointFolder
from evaluators.evaluation import METHODS, Evaluation
from search.jobs import phase_of
from search.ray_cluster.work import weights_file
from search.ray_cluster.worker import Order

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from search.jobs import Job, Jobs, Run
    from search.ray_cluster.capacity import Capacity
    from search.ray_cluster.resources import Resources

logger = logging.getLogger(__name__)

#: Seconds after which a source that had nothing is asked again though nothing ended: clocks go on.
_ASK_AGAIN = 1.0
#: Evaluations per minute are those of so many seconds.
_PACE_WINDOW = 60.0
#: Seconds between two words on nothing being able to run.
_SAY_AGAIN = 60.0
#: Seconds until a file that another node has written must be seen here.
_SHARED_DELAY = 10.0
#: So many lost workers for each place, and none that ended well in between, are no accident.
_LOSSES_PER_PLACE, _LEAST_LOSSES = 3, 10


class _UnreadableWeightsError(Exception):
    """What a worker left can not be read."""


@dataclass(slots=True)
class Running:
    """An evaluation that was handed to Tune.

    Attributes:
        job: What it is.
        order: As it travelled.
        resources: What it occupies.
        timed_out: Whether it was stopped because it took too long.
    """

    job: Job
    order: Order
    resources: Resources
    timed_out: bool = False


class Source(Searcher):
    """Tune's view of :class:`search.jobs.Jobs`: a trial is a job, also one that climbs.

    Tune itself tries nothing twice: it would give up on what was handed to a worker that had died idle.

    Args:
        run: Shared by the steps.
        jobs: Decides what is evaluated.
        resources: Of one evaluation on each rung.
        capacity: Decides when there is room.
        storage: Folder that all nodes share.
        workers: Evaluations at a time, at most; ``None`` where the nodes decide.
        timeout: Text of ``--timeout``, for the reason.
        retries: How often an evaluation whose worker died starts again.
    """

    def __init__(
        self,
        run: Run,
        jobs: Jobs,
        resources: Mapping[int, Resources],
        capacity: Capacity,
        storage: Path,
        workers: int | None,
        timeout: str,
        retries: int,
    ) -> None:
        super().__init__()  # what is better is not for Tune to know
        self.run, self.capacity = run, capacity
        self._jobs, self._resources, self._storage = jobs, resources, storage
        self._trainings = CheckpointFolder(storage / TRAININGS)
        self._workers, self._timeout, self._retries = workers, timeout, retries
        self.running: dict[str, Running] = {}
        #: What ends the sweep: a defect of the driver, or workers that die whatever they do.
        self.defect: Exception | None = None
        self._again: deque[Job] = deque()
        #: By job, why its workers were lost; by trial, what Tune has said last.
        self._lost: dict[object, list[str]] = {}
        self._reasons: dict[str, str] = {}
        self._losses_in_a_row = 0
        self._dry_since: float | None = None
        self._said_no_room = time.monotonic() - _SAY_AGAIN + _SHARED_DELAY
        self._asked_for: Resources | None = None
        self._ended: deque[float] = deque()
        self._start = self._clock = time.monotonic()

    def suggest(self, trial_id: str) -> Any:
        """The next job, as values; ``None`` while there is none or no room."""
        try:
            return Searcher.FINISHED if self.defect else self._next(trial_id)
        except Exception as error:  # Tune would go on without the proposal
            self.defect = error
            return Searcher.FINISHED

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """Put the outcome on record."""
        if self.defect is not None or trial_id not in self.running:
            return  # what is not on record is made again by the next driver
        try:
            self._complete(trial_id, None if error else result)
        except Exception as defect:  # Tune would wrap it into its own
            self.defect = defect

    def lost(self, trial_id: str, reason: str) -> None:
        """Why a worker died; that it did comes next."""
        self._reasons[trial_id] = reason

    def evaluations_per_minute(self) -> float:
        """Of the last minute, or of as much as there was."""
        now = time.monotonic()
        while self._ended and now - self._ended[0] > _PACE_WINDOW:
            self._ended.popleft()
        return len(self._ended) * 60 / min(max(now - self._start, 1.0), _PACE_WINDOW)

    def close(self) -> None:
        """Count the time until now, and want no more nodes."""
        self._count_time()
        if self._asked_for is not None:
            _ask_autoscaler([])

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

    # -- out --------------------------------------------------------------------------------------

    def _next(self, trial_id: str) -> Any:
        now = time.monotonic()
        if self._dry_since is not None and self.running and now - self._dry_since < _ASK_AGAIN:
            return None
        if not self.capacity.has_room(entry.resources for entry in self.running.values()):
            self._say_no_room(now)
            return None
        job = self._again.popleft() if self._again else self._jobs.next()
        if job is None:
            self._dry_since = now
            return None if self.running else Searcher.FINISHED
        self._dry_since = None
        needed = self._resources[job.rung]
        keep = job.rung == self.run.config.max_rung and job.method in METHODS[job.rung]
        order = Order.of(job, needed, keep=keep, attempt=len(self._lost.get(job.key, ())))
        self._demand(needed)
        self._count_time()
        self.running[trial_id] = Running(job, order, needed)
        self.run.progress.begin(self.run.described(job))
        return asdict(order)

    def _say_no_room(self, now: float) -> None:
        if self.running or now - self._said_no_room < _SAY_AGAIN:
            return
        self._said_no_room = now
        kinds = ", ".join(sorted({str(needed) for needed in self._resources.values()}))
        self.run.progress.say(f"no node has room for an evaluation ({kinds}): waiting for one")

    def _demand(self, needed: Resources) -> None:
        """Nothing waits for nodes that are not there, so an autoscaler is told what would be used."""
        if self._workers is not None and needed != self._asked_for:
            self._asked_for = needed
            _ask_autoscaler([needed.bundle] * needed.workers * self._workers)

    # -- in ---------------------------------------------------------------------------------------

    def _complete(self, trial_id: str, result: dict[str, Any] | None) -> None:
        self._count_time()
        entry = self.running.pop(trial_id)
        self._dry_since = None
        if result is None:
            self._lost_worker(entry, self._reasons.pop(trial_id, "its worker was lost"))
            return
        self._losses_in_a_row = 0
        self._ended.append(time.monotonic())
        logger.info("%s ended on node %s", entry.order.name, result.get("node", "unknown"))
        if "failure" in result:
            self._failed(entry.job, result["failure"])
        else:
            self._done(entry, result)

    def _lost_worker(self, entry: Running, reason: str) -> None:
        job = entry.job
        if entry.timed_out:
            self._failed(job, f"It took longer than --timeout {self._timeout}.")
            return
        reasons = self._lost.setdefault(job.key, [])
        reasons.append(reason)
        logger.warning("lost %s: %s", entry.order.name, reason)
        self._losses_in_a_row += 1
        if self._losses_in_a_row >= max(_LEAST_LOSSES, _LOSSES_PER_PLACE * self.capacity.places):
            raise RuntimeError(f"The last {self._losses_in_a_row} workers were lost; the last one: {reason}")
        if len(reasons) > self._retries:
            self._failed(job, "\n".join(dict.fromkeys(reasons)))  # equal reasons are said once
            return
        self._again.append(job)
        self.run.progress.say(f"lost {job.candidate.id} on rung {job.rung}: {reason}; it starts again")

    def _done(self, entry: Running, result: Mapping[str, Any]) -> None:
        evaluation = Evaluation(**{f.name: result[f.name] for f in fields(Evaluation)})
        path = weights_file(self._storage, entry.order)
        try:
            record = self.run.record(entry.job, evaluation, lambda: _weights(path))
        except (_UnreadableWeightsError, ArithmeticError) as error:
            self._failed(entry.job, f"{type(error).__name__}: {error}")
            return
        self._jobs.done(entry.job, record)
        entry.job.forget_training(self._trainings)
        if entry.order.keep:
            path.unlink(missing_ok=True)

    def _failed(self, job: Job, trace: str) -> None:
        if self._jobs.failed(job, trace):
            self.defect = self.run.nothing_succeeded(job.rung)
        job.forget_training(self._trainings)

    def _count_time(self) -> None:
        """Split the time that went by among the phases of what ran."""
        now = time.monotonic()
        for entry in self.running.values():
            share = (now - self._clock) / len(self.running)
            self.run.clock.seconds[phase_of(entry.job.rung)] += share
        self._clock = now


def _weights(path: Path) -> Mapping[str, Tensor]:
    """What a worker left; network file systems may show it late."""
    deadline = time.monotonic() + _SHARED_DELAY
    while True:
        try:
            return load_file(path)
        except (OSError, SafetensorError) as error:
            if time.monotonic() >= deadline:
                raise _UnreadableWeightsError(f"{path.name}: {error}") from error
            time.sleep(0.2)


def _ask_autoscaler(bundles: list[dict[str, float]]) -> None:
    with contextlib.suppress(Exception):  # clusters without an autoscaler know no requests
        ray.autoscaler.sdk.request_resources(bundles=bundles)
