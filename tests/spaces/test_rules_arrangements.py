"""Rules of stacking, repeating and windows: which dimensions may shrink, and that a cut goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commuting import check_commutes, check_trace
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


#: What runs, its inputs, and for each the dimensions that may lose slots, worked out by hand.
ARRANGEMENTS: dict[str, tuple[Callable[..., Any], list[Tensor], list[set[int]]]] = {
    "stack": (lambda x, y: torch.stack([x, y], 1), [numbers(4, 5), numbers(4, 5)], [{0, 1}, {0, 1}]),
    "unbind": (lambda x: x.unbind(1), [numbers(4, 3, 5)], [{0, 2}]),
    "repeat": (lambda x: x.repeat(2, 1, 3), [numbers(4, 5)], [{0, 1}]),
    "repeat of a single slot": (lambda x: x.repeat(3, 2), [numbers(1, 5)], [{1}]),
    "repeat_interleave": (lambda x: x.repeat_interleave(3, 1), [numbers(4, 5, 6)], [{0, 1, 2}]),
    "repeat_interleave, each as often as it says": (
        lambda x: x.repeat_interleave(torch.tensor([1, 2, 0, 1, 1]), 1),
        [numbers(4, 5, 6)],
        [{0, 2}],
    ),
    "roll": (lambda x: x.roll((1, 2), (1, 3)), [numbers(4, 5, 6, 3)], [{0, 2}]),
    "roll over everything": (lambda x: x.roll(1), [numbers(4, 5)], [set()]),
    "rot90": (lambda x: x.rot90(1, (0, 2)), [numbers(4, 5, 6)], [{1}]),
    "tril and triu": (lambda x: x.tril(-1) - x.triu(1), [numbers(4, 5, 6)], [{0}]),
    "diagonal": (lambda x: x.diagonal(1, 2, 0), [numbers(4, 5, 6)], [{1}]),
    "diag_embed": (lambda x: x.diag_embed(0, 0, 2), [numbers(4, 5, 6)], [{0, 1}]),
    "diagonal_scatter": (
        lambda x, v: x.diagonal_scatter(v, 0, 2, 0),
        [numbers(4, 5, 6), numbers(5, 4)],
        [{1}, {0}],
    ),
    "windows": (lambda x: x.unfold(1, 3, 2), [numbers(4, 7, 6)], [{0, 2}]),
    "im2col": (lambda x: F.unfold(x, 2, padding=1), [numbers(4, 5, 6, 3)], [{0, 1}]),
    "im2col of one image": (lambda x: F.unfold(x, 2), [numbers(5, 6, 3)], [{0}]),
    "col2im": (lambda x: F.fold(x, (4, 6), 2, stride=2), [numbers(3, 20, 6)], [{0, 1}]),
    "gates": (lambda x: x.unsafe_chunk(3, 1), [numbers(3, 6)], [{0, 1}]),
}


@pytest.mark.parametrize("name", ARRANGEMENTS)
def test_a_cut_of_the_inputs_is_a_cut_of_the_outputs(name: str) -> None:
    function, tensors, free = ARRANGEMENTS[name]
    for seed in range(6):
        assert check_commutes(function, tensors, seed=seed) == free


class Stacked(nn.Module):
    """Branches that are stacked and added up lose the same channels."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.stack([self.left(x), self.right(x).relu()], dim=1).unbind(1)
        return self.head(torch.stack([left, right.roll(1, 1)]).sum(0))


class Unfolded(nn.Module):
    """Neighbourhoods as channels, worked on and folded back."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        columns = F.unfold(self.enter(x), 2, stride=2).sigmoid()
        return self.head(F.fold(columns, x.shape[2:], 2, stride=2))


def test_branches_in_one_tensor_go_together() -> None:
    tensors = {
        ("left.weight", 0),
        ("left.bias", 0),
        ("right.weight", 0),
        ("right.bias", 0),
        ("head.weight", 1),
    }
    assert check_trace(Stacked(), numbers(2, 5, 6)) == {"left": (8, tensors)}


def test_neighbourhoods_as_channels() -> None:
    members = {("enter.weight", 0), ("enter.bias", 0), ("head.weight", 1)}
    assert check_trace(Unfolded(), numbers(2, 3, 4, 4), counted=False) == {"enter": (8, members)}


def test_statistics_that_are_repeated_for_each_image() -> None:
    model = nn.Sequential(
        nn.Conv2d(3, 8, 1), nn.InstanceNorm2d(8, affine=True, track_running_stats=True), nn.Conv2d(8, 2, 1)
    )
    norm = {(f"1.{name}", 0) for name in ("weight", "bias", "running_mean", "running_var")}
    members = {("0.weight", 0), ("0.bias", 0), ("2.weight", 1)} | norm
    assert check_trace(model, numbers(2, 3, 4, 4)) == {"0": (8, members)}
