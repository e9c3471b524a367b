"""Trainings in several processes: what each of them runs, and how it is started."""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, distributed, nn
from toys import PLAIN, Toy, state, toy_data, toy_task

from evaluators.candidate import Candidate
from evaluators.checkpoint import CheckpointFolder, FileCheckpoints
from evaluators.ladder import Ladder
from evaluators.prepare import prepare
from evaluators.shards import ALONE, Shards
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.train import train
from spaces import Architecture, trace

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

WORLD = 2
SAMPLES = 68  # batches of 15, 15, 15, 15, 8: uneven rows; then of 3, which are too few for two shares


class KillError(Exception):
    """Stands for a kill."""


class Doubles(nn.Module):
    """In float64, of two inputs, with a layer that the loss never sees."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(36, 12).double(), nn.Linear(12, 3).double()
        self.unused = nn.Linear(12, 5).double()
        self.dropout = nn.Dropout(dropout)

    def forward(self, image: Tensor, *, scale: Tensor) -> tuple[Tensor, Tensor]:
        hidden = self.dropout(torch.tanh(self.first(image.flatten(1)))) * scale
        return self.second(hidden), self.unused(hidden)


class Shuffled(TensorLoader):
    """Dicts of inputs, moved by an augmentation that draws from the global generator."""

    def __iter__(self) -> Any:
        for images, targets in super().__iter__():
            yield {"image": images.double(), "scale": torch.rand(len(images), 1).double() + 0.5}, targets


def first_output(outputs: tuple[Tensor, Tensor], targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs[0], targets)


def doubles(batch_size: int = 15, dropout: float = 0.0, optimizer: str = "sgd") -> Task:
    torch.manual_seed(0)
    return toy_task(
        model=Doubles(dropout),
        train=Shuffled(*toy_data(SAMPLES, seed=1), batch_size, shuffle=True),
        loss=first_output,
        recipe=Recipe(optimizer=optimizer),
    )


def norms() -> Task:
    return toy_task(model=Toy())


def trained(task: Task, shards: Shards, **changes: Any) -> dict[str, Tensor]:
    """All tensors of the network, and the random state after the training."""
    settings = {"epochs": 3, "lr": 0.1, "seed": 5, "precision": PLAIN} | changes
    types = [type(module) for module in task.model.modules()]
    train(task.model, task, shards=shards, **settings)
    assert types == [type(module) for module in task.model.modules()]
    assert not task.model.training
    return state(task.model)


def gone_on(shards: Shards, folder: Path) -> dict[str, Tensor]:
    """Killed after the eighth step and started again."""

    def interrupt(done: int, _: int) -> None:
        if done == 8:
            raise KillError

    def make() -> FileCheckpoints:
        return FileCheckpoints(folder / "shared.safetensors", 0 if shards.rank == 0 else 1e9)

    try:
        trained(doubles(dropout=0.3), shards, checkpoints=make(), on_step=interrupt)
    except KillError:
        distributed.barrier()
    steps: list[int] = []
    found = trained(
        doubles(dropout=0.3), shards, checkpoints=make(), on_step=lambda done, _: steps.append(done)
    )
    return found | {"steps": torch.tensor(steps)}


def alone_after_all(shards: Shards, folder: Path) -> dict[str, Tensor]:
    """Checkpoints that only the first process sees are used by none."""
    folder = folder / f"own-{shards.rank}"
    steps: list[int] = []
    for _ in range(2):
        steps.clear()
        found = trained(
            doubles(),
            shards,
            epochs=1,
            checkpoints=FileCheckpoints(folder / "own.safetensors", 0),
            on_step=lambda done, _: steps.append(done),
        )
    return found | {"steps": torch.tensor(steps)}


def not_finite(shards: Shards, _: Path) -> dict[str, Tensor]:
    """In the rows of the second process only."""
    task = doubles()
    task.train.shuffle = False
    task.train.inputs[14] = torch.nan
    try:
        trained(task, shards)
    except FloatingPointError as error:
        return {"step": torch.tensor("in step 1 of 15" in str(error))}
    return {}


def evaluated(shards: Shards, folder: Path) -> dict[str, Tensor]:
    task = toy_task()
    space = trace(task.model, task.example_inputs)
    own = folder / f"run-{shards.rank}"
    own.mkdir()
    found = prepare(task, space, PLAIN, seed=0, folder=own, criteria=("l1",))
    checkpoints = CheckpointFolder(folder / "trainings", every_seconds=0)
    ladder = Ladder(task, space, found.scores, found.refit, PLAIN, None, checkpoints, shards)
    which = Candidate.of(space, Architecture.of({"conv1": 3, "conv2": 2}), "l1")
    outcome = ladder.evaluate(which, rung=3, method="scratch_e", seed=0)
    distributed.barrier()
    (kept,) = (folder / "trainings").iterdir()
    assert kept.name == f"{which.id}-3-scratch_e-0.safetensors"
    return state(outcome.model) | {"score": torch.tensor(outcome.evaluation.score)}


def _plain(make: Callable[[], Task], shards: Shards, _: Path) -> dict[str, Tensor]:
    return trained(make(), shards)


PLAINLY: dict[str, Callable[[], Task]] = {
    "sgd": doubles,
    "adamw": partial(doubles, optimizer="adamw"),
    "few": partial(doubles, batch_size=3),
    "dropout": partial(doubles, dropout=0.3),
    "norms": norms,
}
CASES: dict[str, Callable[[Shards, Path], dict[str, Tensor]]] = {
    **{name: partial(_plain, make) for name, make in PLAINLY.items()},
    "gone on": gone_on,
    "own": alone_after_all,
    "not finite": not_finite,
    "evaluated": evaluated,
}


def work(rank: int, folder: Path) -> None:
    """Entry point of a process."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=WORLD)
    for name, case in CASES.items():
        (folder / name).mkdir(exist_ok=True)
        distributed.barrier()
        torch.manual_seed(rank)  # the callers' random states differ
        found = case(Shards(rank, WORLD), folder / name)
        save_file({key: t.clone().contiguous() for key, t in found.items()}, folder / f"{name} {rank}")
    distributed.destroy_process_group()


def start(folder: Path) -> dict[str, list[dict[str, Tensor]]]:
    """Case -> what each process found."""
    context = torch.multiprocessing.spawn(work, (folder,), WORLD)
    assert context is None
    return {name: [load_file(folder / f"{name} {rank}") for rank in range(WORLD)] for name in CASES}


def alone(name: str, **changes: Any) -> dict[str, Tensor]:
    """The same training in this process."""
    task = PLAINLY[name]()
    return trained(replace(task, **changes), ALONE)
