"""Sweeps on a Ray cluster with a fake evaluator: the same study as here, whatever happens to workers."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import ray_fixtures
from fake_problem import CRITERIA, make_encoding, make_problem
from ray_problem import FakePlan

from search.jobs import NothingSucceededError
from search.journal import open_journal
from search.progress import Silent
from search.ray_cluster.executor import RayExecutor
from search.ray_cluster.resources import Resources
from search.record import read_evaluations
from search.study import Book

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = {"budget": "18", "final": 2}


class Heard(Silent):
    def __init__(self) -> None:
        self.lines, self.fleets = [], []

    def say(self, line):
        self.lines.append(line)

    def fleet(self, fleet):
        self.fleets.append(fleet)


@pytest.fixture(scope="module")
def nodes():
    with ray_fixtures.cluster(2) as made:
        yield made


@pytest.fixture(scope="module")
def local(tmp_path_factory):
    """Records of an undisturbed run in this process."""
    from search.config import RunConfig
    from search.drive import drive
    from search.limits import Budget
    from search.problem import Clock
    from search.samplers import population
    from search.seeds import num_targets

    folder = tmp_path_factory.mktemp("local")
    budget = Budget.parse(SETTINGS["budget"])
    sizes = {"num_targets": num_targets(budget), "population": population(budget)}
    config = RunConfig(**SETTINGS, **sizes, criteria=CRITERIA)
    config.save(folder)
    drive(make_problem(), config, make_encoding(), folder, Silent(), Clock())
    return folder


def executor(folder: Path, plan: FakePlan, **options) -> RayExecutor:
    return RayExecutor(plan, dict.fromkeys((1, 2, 3), Resources(1)), folder / "cluster", **options)


def facts(folder: Path):
    front = json.loads((folder / "front.json").read_text())
    del front["seconds"]
    return front, read_evaluations(folder)


def keys(folder: Path):
    """Of every evaluation on record."""
    found = [r.evaluation for r in read_evaluations(folder)]
    return [f"{e.candidate}-{e.rung}-{e.method}-{e.seed}" for e in found]


@pytest.mark.usefixtures("nodes")
def test_one_worker_gives_the_study_of_the_local_executor(run_fake, local, tmp_path) -> None:
    heard = Heard()
    plan = FakePlan(tmp_path)
    _, evaluator, folder = run_fake(**SETTINGS, execute=executor(tmp_path, plan, workers=1), progress=heard)
    assert facts(folder) == facts(local)
    assert evaluator.evaluated == []
    assert {fleet.nodes for fleet in heard.fleets} == {2}
    assert max(fleet.running for fleet in heard.fleets) == 1
    assert not list(tmp_path.rglob("*.pkl"))
    assert not (tmp_path / "cluster").exists()


@pytest.mark.usefixtures("nodes")
def test_what_loggers_of_tune_wrote_stays_and_nothing_else(run_fake, tmp_path) -> None:
    from ray.tune.logger import CSVLoggerCallback, JsonLoggerCallback

    callbacks = (CSVLoggerCallback(), JsonLoggerCallback())
    work = executor(tmp_path, FakePlan(tmp_path), callbacks=callbacks)
    _, _, folder = run_fake(budget="3", final=1, max_rung=1, execute=work)
    left = {str(path.relative_to(tmp_path / "cluster")) for path in (tmp_path / "cluster").rglob("*.*")}
    files = ("params.json", "progress.csv", "result.json")
    assert left == {f"tune/{name}/{file}" for name in keys(folder) for file in files}


@pytest.mark.usefixtures("nodes")
def test_several_workers_evaluate_nothing_twice(run_fake, tmp_path) -> None:
    heard = Heard()
    plan = FakePlan(tmp_path, slow=0.05)
    result, _, folder = run_fake(**SETTINGS, execute=executor(tmp_path, plan), progress=heard)
    calls = Counter((tmp_path / "calls.txt").read_text().split())
    assert set(calls.values()) == {1}
    assert sorted(calls) == sorted(keys(folder))
    assert result.counts["rung-1"] == 18
    assert max(fleet.running for fleet in heard.fleets) == 2


@pytest.mark.usefixtures("nodes")
def test_misdeeds_are_recorded_with_their_reasons_and_nothing_else_is_lost(run_fake, local, tmp_path) -> None:
    victims = [r.evaluation.candidate for r in read_evaluations(local) if r.evaluation.rung == 1]
    names = ("raises", "hangs", "gives_nan", "runs_out_of_memory", "dies_once", "dies_always")
    # Seeds of the opening do not depend on what was found before.
    misdeeds = dict(zip(victims[1:], names, strict=False))
    plan = FakePlan(tmp_path, misdeeds)
    work = executor(tmp_path, plan, timeout=3.0, retries=1)
    _, _, folder = run_fake(**SETTINGS, execute=work)
    done = {r.evaluation.candidate for r in read_evaluations(folder) if r.evaluation.rung == 1}
    by_name = {name: candidate for candidate, name in misdeeds.items()}
    assert done & set(misdeeds) == {by_name["dies_once"]}
    failures = Book(open_journal(folder), make_encoding().distributions).failures(1)
    assert set(failures) == set(misdeeds) - {by_name["dies_once"]}
    said = {
        name: failures[candidate].splitlines()[-1]
        for name, candidate in by_name.items()
        if name != "dies_once"
    }
    assert said["raises"] == "ArithmeticError: told to fail"
    assert "took longer than --timeout 3 s" in failures[by_name["hangs"]]
    assert "FloatingPointError" in said["gives_nan"]
    assert "MemoryError" in said["runs_out_of_memory"]
    assert "died" in said["dies_always"]
    calls = Counter((tmp_path / "calls.txt").read_text().split())
    again = {name for name, count in calls.items() if count > 1}
    assert {name.partition("-")[0] for name in again} == {by_name["dies_once"], by_name["dies_always"]}
    assert len(keys(folder)) == len(set(keys(folder)))
    assert not (tmp_path / "cluster").exists()


@pytest.mark.usefixtures("nodes")
def test_an_evaluation_that_asks_to_exit_has_failed_and_its_worker_stays(run_fake, local, tmp_path) -> None:
    victim = next(r.evaluation.candidate for r in read_evaluations(local) if r.evaluation.rung == 1)
    plan = FakePlan(tmp_path, {victim: "exits"})
    _, _, folder = run_fake(**SETTINGS, execute=executor(tmp_path, plan, retries=0))
    failures = Book(open_journal(folder), make_encoding().distributions).failures(1)
    assert [trace.splitlines()[-1] for trace in failures.values()] == ["SystemExit: told to exit"]


@pytest.mark.usefixtures("nodes")
def test_where_everything_fails_the_run_gives_up(run_fake, local, tmp_path) -> None:
    victims = {r.evaluation.candidate for r in read_evaluations(local) if r.evaluation.rung == 1}
    plan = FakePlan(tmp_path, dict.fromkeys(victims, "raises"))
    with pytest.raises(NothingSucceededError, match=r"rung 1: \d+ failed, .*told to fail$"):
        run_fake(**SETTINGS, execute=executor(tmp_path, plan))


@pytest.mark.usefixtures("nodes")
def test_rungs_may_need_different_resources(run_fake, local, tmp_path) -> None:
    work = replace(
        executor(tmp_path, FakePlan(tmp_path), workers=1),
        resources={1: Resources(0.5), 2: Resources(0.5), 3: Resources(1)},
    )
    _, _, folder = run_fake(**SETTINGS, execute=work)
    assert facts(folder) == facts(local)


@pytest.mark.usefixtures("nodes")
def test_a_worker_that_dies_idle_costs_no_candidate(run_fake, local, tmp_path) -> None:
    victims = [r.evaluation.candidate for r in read_evaluations(local) if r.evaluation.rung == 1]
    plan = FakePlan(tmp_path, dict.fromkeys(victims[2:4], "dies_afterwards"))
    _, _, folder = run_fake(**SETTINGS, execute=executor(tmp_path, plan, workers=1, retries=1))
    assert facts(folder) == facts(local)


@pytest.mark.usefixtures("nodes")
def test_a_driver_that_can_not_record_stops_at_once(run_fake, tmp_path, monkeypatch) -> None:
    def full(*_):
        raise OSError("no space left on the device")

    monkeypatch.setattr(Book, "tell", full)
    plan = FakePlan(tmp_path, slow=2.0)
    with pytest.raises(OSError, match="no space left"):
        run_fake(**SETTINGS, execute=executor(tmp_path, plan))
    assert len((tmp_path / "ends.txt").read_text().split()) <= 2
    assert not list(tmp_path.rglob("*.pkl"))
    assert not (tmp_path / "cluster" / "tune").exists()


@pytest.mark.usefixtures("nodes")
def test_processes_share_a_training(run_fake, tmp_path) -> None:
    work = replace(
        executor(tmp_path, FakePlan(tmp_path)),
        resources={1: Resources(1), 2: Resources(2, workers=2)},
    )
    result, _, folder = run_fake(budget="3", final=1, max_rung=2, execute=work)
    assert result.counts["rung-2"] >= 1
    calls = Counter((tmp_path / "calls.txt").read_text().split())
    trained = [name for name in keys(folder) if "-2-" in name]
    assert {calls[name] for name in trained} == {2}
    assert not (tmp_path / "cluster").exists()
