"""A run on the fake problem in a process of its own, which kills itself with SIGKILL at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import optuna
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
from search.study import Book

if TYPE_CHECKING:
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


def kill_at(point: str, count: int) -> None:
    owner, name, finished_first = POINTS[point]
    original, calls = getattr(owner, name), iter(range(1, sys.maxsize))

    def deadly(*args, **kwargs):
        number = next(calls)
        result = original(*args, **kwargs) if number < count or finished_first else None
        if number == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)


def main(folder: Path, budget: str, max_rung: int) -> None:
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
        )
    config.save(folder)
    with driver_lock(folder):
        problem = make_problem(calls=folder / "calls.txt")
        search.drive.drive(problem, config, make_encoding(), folder, Silent(), Clock())


def start(folder: Path, budget: str, max_rung: int, kill: tuple[str, int] | None) -> None:
    """Entry point of the process."""
    if kill:
        kill_at(*kill)
    main(folder, budget, max_rung)
