"""A training that is interrupted anywhere ends bit for bit as an undisturbed one."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from toys import PLAIN, Toy, same_state, state, toy_data, toy_task

from evaluators import checkpoint as module
from evaluators.candidate import Candidate
from evaluators.checkpoint import CheckpointFolder, FileCheckpoints, State
from evaluators.ladder import Ladder
from evaluators.prepare import prepare, train_dense
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.train import _key, train
from spaces import Architecture, trace

if TYPE_CHECKING:
    from pathlib import Path

    from evaluators.precision import Precision

STEPS = 15  # two and a half epochs of six batches


class KillError(Exception):
    """Stands for a kill: what is not in the file is gone."""


class Kept:
    """Checkpoints in memory, one after every step, as bytes that nobody shares."""

    def __init__(self, last: int | None = None) -> None:
        self.last, self.saved = last, {}

    def load(self, key: str) -> State | None:
        return self.saved.get(key)

    def due(self) -> bool:
        return True

    def save(self, key: str, state: State) -> None:
        if self.last is None or state.step <= self.last:
            parts = ("model", "optimizer", "random", "epoch_start")
            copies = {part: {n: t.clone() for n, t in getattr(state, part).items()} for part in parts}
            self.saved = {key: replace(state, **copies)}

    def delete(self) -> None:
        self.saved.clear()


class Forgetful(Toy):
    """With dropout, and a buffer that ``state_dict`` leaves out but every step reads and moves."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("drift", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.drift.add_(0.01)
        return super().forward(torch.dropout(x, 0.3, self.training)) + self.drift


def noisy(images: Tensor) -> Tensor:
    return images.roll(int(torch.randint(6, ())), dims=-1) + 0.1 * torch.randn(images.shape)


class Noisy(Dataset):
    """Augmented one by one."""

    def __init__(self) -> None:
        self.images, self.targets = toy_data(96, seed=1)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return noisy(self.images[index]), self.targets[index]


def batches(kind: str) -> Any:
    if kind == "tensors":
        return TensorLoader(*toy_data(96, seed=1), 16, shuffle=True, transform=noisy)
    workers = {"no workers": 0, "two workers": 2}[kind]
    return DataLoader(Noisy(), batch_size=16, shuffle=True, num_workers=workers)


def task_of(optimizer: str, kind: str = "tensors") -> Task:
    """The same each time, with a new model."""
    torch.manual_seed(3)
    return toy_task(model=Forgetful(), train=batches(kind), recipe=Recipe(optimizer=optimizer))


def run(
    task: Task, stop: int | None = None, precision: Precision = PLAIN, **changes: Any
) -> dict[str, Tensor]:
    def interrupt(done: int, _: int) -> None:
        if done == stop:
            raise KillError

    arguments = {"epochs": STEPS / 6, "lr": 0.02, "seed": 5, "on_step": interrupt} | changes
    try:
        train(task.model, task, precision=precision, **arguments)
    except KillError:
        return {}
    return state(task.model) | {"drift": task.model.drift}


@pytest.fixture(scope="module")
def undisturbed() -> dict[tuple[str, str], dict[str, Tensor]]:
    cases = [("sgd", "tensors"), ("adamw", "tensors"), ("sgd", "no workers"), ("sgd", "two workers")]
    return {case: run(task_of(*case)) for case in cases}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@settings(deadline=None, max_examples=25)
@given(stops=st.lists(st.integers(1, STEPS), min_size=1, max_size=3), lost=st.integers(0, 2))
def test_interrupted_trainings_end_as_undisturbed_ones(
    undisturbed: dict, optimizer: str, stops: list[int], lost: int
) -> None:
    checkpoints = Kept()
    for stop in stops:
        checkpoints.last = stop - lost  # the last steps before the kill were not saved
        torch.manual_seed(stop)
        run(task_of(optimizer), stop, checkpoints=checkpoints)
    torch.manual_seed(99)
    assert same_state(run(task_of(optimizer), checkpoints=checkpoints), undisturbed[optimizer, "tensors"])


@pytest.mark.parametrize("stop", [1, 5, 6, 7, 12, 15])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_files_keep_all_that_counts(undisturbed: dict, tmp_path: Path, optimizer: str, stop: int) -> None:
    for end in (stop, None):
        found = run(task_of(optimizer), end, checkpoints=FileCheckpoints(tmp_path / "a.safetensors", 0))
    assert same_state(found, undisturbed[optimizer, "tensors"])


