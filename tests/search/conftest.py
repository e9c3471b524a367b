from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from fake_problem import CRITERIA, make_encoding, make_problem

from search.config import RunConfig
from search.drive import drive
from search.limits import Budget
from search.problem import Clock
from search.progress import Silent
from search.samplers import population
from search.seeds import num_targets

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def run_fake(tmp_path: Path):
    """Runs a search on the fake problem in ``folder`` with settings, and returns result and evaluator."""

    def run(
        folder: str | Path = "run", *, problem=None, encoding=None, progress=None, execute=None, **settings
    ):
        path = tmp_path / folder
        path.mkdir(exist_ok=True)
        budget = Budget.parse(settings.setdefault("budget", "12"))
        defaults = {
            "final": 2,
            "criteria": CRITERIA,
            "num_targets": num_targets(budget),
            "population": population(budget),
        }
        config = RunConfig(**defaults | settings)
        config.save(path)
        problem = problem or make_problem()
        encoding = encoding or make_encoding(problem.space)
        making = {} if execute is None else {"execute": execute}
        result = drive(problem, config, encoding, path, progress or Silent(), Clock(), **making)
        return result, problem.evaluator, path

    return run
