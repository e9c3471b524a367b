"""SIGKILL anywhere, then the same again: nothing finished is lost or repeated, and the result is equal."""

from __future__ import annotations

import json
import multiprocessing.forkserver
import os
import signal
import sys
from collections import Counter
from typing import TYPE_CHECKING

import driver
import pytest

from search.record import read_evaluations

if TYPE_CHECKING:
    from pathlib import Path

BUDGET = "12"
KILLED = -signal.SIGKILL

FRESH = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """Start the server that has imported everything; it finds modules by its environment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        FRESH.set_forkserver_preload(["driver"])
        multiprocessing.forkserver.ensure_running()


#: Point and number of the call: chosen to fall into seeds, search, promotion, finals and the end.
KILLS = [
    ("between-parameters", 18),
    ("after-ask", 3),
    ("in-evaluation", 5),
    ("between-result-and-tell", 7),
    ("after-tell", 8),
    ("at-promotion", 2),
    ("after-promotion", 3),
    ("in-evaluation", 14),
    ("in-evaluation", 25),
    ("after-a-noted-score", 4),
    ("saving-the-front", 2),
    ("before-report", 1),
    ("after-report", 1),
]


def drive(folder: Path, kill: tuple[str, int] | None = None, max_rung: int = 3, budget: str = BUDGET) -> int:
    """Run in a new process, forked from a server that has imported everything."""
    process = FRESH.Process(target=driver.start, args=(folder, budget, max_rung, kill))
    process.start()
    process.join()
    assert process.exitcode in (0, KILLED)
    return process.exitcode


def facts(folder: Path) -> tuple[dict, list]:
    front = json.loads((folder / "front.json").read_text())
    del front["seconds"]
    return front, read_evaluations(folder)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert drive(folder) == 0
    return folder


@pytest.mark.parametrize(("point", "count"), KILLS, ids=lambda value: str(value))
def test_a_killed_run_ends_as_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path, point: str, count: int
) -> None:
    folder = tmp_path / "run"
    assert drive(folder, (point, count)) == KILLED
    before = {record.evaluation for record in read_evaluations(folder)}
    assert drive(folder) == 0
    front, records = facts(folder)
    expected_front, expected_records = facts(undisturbed)
    assert front == expected_front
    assert records == expected_records
    assert before <= {record.evaluation for record in records}
    _assert_nothing_repeated(folder, before)


def _assert_nothing_repeated(folder: Path, before: set) -> None:
    """What was recorded before the kill was evaluated once; the one in flight at most twice."""
    calls = Counter((folder / "calls.txt").read_text().split("\n"))
    recorded = {f"{e.candidate} {e.rung} {e.method} {e.seed}" for e in before}
    assert {key: calls[key] for key in recorded} == dict.fromkeys(recorded, 1)
    assert sum(calls.values()) <= len(calls) + 1


def test_a_run_killed_again_and_again_ends_as_an_undisturbed_one(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for point, count in (("between-parameters", 3), ("in-evaluation", 4), ("between-parameters", 7)):
        assert drive(folder, (point, count)) == KILLED
    assert drive(folder) == 0
    assert facts(folder) == facts(undisturbed)


def test_a_killed_run_on_rung_1_alone_keeps_its_weights(tmp_path: Path) -> None:
    assert drive(tmp_path / "whole", max_rung=1) == 0
    for point, count in (("in-evaluation", 6), ("on-test", 2)):
        assert drive(tmp_path / "killed", (point, count), max_rung=1) == KILLED
    assert drive(tmp_path / "killed", max_rung=1) == 0
    assert facts(tmp_path / "killed") == facts(tmp_path / "whole")