@pytest.mark.parametrize("kind", ["no workers", "two workers"])
@pytest.mark.parametrize("stop", [4, 6, 11])
def test_data_loaders_go_on_in_the_same_epoch(undisturbed: dict, kind: str, stop: int) -> None:
    checkpoints = Kept()
    run(task_of("sgd", kind), stop, checkpoints=checkpoints)
    assert same_state(run(task_of("sgd", kind), checkpoints=checkpoints), undisturbed["sgd", kind])


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_layout_of_momentum_and_moments_is_kept(tmp_path: Path, optimizer: str) -> None:
    precision = replace(PLAIN, channels_last=True)
    whole = run(task_of(optimizer), precision=precision)
    for stop in (7, None):
        found = run(
            task_of(optimizer), stop, precision, checkpoints=FileCheckpoints(tmp_path / "a.safetensors", 0)
        )
    assert same_state(found, whole)
    image = torch.randn(4, 3, 5, 5).to(memory_format=torch.channels_last)
    kept = State(1, 1, 0.0, {}, {"0|m": image}, {}, {})
    FileCheckpoints(tmp_path / "b.safetensors").save("k", kept)
    again = FileCheckpoints(tmp_path / "b.safetensors").load("k").optimizer["0|m"]
    assert again.stride() == image.stride()
    assert torch.equal(again, image)


