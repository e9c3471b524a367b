"""What Tune calls: a scheduler that knows who climbs already, and a watch over trials and nodes."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ray
from ray.tune import Callback, Stopper
from ray.tune.schedulers import TrialScheduler

from search.progress import Fleet

if TYPE_CHECKING:
    from ray.actor import ActorHandle
    from ray.tune.experiment import Trial

    from search.ray_cluster.source import Source

#: Characters of a reason.
_LONGEST = 500
_COLOURS = re.compile(r"\x1b\[[0-9;]*m")
#: Lines such as ``actor_id: 5e74...`` in Ray's words on a dead worker.
_LABEL = re.compile(r"\w+: \S+$")
#: Seconds between two looks at who is there and what hangs.
_LOOK_SECONDS = 0.5


class Promotions(TrialScheduler):
    """Tune's view of the promotion function, which has decided already: who climbs comes as a new trial.

    Trials run to their end in the order in which they came; what is left to do is to hear of lost workers,
    which Tune tells a scheduler only.

    Args:
        source: Is told.
    """

    def __init__(self, source: Source) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._source = source

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Nothing to compare."""
        return True

    def on_trial_add(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do."""

    def on_trial_error(self, tune_controller: Any, trial: Trial) -> None:
        """A worker or node died."""
        self._source.lost(trial.trial_id, _reason(trial))

    def on_trial_result(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> str:
        """A trial has one result."""
        return TrialScheduler.STOP

    def on_trial_complete(self, tune_controller: Any, trial: Trial, result: dict[str, Any]) -> None:
        """Nothing to do."""

    def on_trial_remove(self, tune_controller: Any, trial: Trial) -> None:
        """Nothing to do."""

    def choose_trial_to_run(self, tune_controller: Any) -> Trial | None:
        """None: Tune goes by the order in which they came, and does so without a look at all trials."""
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Nothing: Tune pickles what it was given, for a restore that is never asked for."""
        return {}

    def debug_string(self) -> str:
        """For Tune's own display."""
        return "as proposed"


class OnDefect(Stopper):
    """Ends the sweep where the driver can not go on: what runs would not be put on record.

    Args:
        source: Knows.
    """

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """No trial is stopped by itself."""
        return False

    def stop_all(self) -> bool:
        """Whether to end."""
        return self._source.defect is not None


class Watch(Callback):
    """Stops what hangs, drops what Tune keeps of finished trials, tells who is there.

    Args:
        source: Knows what runs.
        timeout: Seconds, or ``None``.
    """

    def __init__(self, source: Source, timeout: float | None) -> None:
        self._source, self._timeout = source, timeout
        self._since: dict[str, tuple[float, Trial]] = {}
        self._looked = 0.0

    def __getstate__(self) -> dict[str, Any]:
        """Nothing, as above."""
        return {}

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """The worker is up and begins."""
        self._since[trial.trial_id] = time.monotonic(), trial

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """It ended."""
        self._since.pop(trial.trial_id, None)
        _forget(trial)

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Its worker was lost."""
        self._since.pop(trial.trial_id, None)
        _forget(trial)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Several times a second."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return
        self._looked = now
        self._tell()
        if self._timeout is None:
            return
        for name, (since, trial) in list(self._since.items()):
            if now - since > self._timeout:
                del self._since[name]
                self._stop(trial)

    def _stop(self, trial: Trial) -> None:
        """Kill the worker of a trial that hangs; it is not tried again, since it would hang again."""
        actor: ActorHandle[Any] | None = trial.temporary_state.ray_actor
        entry = self._source.running.get(trial.trial_id)
        if entry is not None and actor is not None:
            entry.timed_out = True
            ray.kill(actor)

    def _tell(self) -> None:
        source, capacity = self._source, self._source.capacity
        source.run.progress.fleet(
            Fleet(
                len(source.running),
                capacity.places,
                len(capacity.nodes),
                source.evaluations_per_minute(),
                source.run.book.num_failures(),
            )
        )
        for line in capacity.changes():
            source.run.progress.say(line)


def trial_name(trial: Trial) -> str:
    """Readable where Tune's loggers tell it, and different for each evaluation of a run."""
    again = f"-again-{trial.config['attempt']}" if trial.config["attempt"] else ""
    return f"{trial.config['name']}{again}"


def _reason(trial: Trial) -> str:
    """Why a worker was lost, in one line: the error that it raised while it started, or what Ray says."""
    with contextlib.suppress(OSError, TypeError):
        text = _COLOURS.sub("", Path(str(trial.error_file)).read_text()).rpartition("Failure #")[2]
        lines = [line.strip() for line in text.splitlines()[1:]]
        raised = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Exit)\b", line)]
        said = [line for line in lines if line and not _LABEL.match(line)]
        return (raised[-1] if raised else " ".join(said))[:_LONGEST]
    return "its worker was lost"


def _forget(trial: Trial) -> None:
    """Tune keeps every trial until the end, with its last result in several copies: most of its memory."""
    trial.run_metadata.last_result = {}
    trial.run_metadata.metric_analysis = {}
    trial.run_metadata.metric_n_steps = {}
    trial.run_metadata.invalidate_cache()  # type: ignore[no-untyped-call]
