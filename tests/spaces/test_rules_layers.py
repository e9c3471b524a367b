"""Rules of resampling, pads and shuffles: which dimensions may shrink, and that a cut goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commuting import check_commutes, check_trace
from torch import Tensor, nn
from torch.nn import functional as F

from spaces import trace

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


def samples(*shape: int) -> Tensor:
    return torch.rand(*shape, generator=RANDOM, dtype=torch.float64)


def image(num_positions: int) -> Tensor:
    return numbers(2, 5, *[4] * num_positions)


def pool(name: str) -> Callable[[Tensor], Tensor]:
    return lambda x: getattr(F, name)(x, 2)


def unpool(num_positions: int) -> Callable[[Tensor], Tensor]:
    down, up = (getattr(F, f"max_{kind}{num_positions}d") for kind in ("pool", "unpool"))
    return lambda x: up(*down(x, 2, return_indices=True), 2)


RESAMPLING = {
    **{
        f"interpolate, {mode} in {n}d": (
            lambda x, mode=mode: F.interpolate(x, scale_factor=1.5, mode=mode),
            n,
        )
        for n, own in enumerate(("linear", "bilinear", "trilinear"), start=1)
        for mode in ("nearest", "nearest-exact", "area", own)
    },
    "interpolate, bicubic in 2d": (lambda x: F.interpolate(x, size=[3, 7], mode="bicubic"), 2),
    **{
        f"interpolate, {mode} without aliases": (
            lambda x, mode=mode: F.interpolate(x, size=[3, 3], mode=mode, antialias=True),
            2,
        )
        for mode in ("bilinear", "bicubic")
    },
    **{
        f"{kind}_pool{n}d": (pool(f"{kind}_pool{n}d"), n)
        for kind in ("avg", "max", "adaptive_avg", "adaptive_max")
        for n in (1, 2, 3)
    },
    **{f"max_unpool{n}d": (unpool(n), n) for n in (1, 2, 3)},
    **{
        f"pad, {mode} in {n}d": (
            lambda x, mode=mode, n=n: F.pad(x, (1, 0) + (1, 1) * (n - 1), mode=mode),
            n,
        )
        for mode in ("reflect", "replicate")
        for n in (1, 2, 3)
    },
}

#: What runs, its inputs, and for each the dimensions that may lose slots, worked out by hand.
LAYERS: dict[str, tuple[Callable[..., Any], list[Tensor], list[set[int]]]] = {
    **{name: (function, [image(n)], [{0, 1}]) for name, (function, n) in RESAMPLING.items()},
    "a pad of some dimensions": (
        lambda x: F.pad(x, (1, 1, 0, 0, 2, 1), mode="reflect"),
        [image(3)],
        [{0, 1, 3}],
    ),
    "fractional_max_pool2d": (
        lambda x, r: F.fractional_max_pool2d(x, 2, output_size=2, _random_samples=r),
        [image(2), samples(2, 5, 2)],
        [{0, 1}, {0, 1}],
    ),
    "fractional_max_pool2d of one image": (
        lambda x, r: F.fractional_max_pool2d(x, 2, output_size=2, _random_samples=r),
        [numbers(5, 4, 4), samples(1, 5, 2)],
        [{0}, {1}],
    ),
    "fractional_max_pool3d": (
        lambda x, r: F.fractional_max_pool3d(x, 2, output_size=2, _random_samples=r),
        [image(3), samples(2, 5, 3)],
        [{0, 1}, {0, 1}],
    ),
    "grid_sample in 2d": (
        lambda x, grid: F.grid_sample(x, grid.tanh(), align_corners=False),
        [image(2), numbers(2, 3, 6, 2)],
        [{0, 1}, {0, 1, 2}],
    ),
    "grid_sample in 3d": (
        lambda x, grid: F.grid_sample(x, grid.tanh(), align_corners=False),
        [image(3), numbers(2, 3, 6, 2, 3)],
        [{0, 1}, {0, 1, 2, 3}],
    ),
    "affine_grid": (
        lambda x: F.affine_grid(x, (len(x), 1, 4, 4), align_corners=False),
        [numbers(2, 2, 3)],
        [{0}],
    ),
    "pixel_shuffle": (lambda x: F.pixel_shuffle(x, 2), [numbers(2, 12, 3, 3)], [{0, 1}]),
    "pixel_unshuffle": (lambda x: F.pixel_unshuffle(x, 2), [numbers(2, 3, 4, 4)], [{0, 1}]),
    "channel_shuffle": (lambda x: F.channel_shuffle(x, 2), [numbers(2, 6, 3, 3)], [{0, 1, 2, 3}]),
    "native_channel_shuffle": (
        lambda x: F.native_channel_shuffle(x, 3),
        [numbers(2, 6, 3, 3)],
        [{0, 1, 2, 3}],
    ),
    "glu": (lambda x: F.glu(x, 1), [numbers(2, 6, 3)], [{0, 1, 2}]),
    "weight_norm": (
        lambda v, g: torch._weight_norm(v, g, 0),
        [numbers(4, 5), numbers(4, 1)],
        [{0, 1}, {0}],
    ),
    "weight_norm of the last dimension": (
        lambda v, g: torch._weight_norm(v, g, 2),
        [numbers(4, 5, 3), numbers(1, 1, 3)],
        [{0, 1, 2}, {2}],
    ),
    "rfft": (lambda x: torch.view_as_real(torch.fft.rfft(x, dim=1)), [numbers(4, 5, 6)], [{0, 2}]),
    "irfft": (
        lambda x: torch.fft.irfft(torch.view_as_complex(x), dim=1),
        [numbers(4, 5, 6, 2)],
        [{0, 2}],
    ),
    "fft of two dimensions": (
        lambda x: torch.fft.fft2(x, dim=(0, 1)).real,
        [numbers(4, 5, 6)],
        [{2}],
    ),
    "polar": (
        lambda x, y: torch.view_as_real(torch.polar(x.abs(), y)),
        [numbers(4, 5), numbers(4, 5)],
        [{0, 1}, {0, 1}],
    ),
    "conjugate": (
        lambda x: torch.view_as_real(torch.view_as_complex(x).conj().resolve_conj()),
        [numbers(4, 5, 2)],
        [{0, 1}],
    ),
    "packed sequences": (
        lambda x: nn.utils.rnn.pack_padded_sequence(x, torch.tensor([3, 2]), batch_first=True).data,
        [numbers(2, 3, 5)],
        [{2}],
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_cut_of_the_inputs_is_a_cut_of_the_outputs(name: str) -> None:
    function, tensors, free = LAYERS[name]
    for seed in range(6):
        assert check_commutes(function, tensors, seed=seed) == free


class Between(nn.Module):
    """Something between a layer that makes channels and one that reads them."""

    def __init__(self, function: Callable[[Tensor], Tensor], *, made: int = 8, read: int = 8) -> None:
        super().__init__()
        self.function = function
        self.enter, self.head = nn.Conv2d(3, made, 1), nn.Conv2d(read, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.enter(x)))


def centre(x: Tensor) -> Tensor:
    grid = F.affine_grid(
        torch.eye(2, 3, dtype=x.dtype, device=x.device).expand(len(x), 2, 3) / 2, [len(x), 1, 3, 3]
    )
    return F.grid_sample(x, grid, align_corners=False)


#: Network, units of its only group, slots of a unit in the first and in the last layer, and whether
#: fvcore knows all of its operators.
NETS: dict[str, tuple[Between, int, int, int, bool]] = {
    "bicubic": (Between(lambda x: F.interpolate(x, size=[6, 6], mode="bicubic")), 8, 1, 1, True),
    "reflection": (Between(lambda x: F.pad(x, (1, 1, 2, 2), mode="reflect")), 8, 1, 1, True),
    "replication": (Between(lambda x: F.pad(x, (1, 1, 2, 2), mode="replicate")), 8, 1, 1, True),
    "circular": (Between(lambda x: F.pad(x, (1, 1, 2, 2), mode="circular")), 8, 1, 1, True),
    "pixel shuffle": (Between(nn.PixelShuffle(2), made=12, read=3), 3, 4, 1, True),
    "pixel unshuffle": (Between(nn.PixelUnshuffle(2), made=3, read=12), 3, 1, 4, True),
    "channel shuffle": (Between(nn.ChannelShuffle(2)), 4, 2, 2, True),
    "gated halves": (Between(nn.GLU(1), read=4), 4, 2, 1, True),
    "unpooling": (
        Between(lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2)),
        8,
        1,
        1,
        False,
    ),
    "grid": (Between(centre), 8, 1, 1, False),
    "largest places": (
        Between(lambda x: x.flatten(2).topk(4, 2).values.unflatten(2, (2, 2))),
        8,
        1,
        1,
        True,
    ),
    "frequencies": (Between(lambda x: torch.fft.irfft2(torch.fft.rfft2(x) * 1j)), 8, 1, 1, False),
    "products of neighbours": (Between(lambda x: x.prod(2, keepdim=True)), 8, 1, 1, True),
}


@pytest.mark.parametrize("name", NETS)
def test_the_group_is_there_and_its_cuts_are_right(name: str) -> None:
    model, width, rows, columns, counted = NETS[name]
    example = numbers(2, 3, 4, 4)
    members = {("enter.weight", 0), ("enter.bias", 0), ("head.weight", 1)}
    assert check_trace(model, example, counted=counted) == {"enter": (width, members)}
    (group,) = trace(model, example).groups
    slots = {member.tensor: member.slots.shape[1] for member in group.members}
    assert (slots["enter.weight"], slots["head.weight"]) == (rows, columns)
