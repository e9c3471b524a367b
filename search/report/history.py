"""The record of a run as a reader sees it: read once, without a lock, while a driver may be writing."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from optuna.trial import TrialState

from evaluators.evaluation import SEARCHED
from search.finite import is_finite
from search.journal import RUNGS
from search.reason import reason_of
from search.record import counted_trials, find_study, record_of
from search.storage import storage_in

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from datetime import datetime
    from pathlib import Path

    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from search.record import Params, Record
    from search.storage import Storage


@dataclass(frozen=True, slots=True)
class Entry:
    """A finished evaluation with its time and the parameters that were proposed.

    Attributes:
        record: What it was worth.
        finished: When it was told, in seconds since 1970.
        params: Of the trial; those of rung 1 are what the sampler suggested.
    """

    record: Record
    finished: float
    params: Params

    @property
    def is_searched(self) -> bool:
        """Whether its candidate was proposed, and not a control or fitted once more at the end."""
        evaluation = self.record.evaluation
        return not self.record.is_control and SEARCHED.get(evaluation.rung) == evaluation.method


@dataclass(frozen=True, slots=True)
class Failure:
    """An evaluation that raised.

    Attributes:
        rung: Where.
        candidate: Its id.
        traceback: As Python prints it.
    """

    rung: int
    candidate: str
    traceback: str

    @property
    def reason(self) -> str:
        """What was raised, in one line."""
        return reason_of(self.traceback)


@dataclass(frozen=True, slots=True)
class History:
    """Everything on record.

    Attributes:
        entries: Finished evaluations, lowest rung first, in the order in which they were finished.
        failures: In the order of the trials.
        refused: Why rung 0 refused proposals, with how often it did for this reason.
        num_duplicates: Proposals of candidates that were known already.
        num_running: Proposals of rung 1 that wait for their evaluation.
        num_unusable: Evaluations whose numbers are not finite; they are left out.
        distributions: Of the parameters of rung 1.
        notes: Facts about the run as a whole.
    """

    entries: tuple[Entry, ...] = ()
    failures: tuple[Failure, ...] = ()
    refused: Mapping[str, int] = field(default_factory=dict)
    num_duplicates: int = 0
    num_running: int = 0
    num_unusable: int = 0
    distributions: Mapping[str, BaseDistribution] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def records(self) -> list[Record]:
        """The evaluations alone."""
        return [entry.record for entry in self.entries]

    def searched(self, rung: int) -> list[Entry]:
        """What the search evaluated on a rung below the last, in order."""
        return [e for e in self.entries if e.record.evaluation.rung == rung and e.is_searched]


def read_history(folder: Path, storage: Storage | None = None) -> History:
    """Read a run's record; empty where there is none yet.

    Args:
        folder: The run folder.
        storage: Its record; found by ``config.json`` when ``None``.
    """
    storage = storage or storage_in(folder)
    if not storage.exists():
        return History()
    optunas = storage.read()
    studies = {rung: find_study(optunas, storage.study_name(rung)) for rung in RUNGS}
    trials = {rung: counted_trials(study) for rung, study in studies.items() if study}
    entries, num_unusable = _entries(trial for found in trials.values() for trial in found)
    proposals = trials.get(1, [])
    refused: dict[str, int] = defaultdict(int)
    for trial in proposals:
        if "refused" in trial.user_attrs:
            refused[str(trial.user_attrs["refused"])] += 1
    return History(
        entries=tuple(entries),
        failures=tuple(f for rung, found in trials.items() for f in _failures(rung, found)),
        refused=dict(refused),
        num_duplicates=sum("duplicate" in trial.user_attrs for trial in proposals),
        num_running=sum(trial.state == TrialState.RUNNING for trial in proposals),
        num_unusable=num_unusable,
        distributions=next((trial.distributions for trial in proposals if "record" in trial.user_attrs), {}),
        notes=studies[1].user_attrs if studies[1] else {},
    )


def _entries(trials: Iterable[FrozenTrial]) -> tuple[list[Entry], int]:
    """What can be used, in order, and how much can not."""
    found, num_unusable = [], 0
    for trial in trials:
        record = record_of(trial) if trial.state == TrialState.COMPLETE else None
        if record is None:
            continue
        if _is_usable(record):
            when = _seconds(trial.datetime_complete or trial.datetime_start)
            found.append((record.evaluation.rung, when, trial.number, Entry(record, when, trial.params)))
        else:
            num_unusable += 1
    return [entry for *_, entry in sorted(found, key=lambda row: row[:3])], num_unusable


def _is_usable(record: Record) -> bool:
    evaluation = record.evaluation
    numbers = (evaluation.score, evaluation.macs, evaluation.params, evaluation.seconds)
    return all(map(is_finite, numbers)) and evaluation.macs > 0


def _failures(rung: int, trials: Iterable[FrozenTrial]) -> list[Failure]:
    raw = [trial.user_attrs["failure"] for trial in trials if "failure" in trial.user_attrs]
    return [Failure(rung, str(failure["candidate"]), str(failure["traceback"])) for failure in raw]


def _seconds(moment: datetime | None) -> float:
    return moment.timestamp() if moment else 0.0
