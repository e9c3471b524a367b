"""On a real, trained network every criterion has an opinion of its own."""

from __future__ import annotations

import os
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from evaluators.criteria import CRITERIA, keep_order
from evaluators.precision import Precision
from evaluators.prepare import Prepared, prepare
from evaluators.task import TensorLoader
from evaluators.tasks import TaskOptions, load_task
from spaces import trace

if TYPE_CHECKING:
    from spaces import Space

DATA = os.environ.get("ESPALIER_DATA")
pytestmark = pytest.mark.skipif(
    DATA is None, reason="ESPALIER_DATA names no folder with CIFAR-10 and weights"
)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Space, Prepared]:
    assert DATA is not None
    options = TaskOptions(
        model="resnet20",
        weights=Path(DATA) / "weights" / "resnet20-12fca82f.th",
        data_root=Path(DATA),
        holdout="test:0.5",
    )
    task = load_task("cifar10", options)
    few = [torch.cat(parts) for parts in zip(*list(task.calibration)[:2], strict=True)]
    task = replace(task, calibration=TensorLoader(*few, 128), holdout=TensorLoader(*few, 128))
    space = trace(task.model, task.example_inputs, divisor=8)
    folder = tmp_path_factory.mktemp("run")
    return space, prepare(task, space, Precision(), seed=0, folder=folder, criteria=list(CRITERIA))


def test_every_criterion_applies_to_every_group(prepared: tuple[Space, Prepared]) -> None:
    space, found = prepared
    assert {name: set(scores) for name, scores in found.scores.items()} == {
        group.name: set(CRITERIA) for group in space.groups
    }
    assert not found.warnings


@pytest.mark.parametrize(("one", "other"), combinations(CRITERIA, 2))
def test_no_two_criteria_agree_on_all_layers(prepared: tuple[Space, Prepared], one: str, other: str) -> None:
    _, found = prepared
    orders = [
        [keep_order(scores[name]).tolist() for name in (one, other)] for scores in found.scores.values()
    ]
    assert not all(first == second for first, second in orders)


def test_curves_fall_and_end_at_nothing(prepared: tuple[Space, Prepared]) -> None:
    _, found = prepared
    for curve in found.curves.values():
        assert curve[-1] == 0
        assert (curve.diff() <= 1e-9).all()
