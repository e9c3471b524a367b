"""A run on the fake problem in a process of its own, which kills itself with SIGKILL at a chosen point."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
from deadly import kill_at
from fake_problem import CRITERIA, FakeEvaluator, make_encoding, make_problem

import search.drive
from search.config import RunConfig
from search.finish import NotedScores
from search.journal import driver_lock
from search.limits import Budget
from search.problem import Clock
from search.progress import Silent
from search.samplers import population
from search.seeds import num_targets
from search.storage import storage_of
from search.study import Book

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: Where a kill can strike: object, attribute, and whether the call is finished first.
POINTS = {
    "between-parameters": (optuna.trial.Trial, "_suggest", True),
    "after-ask": (Book, "ask", True),
    "in-evaluation": (FakeEvaluator, "evaluate", False),
    "between-result-and-tell": (Book, "_attach", True),
    "after-tell": (Book, "tell", True),
    "at-promotion": (Book, "add", False),
    "after-promotion": (Book, "add", True),
    "on-test": (FakeEvaluator, "test_score", True),
    "after-a-noted-score": (NotedScores, "noted", True),
    "saving-the-front": (search.finish, "write_architecture", True),
    "before-report": (search.drive, "write_report", False),
    "after-report": (search.drive, "write_report", True),
}


def main(folder: Path, budget: str, max_rung: int, storage: str | None) -> None:
    if (folder / "config.json").exists():
        config = replace(RunConfig.load(folder), budget=budget)
    else:
        folder.mkdir(parents=True)
        spend = Budget.parse(budget)
        config = RunConfig(
            budget=budget,
            final=3,
            criteria=CRITERIA,
            num_targets=num_targets(spend),
            population=population(spend),
            max_rung=max_rung,
            storage=storage,
            run_name=folder.name,
        )
    config.save(folder)
    record = storage_of(folder, config)
    with record.lock(), driver_lock(folder):
        problem = make_problem(calls=folder / "calls.txt")
        search.drive.drive(problem, config, make_encoding(), folder, Silent(), Clock(), storage=record)


def start(
    folder: Path,
    budget: str,
    max_rung: int,
    kill: tuple[str, int] | None,
    storage: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> None:
    """Entry point of the process; the server that forks it may have started with another environment."""
    os.environ.update(environment or {})
    if kill:
        owner, name, finished_first = POINTS[kill[0]]
        kill_at(owner, name, kill[1], finished_first=finished_first)
    main(folder, budget, max_rung, storage)
