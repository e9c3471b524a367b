"""Building blocks for ``(N, channels, *positions)``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from random_blocks import (
    ADAPTIVE_POOL,
    AVG_POOL,
    CONV,
    MAX_POOL,
    TRANSPOSED,
    WIDTHS,
    Signal,
    activation,
    block,
    layer,
    norm,
    plain,
    unit,
)
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from random import Random


@block("map")
def grouped(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    groups, made = rng.choice((2, 4)), rng.choice((4, 8))
    convolution = layer(rng, signal.channels, made, "map", signal.dims, groups=groups)
    return nn.Sequential(convolution, norm(rng, signal.with_channels(made))), signal.with_channels(made)


@block("map")
def depthwise(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    times, made = rng.choice((1, 2)), rng.choice(WIDTHS)
    inner = signal.channels * times
    return (
        nn.Sequential(
            layer(rng, signal.channels, inner, "map", signal.dims, groups=signal.channels),
            norm(rng, signal.with_channels(inner)),
            activation(rng),
            layer(rng, inner, made, "map", signal.dims, kernel=1),
        ),
        signal.with_channels(made),
    )


@block("map")
def transposed(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made, groups = rng.choice((4, 8)), rng.choice((1, 1, 2, 4))
    convolution = TRANSPOSED[signal.dims](
        signal.channels, made, 3, padding=1, groups=groups, bias=rng.random() < 0.5
    )
    return nn.Sequential(convolution, norm(rng, signal.with_channels(made))), signal.with_channels(made)


@block("map")
def depthwise_transposed(_rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    channels = signal.channels
    return TRANSPOSED[signal.dims](channels, channels, 3, padding=1, groups=channels, bias=False), signal


@block("map")
def pooling(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    kind = rng.choice((MAX_POOL, AVG_POOL))[signal.dims]
    return kind(3, stride=1, padding=1), signal


class Pad(nn.Module):
    def __init__(self, dims: int, mode: str) -> None:
        super().__init__()
        self.dims, self.mode = dims, mode

    def forward(self, x: Tensor) -> Tensor:
        x = F.pad(x, (1, 1) * self.dims, mode=self.mode)
        return MAX_POOL[self.dims](3, stride=1)(x)


@block("map")
def padding(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return Pad(signal.dims, rng.choice(("constant", "replicate"))), signal


class PaddedShortcut(nn.Module):
    """Option A of the CIFAR ResNets."""

    def __init__(self, branch: nn.Module, before: int, after: int) -> None:
        super().__init__()
        self.branch, self.before, self.after = branch, before, after

    def forward(self, x: Tensor) -> Tensor:
        positions = (0, 0) * (x.dim() - 2)
        return self.branch(x) + F.pad(x, (*positions, self.before, self.after))


@block("map")
def padded_shortcut(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    before, after = rng.choice(((2, 2), (0, 4)))
    made = signal.channels + 4
    return PaddedShortcut(unit(rng, signal, made), before, after), signal.with_channels(made)


class Shuffle(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        positions = x.shape[2:]
        x = x.reshape(n, self.groups, c // self.groups, *positions)
        return x.transpose(1, 2).reshape(n, c, *positions)


@block("map")
def shuffle(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    groups = rng.choice((2, 4))
    return rng.choice((Shuffle, nn.ChannelShuffle))(groups) if signal.dims == 2 else Shuffle(groups), signal


@block("map")
def pixel_shuffle(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    """Up and down again, so that maps do not grow."""
    made = rng.choice((4, 8))
    if signal.dims != 2:
        return plain(rng, signal)
    up = nn.Sequential(layer(rng, signal.channels, 4 * made, "map", 2), nn.PixelShuffle(2))
    down: nn.Module = layer(rng, made, made, "map", 2, stride=2, kernel=3)
    if rng.random() < 0.4:
        down = nn.Sequential(nn.PixelUnshuffle(2), layer(rng, 4 * made, made, "map", 2))
    return nn.Sequential(up, down), signal.with_channels(made)


class SqueezeExcite(nn.Module):
    def __init__(self, channels: int, inner: int, linear: bool, dims: int) -> None:
        super().__init__()
        self.linear, self.dims = linear, dims
        make: Any = nn.Linear if linear else lambda a, b: CONV[dims](a, b, 1)
        self.reduce, self.expand = make(channels, inner), make(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        positions = tuple(range(2, x.dim()))
        if self.linear:
            gate = self.expand(self.reduce(x.mean(positions)).relu())
            return x * gate.sigmoid().view(*x.shape[:2], *(1 for _ in positions))
        pooled = ADAPTIVE_POOL[self.dims](1)(x)
        return x * self.expand(F.silu(self.reduce(pooled))).sigmoid()


@block("map")
def squeeze_excite(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return SqueezeExcite(signal.channels, rng.choice((2, 4)), rng.random() < 0.5, signal.dims), signal


class UpAndDown(nn.Module):
    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        size = tuple(x.shape[2:])
        up = F.interpolate(x, scale_factor=2, mode=self.mode)
        return F.interpolate(up, size=size, mode="nearest")


@block("map")
def resampling(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    smooth = {1: "linear", 2: "bilinear", 3: "trilinear"}[signal.dims]
    return UpAndDown(rng.choice(("nearest", smooth))), signal


class WindowAttention(nn.Module):
    """Attention inside shifted windows with a bias for each relative position, as in Swin."""

    def __init__(self, channels: int, heads: int, size: int, shift: int) -> None:
        super().__init__()
        self.dim, self.num_heads, self.size, self.shift = channels, heads, size, shift
        self.scale = (channels // heads) ** -0.5
        self.norm, self.qkv = nn.LayerNorm(channels), nn.Linear(channels, 3 * channels)
        self.proj = nn.Linear(channels, channels)
        self.table = nn.Parameter(torch.zeros((2 * size - 1) ** 2, heads))
        at = torch.stack(torch.meshgrid(torch.arange(size), torch.arange(size), indexing="ij")).flatten(1)
        apart = at[:, :, None] - at[:, None, :] + size - 1
        self.register_buffer("index", apart[0] * (2 * size - 1) + apart[1])

    def forward(self, x: Tensor) -> Tensor:
        n, c, height, width = x.shape
        size = self.size
        y = torch.roll(self.norm(x.permute(0, 2, 3, 1)), (-self.shift, -self.shift), (1, 2))
        y = y.view(n, height // size, size, width // size, size, c).permute(0, 1, 3, 2, 4, 5)
        y = self.attend(y.reshape(-1, size * size, c))
        y = y.view(n, height // size, width // size, size, size, -1).permute(0, 1, 3, 2, 4, 5)
        y = torch.roll(y.reshape(n, height, width, -1), (self.shift, self.shift), (1, 2))
        return x + y.permute(0, 3, 1, 2)

    def attend(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        qkv = self.qkv(x).reshape(n, tokens, 3, self.num_heads, self.dim // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        bias = self.table[self.index.view(-1)].view(tokens, tokens, -1).permute(2, 0, 1)
        weights = (q * self.scale) @ k.transpose(-2, -1) + bias.unsqueeze(0)
        return self.proj((weights.softmax(-1) @ v).transpose(1, 2).reshape(n, tokens, -1))


@block("map")
def windows(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    if signal.dims != 2 or any(size % 2 for size in signal.positions):
        return plain(rng, signal)
    return WindowAttention(signal.channels, rng.choice((2, 4)), 2, rng.choice((0, 1))), signal
