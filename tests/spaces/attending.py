"""Networks that attend, inputs in float64, and what tells PyTorch's fused path from the plain one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

WIDTH, HEADS, BATCH, QUERIES, KEYS = 12, 4, 2, 3, 5


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


def hidden(*shape: int) -> Tensor:
    """A mask under which every query still sees the first key."""
    mask = noise(*shape) > 0.3
    mask[..., 0] = False
    assert mask.any()
    return mask


TOKENS, MEMORY = noise(BATCH, 5, 6), noise(BATCH, 4, 6)
#: Where the first of two sequences of five ends early.
PADDING = torch.arange(5) >= torch.tensor([[3], [5]])


class Encodes(nn.Module):
    """Two of PyTorch's encoder layers on a residual stream that may be cut, too."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 10, dropout=0.0, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=layer.self_attn.batch_first)

    def forward(self, x: Tensor, padding: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return self.head(self.encoder(self.enter(x), mask=mask, src_key_padding_mask=padding))


class Decodes(nn.Module):
    """One of PyTorch's decoder layers, which attends to itself and to a memory."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, WIDTH), nn.Linear(WIDTH, 3)
        self.remember = nn.Linear(6, WIDTH)
        self.decoder = nn.TransformerDecoderLayer(WIDTH, HEADS, 10, dropout=0.0, **options)

    def forward(self, x: Tensor, memory: Tensor) -> Tensor:
        causal = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        return self.head(self.decoder(self.enter(x), self.remember(memory), tgt_mask=causal))


class Crosses(nn.Module):
    """Attention to keys and values of other widths than the queries'; its weights are an output, too."""

    def __init__(self, *, average: bool) -> None:
        super().__init__()
        self.queries, self.keys, self.values = nn.Linear(6, WIDTH), nn.Linear(6, 7), nn.Linear(6, 5)
        self.attention = nn.MultiheadAttention(WIDTH, HEADS, kdim=7, vdim=5, batch_first=True)
        self.hidden, self.head = nn.Linear(WIDTH, 9), nn.Linear(9, 3)
        self.average = average

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.queries(x), self.keys(x).relu(), self.values(x).relu()
        made, weights = self.attention(q, k, v, average_attn_weights=self.average)
        return self.head(self.hidden(q + made).relu()), weights


class _Operators(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        self.seen.add(func.overloadpacket.__name__)
        return func(*args, **(kwargs or {}))


FUSED = {"_transformer_encoder_layer_fwd", "_native_multi_head_attention"}


def operators(model: nn.Module, *inputs: Tensor) -> set[str]:
    with torch.no_grad(), _Operators() as seen:
        model(*inputs)
    return seen.seen


class Special(nn.MultiheadAttention):
    """Somebody's own attention, of which nothing is known."""


class Attends(nn.Module):
    """Attention between a stream and a layer that must stay free."""

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.enter, self.attention = nn.Linear(6, WIDTH), attention
        self.hidden, self.head = nn.Linear(WIDTH, 9), nn.Linear(9, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.head(self.hidden(x + self.attention(x, x, x, need_weights=False)[0]).relu())
