"""Small networks, each with one thing that makes pruning hard."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Plain(nn.Module):
    """conv - norm - conv - pool - linear: inner widths only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.norm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 6, 3, padding=1, bias=False)
        self.head = nn.Linear(6 * 4 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm1(self.conv1(x)))
        return self.head(F.relu(self.conv2(x)).flatten(1))


class Residual(nn.Module):
    """Stem and branch add up, so their channels go together."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.inner = nn.Conv2d(8, 12, 3, padding=1)
        self.outer = nn.Conv2d(12, 8, 1)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = x + self.outer(self.inner(x).relu())
        return self.head(x.mean((2, 3)))


class Grouped(nn.Module):
    """A conv of four groups and a depthwise one with two outputs per channel."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv2d(3, 12, 1)
        self.grouped = nn.Conv2d(12, 8, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(8, 16, 3, padding=1, groups=8)
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.depthwise(self.grouped(self.enter(x)).relu()).relu())


class OptionA(nn.Module):
    """A shortcut that is strided and padded with zero channels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.down = nn.Conv2d(8, 16, 3, padding=1, stride=2)
        self.head = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)) + self.down(x)
        return self.head(x.relu().mean((2, 3)))


class Tied(nn.Module):
    """One layer called twice and one weight used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 10)
        self.twice = nn.Linear(10, 10)
        self.other = nn.Linear(10, 10)
        self.other.weight = self.twice.weight
        self.head = nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        return self.head(self.other(self.twice(self.twice(x).relu()).relu()))


class Baked(nn.Module):
    """Python code knows the width, so the cut can not run."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)
        self.free = nn.Linear(3, 7)
        self.out = nn.Linear(7, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        if x.shape[1] != 8:
            raise RuntimeError("width")
        return self.out(self.free(self.head(x.relu())).relu())


@torch.library.custom_op("nets::reverse", mutates_args=())
def reverse(x: Tensor) -> Tensor:
    """An operator of somebody's extension."""
    return x.flip(-1)


@reverse.register_fake
def _(x: Tensor) -> Tensor:
    return torch.empty_like(x)


class Extended(nn.Module):
    """A custom operator has no rule."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(reverse(self.enter(x)))


class Normed(nn.Module):
    """A LayerNorm over the channels: inexact by nature."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Linear(6, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.enter(x)).relu())


class Shuffled(nn.Module):
    """Channel shuffle and chunk, as in ShuffleNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 1)
        self.branches = nn.ModuleList([nn.Conv2d(8, 8, 1), nn.Conv2d(8, 8, 1)])
        self.head = nn.Conv2d(16, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for branch in self.branches:
            left, right = x.chunk(2, dim=1)
            x = torch.cat([left, branch(right).relu()], dim=1)
            n, c, h, w = x.shape
            x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return self.head(x)


class AuxiliaryHead(nn.Module):
    """A head that runs only in train mode reads the shared channels too."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Linear(6, 8)
        self.aux = nn.Linear(8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        x = self.stem(x).relu()
        return (self.head(x), self.aux(x)) if self.training else self.head(x)


IMAGE = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))
VECTOR = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))

EXACT: dict[str, tuple[type[nn.Module], Tensor]] = {
    "plain": (Plain, IMAGE),
    "residual": (Residual, IMAGE),
    "grouped": (Grouped, IMAGE),
    "option_a": (OptionA, IMAGE),
    "tied": (Tied, VECTOR),
    "shuffled": (Shuffled, IMAGE),
    "auxiliary": (AuxiliaryHead, VECTOR),
}
