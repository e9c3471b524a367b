"""A network, data and groups small enough to be checked by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.precision import Precision
from evaluators.task import Recipe, Task, TensorLoader
from spaces.groups import ChannelGroup, Member, Role

PLAIN = Precision()


class Toy(nn.Module):
    """Six channels, then four, then three classes; groups ``conv1`` and ``conv2``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean(dim=(2, 3)))


def toy_model(seed: int = 0) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Toy()
        for norm in (model.bn1, model.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
        return model.eval()


def toy_data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of 6x6 images: a fixed pattern each, under noise."""
    patterns = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    return patterns[targets] + 0.7 * torch.randn(samples, 1, 6, 6, generator=generator), targets


def toy_task(seed: int = 0, **changes: Any) -> Task:
    settings: dict[str, Any] = {
        "name": "toy",
        "model": toy_model(seed),
        "example_inputs": torch.zeros(1, 1, 6, 6),
        "train": TensorLoader(*toy_data(96, seed=1), 16, shuffle=True),
        "holdout": TensorLoader(*toy_data(60, seed=2), 25),
        "test": TensorLoader(*toy_data(60, seed=3), 25),
        "recipe": Recipe(
            epochs=4, finetune_epochs=2, brief_epochs=0.5, lr=0.1, finetune_lr=0.05, batch_size=16
        ),
        "divisor": 1,
        "calibration": TensorLoader(*toy_data(64, seed=4), 16),
    }
    return Task(**(settings | changes))


def group(name: str, width: int, **members: list[tuple[str, int]]) -> ChannelGroup:
    """A group whose unit ``u`` owns slot ``u`` of each ``role=[(tensor, dim), ...]``."""
    slots = np.arange(width, dtype=np.int64)[:, None]
    found = [
        Member(tensor, dim, _role(role), slots) for role, places in members.items() for tensor, dim in places
    ]
    return ChannelGroup(name, width, 1, 1, tuple(found))


def _role(role: str) -> Role:
    return role  # type: ignore[return-value]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
