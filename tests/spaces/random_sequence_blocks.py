"""Building blocks for ``(N, tokens, channels)``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from random_blocks import CONV, WIDTHS, Residual, Signal, block, norm
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from random import Random


class Attention(nn.Module):
    """Heads and scale as explicit numbers; packed or separate projections; fused or not."""

    def __init__(
        self, channels: int, heads: int, head_width: int, packed: bool, how: str, bias: bool
    ) -> None:
        super().__init__()
        self.heads, self.head_width, self.packed, self.how = heads, head_width, packed, how
        self.scale = head_width**-0.5
        inner = heads * head_width
        if packed:
            self.qkv = nn.Linear(channels, 3 * inner, bias=bias)
        else:
            self.q, self.k, self.v = (nn.Linear(channels, inner, bias=bias) for _ in range(3))
        self.out = nn.Linear(inner, channels)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, _ = x.shape
        if self.packed:
            packed = self.qkv(x).reshape(n, tokens, 3, self.heads, self.head_width).permute(2, 0, 3, 1, 4)
            q, k, v = packed.unbind(0)
        else:
            q, k, v = (
                part(x).view(n, tokens, self.heads, self.head_width).transpose(1, 2)
                for part in (self.q, self.k, self.v)
            )
        if self.how == "fused":
            mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        elif self.how == "einsum":
            weights = torch.einsum("nhqd,nhkd->nhqk", q, k).mul(self.scale).softmax(-1)
            mixed = torch.einsum("nhqk,nhkd->nhqd", weights, v)
        else:
            mixed = (q @ k.transpose(-2, -1) * self.scale).softmax(dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(n, tokens, -1))


@block("sequence")
def attention(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    how = rng.choice(("fused", "matmul", "einsum"))
    part = Attention(
        signal.channels, rng.choice((2, 4)), rng.choice((2, 3)), rng.random() < 0.5, how, rng.random() < 0.5
    )
    inner = nn.Sequential(norm(rng, signal), part)
    return (Residual(inner, False) if rng.random() < 0.7 else inner), signal


class SelfAttention(nn.Module):
    def __init__(self, channels: int, heads: int, bias: bool) -> None:
        super().__init__()
        self.inner = nn.MultiheadAttention(channels, heads, bias=bias, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x, x, x, need_weights=False)[0]


@block("sequence")
def multihead(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return SelfAttention(signal.channels, rng.choice((2, 4)), rng.random() < 0.5), signal


@block("sequence")
def encoder_layer(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    first = rng.random() < 0.5
    return nn.TransformerEncoderLayer(
        signal.channels, 2, rng.choice(WIDTHS), dropout=0.1, batch_first=True, norm_first=first
    ), signal


class Recurrent(nn.Module):
    def __init__(self, rnn: nn.Module) -> None:
        super().__init__()
        self.rnn = rnn

    def forward(self, x: Tensor) -> Tensor:
        return self.rnn(x)[0]


@block("sequence")
def recurrent(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    hidden, both = rng.choice((4, 8)), rng.random() < 0.3
    kind = rng.choice((nn.LSTM, nn.GRU, nn.RNN))
    layers = rng.choice((1, 2))
    rnn = kind(signal.channels, hidden, num_layers=layers, batch_first=True, bidirectional=both)
    return Recurrent(rnn), signal.with_channels(hidden * (2 if both else 1))


class ClassToken(nn.Module):
    """One more token and learnt positions."""

    def __init__(self, channels: int, tokens: int) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.randn(1, 1, channels))
        self.positions = nn.Parameter(torch.randn(1, tokens + 1, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], dim=1)
        return x + self.positions


@block("sequence")
def class_token(_rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    (tokens,) = signal.positions
    return ClassToken(signal.channels, tokens), Signal("sequence", signal.channels, (tokens + 1,))


class TokenMixer(nn.Module):
    """A layer over tokens, as in MLP-Mixer."""

    def __init__(self, tokens: int, inner: int) -> None:
        super().__init__()
        self.into, self.out = nn.Linear(tokens, inner), nn.Linear(inner, tokens)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.out(F.gelu(self.into(x.transpose(1, 2)))).transpose(1, 2)


@block("sequence")
def token_mixer(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    return TokenMixer(signal.positions[0], rng.choice((3, 5))), signal


class OverTime(nn.Module):
    def __init__(self, convolution: nn.Conv1d) -> None:
        super().__init__()
        self.convolution = convolution

    def forward(self, x: Tensor) -> Tensor:
        return self.convolution(x.transpose(1, 2)).transpose(1, 2)


@block("sequence")
def convolution_over_time(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    made = rng.choice(WIDTHS)
    convolution = CONV[1](signal.channels, made, 3, padding=1)
    return OverTime(convolution), signal.with_channels(made)
