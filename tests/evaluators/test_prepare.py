from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from toys import PLAIN, same_state, state, toy_task

from evaluators.calibration import calibration_batches
from evaluators.options import OptionError
from evaluators.prepare import Prepared, check_criteria, prepare, train_dense
from evaluators.scoring import evaluate
from evaluators.task import Task, TensorLoader
from spaces import Space, trace

if TYPE_CHECKING:
    from pathlib import Path

    from evaluators.precision import Precision

#: The module: the package offers the function of this name.
module = importlib.import_module("evaluators.prepare")

ALL = ("l1", "l2", "bn_scale", "taylor", "random")


def traced(task: Task) -> Space:
    return trace(task.model, task.example_inputs)


def prepared(
    folder: Path, task: Task | None = None, criteria: tuple[str, ...] = ALL, seed: int = 0
) -> Prepared:
    task = task or toy_task()
    return prepare(task, traced(task), PLAIN, seed=seed, folder=folder, criteria=criteria)


class Forbidden:
    def __call__(self, *_: object, **__: object) -> None:
        raise AssertionError("computed anew")


def test_every_group_has_every_score(tmp_path: Path) -> None:
    found = prepared(tmp_path)
    assert {name: {c: len(s) for c, s in scores.items()} for name, scores in found.scores.items()} == {
        "conv1": dict.fromkeys(ALL, 6),
        "conv2": dict.fromkeys(ALL, 4),
    }
    assert found.criteria_for("conv2") == ALL
    assert found.warnings == ()
    task = toy_task()
    torch.testing.assert_close(
        found.scores["conv2"]["l1"], task.model.conv2.weight.detach().double().abs().sum(dim=(1, 2, 3))
    )
    assert found.dense_score == evaluate(task.model, task, task.holdout, PLAIN)


def test_the_model_is_left_as_it_was(tmp_path: Path) -> None:
    task = toy_task()
    before = state(task.model)
    prepared(tmp_path, task)
    assert same_state(before, state(task.model))


def test_a_second_start_reads_the_scores_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = prepared(tmp_path)
    monkeypatch.setattr(module, "score", Forbidden())
    monkeypatch.setattr(module, "evaluate", Forbidden())
    again = prepared(tmp_path)
    assert again.dense_score == first.dense_score
    for name, scores in first.scores.items():
        assert all(torch.equal(scores[c], again.scores[name][c]) for c in ALL)
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("change", ["weights", "criteria", "seed"])
def test_a_stale_cache_is_never_used(tmp_path: Path, change: str) -> None:
    prepared(tmp_path)
    task = toy_task(1) if change == "weights" else toy_task()
    criteria = ("l1", "random") if change == "criteria" else ALL
    seed = int(change == "seed")
    wanted = prepared(tmp_path / "..", task, criteria, seed)
    found = prepared(tmp_path, task, criteria, seed)
    assert found.criteria_for("conv1") == criteria
    for criterion in criteria:
        assert torch.equal(found.scores["conv1"][criterion], wanted.scores["conv1"][criterion])


def test_gradients_are_gathered_only_when_a_criterion_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "gather_gradients", Forbidden())
    prepared(tmp_path, criteria=("l1", "bn_scale"))
    with pytest.raises(AssertionError, match="computed anew"):
        prepared(tmp_path, criteria=("taylor",))


class HalfNormed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(36, 8), nn.BatchNorm1d(8)
        self.second, self.head = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.second(torch.relu(self.norm(self.first(x.flatten(1)))))))


def test_a_criterion_that_does_not_apply_is_left_out_with_a_warning(tmp_path: Path) -> None:
    task = toy_task(model=HalfNormed())
    found = prepared(tmp_path, task, ("l1", "bn_scale"))
    assert found.criteria_for("first") == ("l1", "bn_scale")
    assert found.criteria_for("second") == ("l1",)
    assert found.warnings == ("Criterion 'bn_scale' does not apply to second and is left out there.",)


def test_a_group_without_any_criterion_is_refused_before_and_while_scoring(tmp_path: Path) -> None:
    task = toy_task(model=HalfNormed())
    refusal = pytest.raises(OptionError, match=r"^--criterion bn_scale: does not apply to second; allow l1")
    with refusal:
        check_criteria(task, traced(task), ("bn_scale",))
    with refusal:
        prepared(tmp_path, task, ("bn_scale",))
    check_criteria(task, traced(task), ("bn_scale", "random"))


def test_an_unknown_criterion_gets_the_nearest_name(tmp_path: Path) -> None:
    with pytest.raises(
        OptionError, match=r"^--criterion 'bnscale': unknown criterion; did you mean bn_scale\?"
    ):
        prepared(tmp_path, criteria=("bnscale",))


def test_the_dense_network_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, steps = toy_task(pretrained=False), []
    train_dense(task, PLAIN, seed=0, folder=tmp_path, on_step=lambda *step: steps.append(step))
    assert steps[-1] == (24, 24)
    assert evaluate(task.model, task, task.holdout, PLAIN) > 0.7
    monkeypatch.setattr(module, "train", Forbidden())
    again = toy_task(pretrained=False)
    train_dense(again, PLAIN, seed=0, folder=tmp_path)
    assert same_state(state(task.model), state(again.model))
    with pytest.raises(AssertionError, match="computed anew"):
        train_dense(toy_task(pretrained=False), PLAIN, seed=1, folder=tmp_path)


def test_a_pretrained_network_is_not_trained(tmp_path: Path) -> None:
    task = toy_task()
    before = state(task.model)
    train_dense(task, PLAIN, seed=0, folder=tmp_path)
    assert same_state(before, state(task.model))
    assert not list(tmp_path.iterdir())


def test_an_interrupted_training_leaves_nothing_behind_that_is_used(tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_dense(toy_task(pretrained=False), PLAIN, seed=0, folder=tmp_path, on_step=interrupt)
    resumed, undisturbed = toy_task(pretrained=False), toy_task(pretrained=False)
    train_dense(resumed, PLAIN, seed=0, folder=tmp_path)
    (tmp_path / "other").mkdir()
    train_dense(undisturbed, PLAIN, seed=0, folder=tmp_path / "other")
    assert same_state(state(resumed.model), state(undisturbed.model))


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
