"""SIGKILL at ten places of a real search on digits: the resumed run ends as the undisturbed one."""

from __future__ import annotations

import json
import multiprocessing.forkserver
import os
import signal
import sys
from typing import TYPE_CHECKING

import digits_driver
import pytest

from search.record import read_evaluations

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ("--budget", "8", "--final", "2", "--epochs", "3", "--seed", "4")

FRESH = multiprocessing.get_context("forkserver")

#: Place and number of the call. A brief fine-tune takes 3 steps here, a final one 12, the dense network 39.
KILLS = [
    ("in-a-training-step", 20),  # dense training
    ("between-parameters", 20),
    ("in-sweep", 1),
    ("in-refit", 4),  # rung 1
    ("after-tell", 6),
    ("at-promotion", 1),
    ("in-a-training-step", 48),  # rung 2
    ("after-promotion", 2),
    ("in-a-training-step", 150),  # finals
    ("between-weights-and-record", 5),
    ("between-training-and-record", 4),
    ("saving-the-front", 1),
    ("before-report", 1),
    ("in-report", 2),
]


@pytest.fixture(scope="module", autouse=True)
def _server() -> None:
    """Start the server that has imported everything; it finds modules by its environment only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        FRESH.set_forkserver_preload(["digits_driver"])
        multiprocessing.forkserver.ensure_running()


def run(folder: Path, *options: str, kill: tuple[str, int] | None = None) -> int | None:
    process = FRESH.Process(target=digits_driver.start, args=(["--out", str(folder), *options], kill))
    process.start()
    process.join()
    return process.exitcode


def checkpoints(folder: Path) -> list[Path]:
    return sorted((folder / "trainings").glob("*.safetensors"))


def facts(folder: Path) -> tuple[object, set[tuple[object, ...]]]:
    """Front and evaluations without what a clock measured."""
    front = json.loads((folder / "front.json").read_text())
    del front["seconds"]
    return front, set(map(worth, read_evaluations(folder)))


def worth(record: object) -> tuple[object, ...]:
    e = record.evaluation
    return e.candidate, e.rung, e.method, e.seed, e.score, e.macs, e.params, record.origin


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    assert run(folder, *SETTINGS) == 0
    return folder


@pytest.mark.parametrize(("place", "count"), KILLS, ids=lambda value: str(value))
def test_a_killed_search_on_digits_ends_as_an_undisturbed_one(
    undisturbed: Path, tmp_path: Path, place: str, count: int
) -> None:
    folder = tmp_path / "run"
    assert run(folder, *SETTINGS, kill=(place, count)) == -signal.SIGKILL
    before = read_evaluations(folder)
    assert len(checkpoints(folder)) == (place in digits_driver.TRAINING)
    assert run(folder, "--resume") == 0
    after = read_evaluations(folder)
    assert facts(folder) == facts(undisturbed)
    went_on = "training goes on after step" in (folder / "run.log").read_text()
    assert went_on == (place in digits_driver.TRAINING)
    assert not (folder / "trainings").exists()
    # Seconds tell a repeated evaluation from the recorded one.
    assert {record.evaluation for record in before} <= {record.evaluation for record in after}
    assert len(after) == len({(worth(record)[:4]) for record in after})


def test_a_larger_budget_extends_a_finished_run(undisturbed: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert run(folder, *SETTINGS) == 0
    before = read_evaluations(folder)
    assert run(folder, "--resume", "--budget", "14") == 0
    after = read_evaluations(folder)
    assert {record.evaluation for record in before} < {record.evaluation for record in after}
    assert sum(record.evaluation.rung == 1 for record in after) == 14
    assert facts(folder)[1] > facts(undisturbed)[1]
