"""The record: one plain Optuna journal that a dead driver leaves in any state."""

from __future__ import annotations

import json

import optuna
import pytest
from fake_problem import make_encoding, make_problem

from evaluators.options import OptionError
from search.journal import JOURNAL, driver_lock, mend_journal, open_journal
from search.record import Record, read_evaluations
from search.samplers import FixedSampler
from search.seeds import opening
from search.study import Book


@pytest.fixture
def encoding():
    return make_encoding()


@pytest.fixture
def seeds(encoding):
    return [FixedSampler(encoding.params(s.architecture, s.criterion)) for s in opening(encoding, 3, 0)]


def evaluated(encoding, proposal, rung=1, method="refit") -> Record:
    candidate = encoding.candidate(proposal.params)
    outcome = make_problem(encoding.space).evaluator.evaluate(candidate, rung=rung, method=method, seed=0)
    widths = dict(candidate.architecture.items)
    return Record(outcome.evaluation, "seed: uniform", widths, dict(candidate.chosen))


def reopened(tmp_path, encoding) -> Book:
    mend_journal(tmp_path)
    return Book(open_journal(tmp_path), encoding.distributions)


def test_what_is_told_can_be_read_from_the_folder_alone(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    first, second = book.ask(seeds[0]), book.ask(seeds[1])
    records = [evaluated(encoding, first), evaluated(encoding, second)]
    for proposal, record in zip((first, second), records, strict=True):
        book.tell(proposal, record)
    climbed = evaluated(encoding, second, rung=2, method="finetune")
    book.add(climbed, second.params)
    assert read_evaluations(tmp_path) == [*records, climbed]
    assert [record.candidate.id for record in records] == [record.evaluation.candidate for record in records]


def test_optuna_reads_the_journal_as_a_study_for_each_rung(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    proposal = book.ask(seeds[0])
    record = evaluated(encoding, proposal)
    book.tell(proposal, record)
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend(str(tmp_path / JOURNAL))
    )
    assert optuna.get_all_study_names(storage) == ["rung-1", "rung-2", "rung-3"]
    study = optuna.load_study(study_name="rung-1", storage=storage)
    assert study.trials[0].values == [record.evaluation.macs, record.evaluation.score]
    assert study.directions == [optuna.study.StudyDirection.MINIMIZE, optuna.study.StudyDirection.MAXIMIZE]


def test_telling_twice_changes_nothing(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    proposal = book.ask(seeds[0])
    for _ in range(2):
        book.tell(proposal, evaluated(encoding, proposal))
    assert len(book.records(1)) == len(read_evaluations(tmp_path)) == 1


def test_a_running_trial_is_adopted_with_its_number(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    done = book.ask(seeds[0])
    book.tell(done, evaluated(encoding, done))
    running = book.ask(seeds[1])
    assert reopened(tmp_path, encoding).recover() == [running]


def test_a_trial_that_died_between_its_parameters_is_asked_anew_with_the_same_number(
    tmp_path, encoding, seeds, monkeypatch
) -> None:
    book = reopened(tmp_path, encoding)
    with monkeypatch.context() as patch:
        patch.setattr(
            FixedSampler, "sample_independent", lambda self, *rest: _dies_at("keep:layer2", self, rest)
        )
        with pytest.raises(KeyboardInterrupt):
            book.ask(seeds[0])
    after = reopened(tmp_path, encoding)
    assert after.recover() == []
    again = after.ask(seeds[0])
    assert (again.number, again.trial) == (0, 1)
    assert after.recover() == [again]


def _dies_at(parameter: str, sampler: FixedSampler, arguments: tuple) -> float | str:
    if arguments[2] == parameter:
        raise KeyboardInterrupt
    return sampler._params[arguments[2]]


def test_half_a_line_at_the_end_is_dropped_before_the_next_append(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    first = book.ask(seeds[0])
    book.tell(first, evaluated(encoding, first))
    whole = (tmp_path / JOURNAL).read_bytes()
    with (tmp_path / JOURNAL).open("ab") as file:
        file.write(b'{"op_code":4,"worker')
    assert len(read_evaluations(tmp_path)) == 1
    mend_journal(tmp_path)
    assert (tmp_path / JOURNAL).read_bytes() == whole
    after = reopened(tmp_path, encoding)
    second = after.ask(seeds[1])
    after.tell(second, evaluated(encoding, second))
    assert all(json.loads(line) for line in (tmp_path / JOURNAL).read_text().splitlines())
    assert len(read_evaluations(tmp_path)) == 2


def test_the_lock_of_a_dead_driver_is_removed(tmp_path, encoding) -> None:
    reopened(tmp_path, encoding)
    lock = tmp_path / f"{JOURNAL}.lock"
    lock.symlink_to(tmp_path / JOURNAL)
    mend_journal(tmp_path)
    assert not lock.is_symlink()


def test_a_second_driver_is_refused(tmp_path) -> None:
    with (
        driver_lock(tmp_path),
        pytest.raises(OptionError, match=rf"^--out {tmp_path}: another process is running there"),
        driver_lock(tmp_path),
    ):
        pass
    with driver_lock(tmp_path):
        pass


def test_duplicates_and_refused_proposals_are_no_evaluations(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    first = book.ask(seeds[0])
    record = evaluated(encoding, first)
    book.tell(first, record)
    book.tell_duplicate(book.ask(seeds[0]), record.evaluation.candidate)
    book.tell_refused(book.ask(seeds[1]), "outside")
    assert (book.num_fruitless(), book.num_proposals()) == (2, 3)
    assert read_evaluations(tmp_path) == [record]
    after = reopened(tmp_path, encoding)
    assert (after.num_fruitless(), after.num_proposals()) == (2, 3)
    study = optuna.load_study(study_name="rung-1", storage=open_journal(tmp_path))
    assert study.trials[1].values == [record.evaluation.macs, record.evaluation.score]


def test_failures_keep_their_traceback_over_a_restart(tmp_path, encoding, seeds) -> None:
    book = reopened(tmp_path, encoding)
    book.tell_failed(book.ask(seeds[0]), "abc", "Traceback: division by zero")
    book.add_failure(2, "def", "Traceback: out of memory")
    after = reopened(tmp_path, encoding)
    assert after.failures(1) == {"abc": "Traceback: division by zero"}
    assert after.failures(2) == {"def": "Traceback: out of memory"}


def test_notes_survive_a_restart(tmp_path, encoding) -> None:
    reopened(tmp_path, encoding).note("test dense", 0.75)
    assert reopened(tmp_path, encoding).noted("test dense") == 0.75
    assert reopened(tmp_path, encoding).noted("nothing") is None
