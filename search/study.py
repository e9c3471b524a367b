"""The book that keeps the record of a run: one plain Optuna study per rung.

Every fact about an evaluation is in the user attributes of its trial, so that the front can be rebuilt
from the studies alone. A told trial never changes, and no trial is told before its evaluation is done.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.trial import TrialState, create_trial

from evaluators.evaluation import SEARCHED, Evaluation
from search.journal import RUNGS, study_name
from search.objectives import MACS, SCORE
from search.problem import covered
from search.record import (
    TRIED_AGAIN,
    Record,
    counted_trials,
    decode,
    encode,
    failures_of,
    find_study,
    records_of,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.storages import BaseStorage
    from optuna.trial import FrozenTrial

    from search.objectives import Objectives
    from search.record import Params
    from spaces.architecture import Architecture


@dataclass(frozen=True, slots=True)
class Proposal:
    """A trial of rung 1 that waits for its evaluation.

    Attributes:
        number: Position among the proposals; with the run's seed it fixes what is proposed.
        trial: Number of the Optuna trial; larger than ``number`` when a driver died in an ask.
        params: As the sampler suggested them.
    """

    number: int
    trial: int
    params: Params


class Book:
    """Asks, tells and remembers; shared by every executor of a run.

    Args:
        storage: The run's record, mended and locked by the caller.
        distributions: Of the parameters of rung 1.
        name: Of the study of a rung.
        objectives: Of every study: costs, lower is better; score, higher is better.
    """

    def __init__(
        self,
        storage: BaseStorage,
        distributions: dict[str, BaseDistribution],
        name: Callable[[int], str] = study_name,
        objectives: Objectives = MACS,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._storage = storage
        self._distributions = distributions
        self._objectives = objectives
        self._studies = {rung: _open(storage, name(rung), objectives) for rung in RUNGS}
        self._rows = {rung: records_of(study) for rung, study in self._studies.items()}
        self._failed = {rung: failures_of(study) for rung, study in self._studies.items()}
        self._num_proposals = sum(map(_is_proposal, self._trials(1)))
        self._results = {(r.evaluation.candidate, *_how(r.evaluation)): r for r in self.all_records()}
        self._latencies: dict[Architecture, float] = {}
        for record in self.all_records():
            self._remember_latency(record)

    def records(self, rung: int) -> list[Record]:
        """Finished evaluations of a rung, without duplicates, oldest first."""
        return list(self._rows[rung])

    def all_records(self) -> list[Record]:
        """Finished evaluations of all rungs."""
        return [record for rung in RUNGS for record in self._rows[rung]]

    def find(self, candidate: str, rung: int, method: str, seed: int) -> Record | None:
        """The evaluation of this candidate id in this way, if it is finished."""
        return self._results.get((candidate, rung, method, seed))

    def latency_of(self, architecture: Architecture) -> float | None:
        """Milliseconds on record of a network with these widths."""
        return self._latencies.get(architecture)

    def busy_seconds(self, rungs: Iterable[int], *, proposed: bool = False) -> float:
        """Wall clock during which something on record was being evaluated, by however many workers.

        Args:
            rungs: Whose evaluations count.
            proposed: Whether what finished searches add, controls and careful re-fits, is left out.
        """
        spans = []
        for trial in (trial for rung in rungs for trial in self._trials(rung)):
            raw = trial.user_attrs.get("record")
            if raw is None or trial.datetime_complete is None or (proposed and not _is_searched(raw)):
                continue
            end = trial.datetime_complete.timestamp()
            spans.append((end - raw["evaluation"]["seconds"], end))
        return covered(spans)

    def failures(self, rung: int) -> dict[str, str]:
        """Candidate ids whose evaluation raised on this rung, with the traceback."""
        return dict(self._failed[rung])

    def num_failures(self) -> int:
        """Candidates whose evaluation raised, on all rungs."""
        return sum(map(len, self._failed.values()))

    def ask(self, sampler: BaseSampler) -> Proposal:
        """Propose: a new running trial of rung 1 whose parameters ``sampler`` suggests."""
        study = self._studies[1]
        study.sampler = sampler
        number = self._num_proposals
        trial = study.ask(fixed_distributions=self._distributions)
        self._num_proposals += 1
        return Proposal(number, trial.number, dict(trial.params))

    def num_proposals(self) -> int:
        """Proposals so far, duplicates and refused ones included, those that died while asked left out."""
        return self._num_proposals

    def recover(self) -> list[Proposal]:
        """Take over what a dead driver left running.

        Trials whose result is known are told; those without all parameters are failed, and the next
        ask repeats them with the same proposal number; the rest are returned to be evaluated.
        """
        adopted: list[Proposal] = []
        number = 0
        for trial in self._trials(1):
            if trial.state == TrialState.RUNNING:
                if set(trial.params) != set(self._distributions):
                    self._bury(trial, "the driver died between the parameters of this proposal")
                    self._num_proposals -= 1
                    continue
                if not self._told_again(trial):
                    adopted.append(Proposal(number, trial.number, dict(trial.params)))
            number += _is_proposal(trial)
        return adopted

    def tell(self, proposal: Proposal, record: Record) -> None:
        """Finish a proposal with its evaluation; telling again changes nothing."""
        if self._storage.get_trial(self._trial_id(proposal.trial)).state.is_finished():
            return
        self._attach(proposal.trial, "record", encode(record))
        self._finish(proposal.trial, record.evaluation)
        self._remember(record)

    def tell_duplicate(self, proposal: Proposal, candidate: str) -> None:
        """Finish a proposal that decodes to a candidate which is known already, with what it was worth."""
        known = next((r for r in self._rows[1] if r.evaluation.candidate == candidate), None)
        self._attach(proposal.trial, "duplicate", candidate)
        self._finish(proposal.trial, known.evaluation if known else None)

    def tell_refused(self, proposal: Proposal, reason: str) -> None:
        """Finish a proposal that rung 0 refuses: it costs nothing and counts as nothing."""
        self._attach(proposal.trial, "refused", reason)
        self._finish(proposal.trial, None)

    def tell_failed(self, proposal: Proposal, candidate: str, traceback: str) -> None:
        """Finish a proposal whose evaluation raised."""
        self._attach(proposal.trial, "failure", {"candidate": candidate, "traceback": traceback})
        self._finish(proposal.trial, None)
        self._failed[1][candidate] = traceback

    def add(self, record: Record, params: Params) -> None:
        """Append a finished evaluation of a promoted candidate, a final or a control, in one write."""
        trial = create_trial(
            state=TrialState.COMPLETE,
            values=self._values(record.evaluation),
            params=dict(params),
            distributions=self._distributions,
            user_attrs={"record": encode(record)},
        )
        self._studies[record.evaluation.rung].add_trial(trial)
        if record.evaluation.rung == 1:
            self._num_proposals += _is_proposal(trial)
        self._remember(record)

    def add_failure(self, rung: int, candidate: str, traceback: str) -> None:
        """Append an evaluation that raised on a higher rung."""
        failure = {"candidate": candidate, "traceback": traceback}
        self._studies[rung].add_trial(create_trial(state=TrialState.FAIL, user_attrs={"failure": failure}))
        self._failed[rung][candidate] = traceback

    def try_again(self, rung: int) -> None:
        """Whoever opens the record next finds a rung without its failures, and may make them again.

        It is for a rung that nothing came through, where a defect was mended meanwhile. Call nothing else
        afterwards.
        """
        trials = self._trials(rung)
        for trial in trials:
            if trial.state == TrialState.RUNNING:
                self._bury(trial, "the run ended before its evaluation")
        self._studies[rung].set_user_attr(TRIED_AGAIN, trials[-1].number + 1 if trials else 0)

    def num_fruitless(self) -> int:
        """Latest proposals in a row that were duplicates or refused; when many, the space is exhausted."""
        count = 0
        for trial in reversed(self._trials(1)):
            if "duplicate" in trial.user_attrs or "refused" in trial.user_attrs:
                count += 1
            elif _is_proposal(trial):
                break
        return count

    def note(self, key: str, value: float | str | dict[str, Any]) -> None:
        """Keep a fact about the run as a whole."""
        self._studies[1].set_user_attr(key, value)

    def noted(self, key: str) -> Any:
        """A fact kept with :meth:`note`, or ``None``."""
        return self._studies[1].user_attrs.get(key)

    def _trials(self, rung: int) -> list[FrozenTrial]:
        return counted_trials(self._studies[rung])

    def _told_again(self, trial: FrozenTrial) -> bool:
        """Finish a trial whose driver died after writing its result and before telling it."""
        attrs = trial.user_attrs
        if "record" in attrs:
            record = decode(attrs["record"])
            self._finish(trial.number, record.evaluation)
            self._remember(record)
        elif "failure" in attrs:
            self._finish(trial.number, None)
            self._failed[1][attrs["failure"]["candidate"]] = attrs["failure"]["traceback"]
        else:
            return False
        return True

    def _bury(self, trial: FrozenTrial, reason: str) -> None:
        """Finish a trial of rung 1 that will never be evaluated, and counts as no proposal."""
        self._attach(trial.number, "dead", reason)
        self._finish(trial.number, None)

    def _attach(self, trial: int, key: str, value: object) -> None:
        self._storage.set_trial_user_attr(self._trial_id(trial), key, value)

    def _trial_id(self, number: int) -> int:
        """Of a trial of rung 1, without a list of all."""
        return self._storage.get_trial_id_from_study_id_trial_number(self._studies[1]._study_id, number)

    def _finish(self, trial: int, evaluation: Evaluation | None) -> None:
        if evaluation is None:
            self._studies[1].tell(trial, state=TrialState.FAIL)
        else:
            self._studies[1].tell(trial, self._values(evaluation))

    def _values(self, evaluation: Evaluation) -> list[float]:
        if not math.isfinite(evaluation.score):
            raise ValueError(
                f"`score` of candidate {evaluation.candidate} must be finite, got {evaluation.score}."
            )
        return self._objectives.values(evaluation)

    def _remember(self, record: Record) -> None:
        evaluation = record.evaluation
        self._rows[evaluation.rung].append(record)
        self._results[(evaluation.candidate, *_how(evaluation))] = record
        self._remember_latency(record)

    def _remember_latency(self, record: Record) -> None:
        if record.evaluation.latency_ms is not None:
            self._latencies.setdefault(record.candidate.architecture, record.evaluation.latency_ms)


def _open(storage: BaseStorage, name: str, objectives: Objectives) -> optuna.Study:
    # Loaded where it exists: `load_if_exists` would append a refused line to the journal each time.
    study = find_study(storage, name)
    if study is None:
        study = optuna.create_study(study_name=name, storage=storage, directions=objectives.directions)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)
            study.set_metric_names([*objectives.costs, SCORE])  # for optuna-dashboard
    return study


def _is_proposal(trial: FrozenTrial) -> bool:
    record = trial.user_attrs.get("record")
    if "dead" in trial.user_attrs or record is None:
        return "dead" not in trial.user_attrs
    return _is_searched(record)


def _is_searched(record: dict[str, Any]) -> bool:
    """What a finished search adds to the rung, controls and careful re-fits, nobody proposed."""
    searched = record["evaluation"]["method"] in SEARCHED.values()
    return searched and not record["origin"].startswith("control")


def _how(evaluation: Evaluation) -> tuple[int, str, int]:
    return evaluation.rung, evaluation.method, evaluation.seed
