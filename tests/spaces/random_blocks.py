"""Building blocks of random networks, for whatever flows between them.

Blocks are written the way that people write them, with the sizes that their code keeps. Each is a function of
a source of randomness and of what flows in; it returns a module and what flows out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

CONV = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
BATCH_NORM = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
INSTANCE_NORM = {1: nn.InstanceNorm1d, 2: nn.InstanceNorm2d, 3: nn.InstanceNorm3d}
MAX_POOL = {1: nn.MaxPool1d, 2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL = {1: nn.AvgPool1d, 2: nn.AvgPool2d, 3: nn.AvgPool3d}
ADAPTIVE_POOL = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}

WIDTHS = (4, 8, 12)


@dataclass(frozen=True)
class Signal:
    """What flows between blocks.

    Attributes:
        kind: ``map`` ``(N, channels, *positions)``, ``sequence`` ``(N, tokens, channels)`` or ``vector``
            ``(N, channels)``.
        channels: Always a multiple of four.
        positions: Sizes of the other dimensions; the number of tokens.
    """

    kind: str
    channels: int
    positions: tuple[int, ...] = ()

    @property
    def dims(self) -> int:
        return len(self.positions)

    def with_channels(self, channels: int) -> Signal:
        return Signal(self.kind, channels, self.positions)


BLOCKS: dict[str, dict[str, Any]] = {"map": {}, "sequence": {}, "vector": {}}


def block(*kinds: str) -> Callable[[Any], Any]:
    def register(function: Any) -> Any:
        for kind in kinds:
            BLOCKS[kind][function.__name__] = function
        return function

    return register


class ChannelsNorm(nn.LayerNorm):
    """LayerNorm over the channels of a map, as in ConvNeXt."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class OwnRMSNorm(nn.Module):
    """As language models write it."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6))


def layer(rng: Random, read: int, made: int, kind: str, dims: int, **options: Any) -> nn.Module:
    """A learnt map from channels to channels that keeps all positions."""
    bias = rng.random() < 0.5
    if kind == "map":
        kernel = options.pop("kernel", rng.choice((1, 3)))
        return CONV[dims](read, made, kernel, padding=kernel // 2, bias=bias, **options)
    return nn.Linear(read, made, bias=bias)


def activation(rng: Random) -> nn.Module:
    kinds = (nn.ReLU, nn.GELU, nn.SiLU, nn.Hardswish, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.ELU, nn.PReLU)
    return rng.choice(kinds)()


def norm(rng: Random, signal: Signal) -> nn.Module:
    channels, dims = signal.channels, signal.dims
    if signal.kind == "sequence":
        return rng.choice((nn.LayerNorm, nn.RMSNorm, OwnRMSNorm, nn.Identity))(channels)
    if signal.kind == "vector":
        return rng.choice((nn.BatchNorm1d, nn.LayerNorm, nn.Identity))(channels)
    name = rng.choice(("batch", "batch", "group", "instance", "instance affine", "channels", "none"))
    made: dict[str, Callable[[], nn.Module]] = {
        "batch": lambda: BATCH_NORM[dims](channels),
        "group": lambda: nn.GroupNorm(rng.choice((1, 2, 4)), channels),
        "instance": lambda: INSTANCE_NORM[dims](channels),
        "instance affine": lambda: INSTANCE_NORM[dims](channels, affine=True),
        "channels": lambda: ChannelsNorm(channels),
        "none": nn.Identity,
    }
    return made[name]()


def unit(rng: Random, signal: Signal, made: int) -> nn.Sequential:
    """Layer, norm, activation."""
    out = signal.with_channels(made)
    linear = layer(rng, signal.channels, made, signal.kind, signal.dims)
    return nn.Sequential(linear, norm(rng, out), activation(rng))


def channel_dim(kind: str) -> int:
    return -1 if kind == "sequence" else 1


@block("map", "sequence", "vector")
def plain(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made = rng.choice(WIDTHS)
    return unit(rng, signal, made), signal.with_channels(made)


class Residual(nn.Module):
    def __init__(self, branch: nn.Module, before: bool) -> None:
        super().__init__()
        self.branch, self.before = branch, before

    def forward(self, x: Tensor) -> Tensor:
        return self.branch(x) + x if self.before else x + self.branch(x)


@block("map", "sequence", "vector")
def residual(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    inner = rng.choice(WIDTHS)
    outer = layer(rng, inner, signal.channels, signal.kind, signal.dims)
    branch = nn.Sequential(norm(rng, signal), unit(rng, signal, inner), outer)
    return Residual(branch, rng.random() < 0.5), signal


class Gated(nn.Module):
    def __init__(self, value: nn.Module, gate: nn.Module) -> None:
        super().__init__()
        self.value, self.gate = value, gate

    def forward(self, x: Tensor) -> Tensor:
        return self.value(x) * torch.sigmoid(self.gate(x))


@block("map", "sequence", "vector")
def gated(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made = rng.choice(WIDTHS)
    value = layer(rng, signal.channels, made, signal.kind, signal.dims)
    return Gated(value, unit(rng, signal, made)), signal.with_channels(made)


class Branches(nn.Module):
    def __init__(self, branches: list[nn.Module], dim: int) -> None:
        super().__init__()
        self.branches, self.dim = nn.ModuleList(branches), dim

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], dim=self.dim)


@block("map", "sequence", "vector")
def branches(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    """As in Inception and, with the input itself among them, DenseNet."""
    widths = [rng.choice((4, 8)) for _ in range(rng.choice((1, 2)))]
    made: list[nn.Module] = [unit(rng, signal, width) for width in widths]
    if len(made) == 1 or rng.random() < 0.3:
        made.insert(0, nn.Identity())
        widths.append(signal.channels)
    return Branches(made, channel_dim(signal.kind)), signal.with_channels(sum(widths))


class Stacked(nn.Module):
    """Branches of equal width, weighed by learnt numbers, as in mixtures and selective kernels."""

    def __init__(self, branches: list[nn.Module]) -> None:
        super().__init__()
        self.branches, self.weights = nn.ModuleList(branches), nn.Parameter(torch.ones(len(branches)))

    def forward(self, x: Tensor) -> Tensor:
        made = torch.stack([branch(x) for branch in self.branches], dim=1)
        shares = self.weights.softmax(0).view(1, -1, *(1 for _ in x.shape[1:]))
        first, *others = (made * shares).unbind(1)
        return first + sum(others)


@block("map", "sequence", "vector")
def stacked(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made = rng.choice(WIDTHS)
    return Stacked([unit(rng, signal, made) for _ in range(rng.choice((2, 3)))]), signal.with_channels(made)


class Chunked(nn.Module):
    def __init__(self, wide: nn.Module, inner: nn.Module, dim: int, how: str) -> None:
        super().__init__()
        self.wide, self.inner, self.dim, self.how = wide, inner, dim, how

    def forward(self, x: Tensor) -> Tensor:
        x = self.wide(x)
        if self.how == "split":
            left, right = x.split(x.shape[self.dim] // 2, dim=self.dim)
        else:
            left, right = x.chunk(2, dim=self.dim)
        if self.how == "gate":
            return left * F.gelu(right)
        return torch.cat([left, self.inner(right)], dim=self.dim)


@block("map", "sequence", "vector")
def chunked(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    """Gated linear units, and the halves of ShuffleNet."""
    half = rng.choice((4, 8))
    how = rng.choice(("split", "chunk", "gate"))
    wide = layer(rng, signal.channels, 2 * half, signal.kind, signal.dims)
    inner = layer(rng, half, half, signal.kind, signal.dims) if how != "gate" else nn.Identity()
    made = half if how == "gate" else 2 * half
    return Chunked(wide, inner, channel_dim(signal.kind), how), signal.with_channels(made)


class Unequal(nn.Module):
    """Pieces of sizes that the code keeps, as in CSP and multi-scale blocks."""

    def __init__(self, wide: nn.Module, inner: nn.Module, sizes: list[int], dim: int) -> None:
        super().__init__()
        self.wide, self.inner, self.sizes, self.dim = wide, inner, sizes, dim

    def forward(self, x: Tensor) -> Tensor:
        left, right = torch.split(self.wide(x), self.sizes, dim=self.dim)
        return torch.cat([left.relu(), self.inner(right)], dim=self.dim)


@block("map", "sequence", "vector")
def unequal(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    sizes = [4, 8] if rng.random() < 0.5 else [8, 4]
    wide = layer(rng, signal.channels, 12, signal.kind, signal.dims)
    inner = layer(rng, sizes[1], 8, signal.kind, signal.dims)
    return Unequal(wide, inner, sizes, channel_dim(signal.kind)), signal.with_channels(sizes[0] + 8)


class Twice(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(self.inner(x).relu())


@block("map", "sequence", "vector")
def called_twice(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return Twice(layer(rng, signal.channels, signal.channels, signal.kind, signal.dims)), signal


class Scaled(nn.Module):
    """Parameters of the module itself: layer scale, a shift, a temperature."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.gamma, self.beta = nn.Parameter(torch.ones(shape)), nn.Parameter(torch.zeros(shape))
        self.temperature = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor) -> Tensor:
        return (x * self.gamma + self.beta) / self.temperature


@block("map", "sequence", "vector")
def scaled(_rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    shape = (signal.channels, *(1 for _ in signal.positions)) if signal.kind == "map" else (signal.channels,)
    return Scaled(shape), signal


class TiedPair(nn.Module):
    """Down and up again through one matrix, as in a tied autoencoder."""

    def __init__(self, channels: int, inner: int, kind: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inner, channels) / channels**0.5)
        self.bias = nn.Parameter(torch.zeros(inner))
        self.kind = kind

    def forward(self, x: Tensor) -> Tensor:
        hidden = F.linear(x, self.weight, self.bias).relu()
        return F.linear(hidden, self.weight.t())


@block("sequence", "vector")
def tied_pair(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return TiedPair(signal.channels, rng.choice(WIDTHS), signal.kind), signal


class TiedLayers(nn.Module):
    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) + self.second(x.relu())


@block("map", "sequence", "vector")
def tied_layers(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made = rng.choice(WIDTHS)
    kernel = {"kernel": 1} if signal.kind == "map" else {}
    pair = (layer(rng, signal.channels, made, signal.kind, signal.dims, **kernel) for _ in range(2))
    return TiedLayers(*pair), signal.with_channels(made)