def test_a_resumed_training_repeats_no_step(tmp_path: Path) -> None:
    task, steps = task_of("sgd"), []
    checkpoints = FileCheckpoints(tmp_path / "a.safetensors", 0)
    run(task, 9, checkpoints=checkpoints)
    run(task_of("sgd"), checkpoints=checkpoints, on_step=lambda done, _: steps.append(done))
    assert steps == list(range(10, STEPS + 1))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 6},
        {"lr": 0.03},
        {"epochs": 3},
        {"origin": "another candidate"},
        {"precision": replace(PLAIN, dtype="bfloat16")},
    ],
)
def test_a_state_of_another_training_is_ignored(
    tmp_path: Path, change: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = FileCheckpoints(tmp_path / "a.safetensors", 0)
    run(task_of("sgd"), 4, checkpoints=checkpoints)
    with caplog.at_level(logging.INFO):
        found = run(task_of("sgd"), checkpoints=checkpoints, **change)
    assert same_state(found, run(task_of("sgd"), **change))
    assert "belongs to another training" in caplog.text


def test_another_gpu_is_the_same_training_and_a_cpu_is_not() -> None:
    task = task_of("sgd")
    keys = {
        device: _key(task.model, task, replace(PLAIN, device=device), "", 3, 0.1, 0)
        for device in ("cuda", "cuda:1", "cpu")
    }
    assert keys["cuda"] == keys["cuda:1"] != keys["cpu"]


@pytest.mark.parametrize("left", [0.0, 0.01, 0.5, 0.99])
def test_a_torn_file_is_ignored(tmp_path: Path, left: float, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.safetensors"
    run(task_of("sgd"), 4, checkpoints=FileCheckpoints(path, 0))
    path.write_bytes(path.read_bytes()[: int(left * path.stat().st_size)])
    assert same_state(run(task_of("sgd"), checkpoints=FileCheckpoints(path)), run(task_of("sgd")))
    assert "can not be read and is ignored" in caplog.text


def test_a_file_that_can_not_be_written_costs_a_warning_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    checkpoints = FileCheckpoints(tmp_path / "file" / "a.safetensors", 0)
    assert same_state(run(task_of("sgd"), checkpoints=checkpoints), run(task_of("sgd")))
    assert "could not be written" in caplog.text


def test_a_file_holds_tensors_and_numbers(tmp_path: Path) -> None:
    run(task_of("adamw"), 8, checkpoints=FileCheckpoints(tmp_path / "a.safetensors", 0))
    with safe_open(tmp_path / "a.safetensors", framework="pt") as file:
        names, texts = set(file.keys()), file.metadata()
    assert {"model|conv1.weight", "model|drift", "optimizer|0|exp_avg", "random|cpu"} < names
    assert set(texts) == {"key", "numbers", "strides"}
    assert texts["numbers"].startswith('{"step": 8, "taken": 2, "seconds": ')


def test_the_pace_counts_from_the_start_and_from_each_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter([100.0, 159.0, 161.0, 162.0, 221.0, 223.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(times))
    checkpoints = FileCheckpoints(tmp_path / "a.safetensors", 60)
    assert [checkpoints.due(), checkpoints.due()] == [False, True]
    checkpoints.save("k", State(1, 1, 0.0, {}, {}, {}, {}))
    assert [checkpoints.due(), checkpoints.due()] == [False, True]


def test_the_time_of_earlier_attempts_counts() -> None:
    checkpoints = Kept()
    run(task_of("sgd"), 6, checkpoints=checkpoints)
    ((key, saved),) = checkpoints.saved.items()
    assert saved.seconds > 0
    checkpoints.saved = {key: replace(saved, seconds=1000.0)}
    task = task_of("sgd")
    before = train(
        task.model, task, epochs=STEPS / 6, lr=0.02, seed=5, precision=PLAIN, checkpoints=checkpoints
    )
    assert before == 1000
    assert checkpoints.saved[key].seconds > 1000


@pytest.fixture(scope="module")
def ladder(tmp_path_factory: pytest.TempPathFactory) -> Ladder:
    folder = tmp_path_factory.mktemp("run")
    task = toy_task()
    space = trace(task.model, task.example_inputs)
    found = prepare(task, space, PLAIN, seed=0, folder=folder, criteria=("l1",))
    return Ladder(task, space, found.scores, found.refit, PLAIN)


@pytest.mark.parametrize("method", ["finetune", "scratch_e", "scratch_b"])
def test_an_interrupted_evaluation_goes_on_and_leaves_nothing(
    ladder: Ladder, tmp_path: Path, method: Any
) -> None:
    which = Candidate.of(ladder.space, Architecture.of({"conv1": 3, "conv2": 2}), "l1")
    wanted = ladder.evaluate(which, rung=3, method=method, seed=1)
    steps: list[int] = []

    def interrupt(done: int, _: int) -> None:
        steps.append(done)
        if len(steps) == 8:
            raise KillError

    def fresh() -> Ladder:
        return Ladder(
            ladder.task,
            ladder.space,
            ladder.scores,
            ladder.refit,
            PLAIN,
            interrupt,
            CheckpointFolder(tmp_path / "trainings", every_seconds=0),
        )

    with pytest.raises(KillError):
        fresh().evaluate(which, rung=3, method=method, seed=1)
    (file,) = (tmp_path / "trainings").iterdir()
    assert file.name == f"{which.id}-3-{method}-1.safetensors"
    again = fresh().evaluate(which, rung=3, method=method, seed=1)
    assert same_state(state(again.model), state(wanted.model))
    assert again.evaluation.score == wanted.evaluation.score
    assert steps[7:10] == [8, 9, 10]
    steps_before = len(steps)
    once_more = fresh().evaluate(which, rung=3, method=method, seed=1)  # killed before it was on record
    assert len(steps) == steps_before
    assert same_state(state(once_more.model), state(wanted.model))
    assert once_more.evaluation.score == wanted.evaluation.score
    assert [path.name for path in (tmp_path / "trainings").iterdir()] == [file.name]


def test_a_dense_training_goes_on(tmp_path: Path) -> None:
    def interrupt(done: int, _: int) -> None:
        if done == 9:
            raise KillError

    folder = CheckpointFolder(tmp_path / "trainings", every_seconds=0)
    arguments: dict[str, Any] = {"seed": 0, "folder": tmp_path}
    with pytest.raises(KillError):
        train_dense(
            toy_task(pretrained=False), PLAIN, on_step=interrupt, checkpoints=folder("dense"), **arguments
        )
    steps: list[int] = []
    task, undisturbed = toy_task(pretrained=False), toy_task(pretrained=False)
    train_dense(
        task, PLAIN, on_step=lambda done, _: steps.append(done), checkpoints=folder("dense"), **arguments
    )
    (tmp_path / "other").mkdir()
    train_dense(undisturbed, PLAIN, seed=0, folder=tmp_path / "other")
    assert steps[0] == 10
    assert same_state(state(task.model), state(undisturbed.model))
    assert not list((tmp_path / "trainings").iterdir())


def test_tied_weights_are_kept_once_and_stay_tied() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.drift = nn.Linear(36, 36), nn.Linear(36, 36), torch.zeros(1)
            self.second.weight = self.first.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.second(torch.relu(self.first(x.flatten(1))))

    def tied() -> Task:
        torch.manual_seed(0)
        return toy_task(model=Tied())

    checkpoints, task = Kept(), tied()
    whole = run(tied())
    run(tied(), 7, checkpoints=checkpoints)
    assert "second.weight" not in next(iter(checkpoints.saved.values())).model
    assert same_state(run(task, checkpoints=checkpoints), whole)
    assert task.model.first.weight is task.model.second.weight
