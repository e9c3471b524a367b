"""What is on record of an evaluation, and how it is read from the studies of a run."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import TrialState

from evaluators.candidate import Candidate
from evaluators.evaluation import Evaluation
from search.journal import RUNGS
from search.storage import storage_in
from spaces.architecture import Architecture

if TYPE_CHECKING:
    from pathlib import Path

    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from search.storage import Storage

#: In a rung's study: trials before this number that brought no evaluation count no more.
TRIED_AGAIN = "tried again from"

Params = dict[str, float | str]


@dataclass(frozen=True, slots=True)
class Record:
    """A finished evaluation and where its candidate came from.

    Attributes:
        evaluation: What it was worth.
        origin: ``seed: error curve``, ``seed: global l1``, ``sampler: <name>``, ``control: uniform`` or
            ``control: random``. On rungs above the first, the origin of the candidate.
        widths: Kept units per group, in the order of the space.
        criteria: Criterion of each group that loses units.
        control_of: For a control, the id of the point that it stands beside.
    """

    evaluation: Evaluation
    origin: str
    widths: dict[str, int]
    criteria: dict[str, str]
    control_of: str | None = None

    @property
    def candidate(self) -> Candidate:
        """What was evaluated; its ``id`` is that of the evaluation."""
        return Candidate(Architecture.of(self.widths), tuple(self.criteria.items()))

    @property
    def is_control(self) -> bool:
        """Whether it was evaluated beside a point, not proposed."""
        return self.origin.startswith("control")


def read_evaluations(folder: Path, storage: Storage | None = None) -> list[Record]:
    """Every finished evaluation of a run, rung by rung, in the order in which they were finished.

    Args:
        folder: The run folder.
        storage: Its record; found by ``config.json`` when ``None``.
    """
    storage = storage or storage_in(folder)
    if not storage.exists():
        return []
    optunas = storage.read()
    studies = [find_study(optunas, storage.study_name(rung)) for rung in RUNGS]
    return [record for study in studies if study is not None for record in records_of(study)]


def find_study(storage: BaseStorage, name: str) -> optuna.Study | None:
    """The study of this name, if there is one."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        return None


def counted_trials(study: optuna.Study) -> list[FrozenTrial]:
    """Trials, without the failures that an earlier end of the run has left to be tried again.

    Proposals of a rung 1 where some succeeded stay, failed ones too: the sampler went by them.
    """
    since = study.user_attrs.get(TRIED_AGAIN, 0)
    trials = study.get_trials(deepcopy=False)
    early = trials[:since]
    proposals_stay = any(trial.state == TrialState.COMPLETE for trial in early)
    stay = [t for t in early if t.state == TrialState.COMPLETE or (proposals_stay and t.params)]
    return [*stay, *trials[since:]]


def encode(record: Record) -> dict[str, Any]:
    """As JSON takes it."""
    return asdict(record)


def decode(raw: dict[str, Any]) -> Record:
    """What :func:`encode` was given."""
    return replace(Record(**raw), evaluation=Evaluation(**raw["evaluation"]))


def records_of(study: optuna.Study) -> list[Record]:
    """Finished evaluations of a rung, in the order in which they were finished."""
    trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    # Numbers follow the asks; the order of the tells is what a reader wants with several workers.
    trials = sorted(trials, key=lambda trial: (trial.datetime_complete or trial.datetime_start, trial.number))
    return [record for trial in trials if (record := record_of(trial)) is not None]


def record_of(trial: FrozenTrial) -> Record | None:
    """The evaluation that a trial keeps, if it does."""
    return decode(trial.user_attrs["record"]) if "record" in trial.user_attrs else None


def failures_of(study: optuna.Study) -> dict[str, str]:
    """Traceback by the id of each candidate whose evaluation raised."""
    failures = [t.user_attrs["failure"] for t in counted_trials(study) if "failure" in t.user_attrs]
    return {failure["candidate"]: failure["traceback"] for failure in failures}
