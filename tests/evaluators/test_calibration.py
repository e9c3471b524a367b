from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor
from toys import PLAIN, toy_task

from evaluators.calibration import calibration_batches
from evaluators.task import Task, TensorLoader

if TYPE_CHECKING:
    from evaluators.precision import Precision


def batches(task: Task, precision: Precision = PLAIN) -> list[tuple[Tensor, Tensor]]:
    return list(calibration_batches(task, precision))


def test_calibration_reads_a_small_loader_once() -> None:
    task = toy_task()
    held = calibration_batches(task, PLAIN)
    assert all(one[0] is two[0] for one, two in zip(held, held, strict=True))
    assert [len(y) for _, y in held] == [16] * 4


def test_calibration_streams_a_large_loader(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = batches(toy_task())
    monkeypatch.setattr("evaluators.calibration.MEMORY_BYTES", 5000)
    streamed = calibration_batches(toy_task(), PLAIN)
    for _ in range(2):
        for (x, y), (wanted_x, wanted_y) in zip(streamed, wanted, strict=True):
            assert torch.equal(x, wanted_x)
            assert torch.equal(y, wanted_y)


def test_a_streamed_loader_that_shuffles_gives_the_same_batches_and_leaves_random_state_alone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluators.calibration.MEMORY_BYTES", 500)
    loader = TensorLoader(torch.randn(64, 1, 6, 6), torch.zeros(64, dtype=torch.long), 16, shuffle=True)
    streamed = calibration_batches(toy_task(calibration=loader), PLAIN)
    assert not isinstance(streamed, list)
    before = torch.get_rng_state()
    first, again = list(streamed), list(streamed)
    assert len(first) == 4
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_without_a_calibration_loader_the_first_training_batches_serve(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("evaluators.calibration.SAMPLES", 40)
    torch.manual_seed(1)
    first = batches(toy_task(calibration=None))
    torch.manual_seed(2)
    before = torch.get_rng_state()
    again = batches(toy_task(calibration=None))
    assert [len(y) for _, y in first] == [16, 16, 16]
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(first, again, strict=True))
    assert torch.equal(before, torch.get_rng_state())


def test_a_last_batch_of_one_is_left_out_and_no_batch_is_an_error() -> None:
    images, targets = torch.zeros(17, 1, 6, 6), torch.zeros(17, dtype=torch.long)
    assert [len(y) for _, y in batches(toy_task(calibration=TensorLoader(images, targets, 8)))] == [8, 8]
    assert [len(y) for _, y in batches(toy_task(calibration=TensorLoader(images[:2], targets[:2], 1)))] == [
        1,
        1,
    ]
    with pytest.raises(ValueError, match="no batch to calibrate on"):
        batches(toy_task(calibration=TensorLoader(images[:0], targets[:0], 8)))
