"""Attention whose modules keep their number of heads in many ways."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

HEADS, HEAD_WIDTH = 4, 3
INNER = HEADS * HEAD_WIDTH


def own(model: nn.Module) -> dict[str, Any]:
    """What a module keeps besides tensors and modules."""
    return {name: copy.copy(value) for name, value in vars(model).items() if not name.startswith("_")}


class Mixes(nn.Module):
    """Attention whose subclasses say how heads are told apart, then a layer that must stay free."""

    scale = 0.4

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, INNER), nn.Linear(6, INNER), nn.Linear(6, INNER)
        self.out, self.hidden, self.head = nn.Linear(INNER, 6), nn.Linear(6, 10), nn.Linear(10, 3)

    def split(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (self.split(made).transpose(1, 2) for made in (self.q(x), self.k(x), self.v(x)))
        mixed = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.head(self.hidden(x + self.out(self.merge(mixed))).relu())


class Attributes(Mixes):
    def __init__(self) -> None:
        super().__init__()
        self.heads, self.head_width = HEADS, HEAD_WIDTH

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width)


class TwoAttributes(Attributes):
    """Splitting reads one integer and merging another."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = INNER

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(len(x), -1, self.inner)


class Tuple(Mixes):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = (HEADS, HEAD_WIDTH)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], *self.sizes)


class List(Mixes):
    def __init__(self) -> None:
        super().__init__()
        self.sizes = [HEADS, HEAD_WIDTH]

    def split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, self.sizes)


class Property(Mixes):
    """What the view reads follows from what is kept."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = INNER

    @property
    def heads(self) -> int:
        return self.inner // HEAD_WIDTH

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, HEAD_WIDTH)


class InAMethod(Attributes):
    """The integer is read in a function inside a method."""

    def split(self, x: Tensor) -> Tensor:
        def shape() -> list[int]:
            return [len(x), -1, *(size for size in (self.heads, self.head_width))]

        return x.view(shape())


class Stale(Attributes):
    """A stale number of heads runs: the width of each takes what is left."""

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, -1)


class StaleMerge(Attributes):
    """A stale width runs: there are fewer positions instead, over which the output is averaged."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = INNER

    def merge(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).reshape(len(x), -1, self.inner)

    def forward(self, x: Tensor) -> Tensor:
        x = x[:, :1].expand(-1, 12, -1) * torch.arange(12).view(1, -1, 1)
        q, k, v = (self.split(made).transpose(1, 2) for made in (self.q(x), self.k(x), self.v(x)))
        mixed = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        return self.head(self.hidden(self.out(self.merge(mixed)).sigmoid().mean(1)).relu())


class Chunks(Attributes):
    """Heads are chunks, of which there are fewer."""

    def split(self, x: Tensor) -> Tensor:
        return torch.stack(x.split(self.head_width, dim=-1), dim=2)


class PositionsAndHeads(Mixes):
    """The parent keeps the number of heads and hands it to a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = HEADS
        self.splits = Splits()

    def split(self, x: Tensor) -> Tensor:
        return self.splits(x, self.heads)


class Splits(nn.Module):
    def forward(self, x: Tensor, heads: int) -> Tensor:
        return x.view(*x.shape[:2], heads, -1) * 1.5


class Inside(nn.Module):
    """The same, one level further down: the one that raises has no integers, its parent's parent has."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(PositionsAndHeads())

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)


class OnlyBuilt(nn.Module):
    """Nothing after construction reads these."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.sizes = 8, [8, 3]
        self.enter, self.head = nn.Linear(6, self.width), nn.Linear(*self.sizes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.enter(x).relu())
