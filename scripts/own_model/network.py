"""A network as you may have one: convolutions in front, attention behind, its modules written by hand."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class RMSNorm(nn.Module):
    """Divide by the root mean square over the last dimension, then scale."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """``(..., width)`` to the same shape."""
        return x * x.pow(2).mean(dim=-1, keepdim=True).add(1e-6).rsqrt() * self.scale


class Attention(nn.Module):
    """Self-attention in which each head learns how sharply it looks."""

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.width, self.num_heads, self.head_width = width, num_heads, width // num_heads
        self.qkv = nn.Linear(width, 3 * width)
        self.sharpness = nn.Parameter(torch.full((num_heads, 1, 1), 4.0))
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, tokens, width)`` to the same shape."""
        n, tokens, _ = x.shape
        qkv = self.qkv(x).view(n, tokens, 3, self.num_heads, self.head_width)
        queries, keys, values = qkv.permute(2, 0, 3, 1, 4)
        alike = F.normalize(queries, dim=-1) @ F.normalize(keys, dim=-1).mT
        seen = (self.sharpness * alike).softmax(dim=-1) @ values
        return self.out(seen.transpose(1, 2).reshape(n, tokens, self.width))


class GatedMlp(nn.Module):
    """One half of the hidden units opens and closes the other half."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 2 * hidden)
        self.shrink = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, tokens, width)`` to the same shape."""
        value, gate = self.expand(x).chunk(2, dim=-1)
        return self.shrink(value * F.silu(gate))


class Block(nn.Module):
    """Attention, then the MLP, each added to what came in."""

    def __init__(self, width: int, num_heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.attention = RMSNorm(width), Attention(width, num_heads)
        self.norm2, self.mlp = RMSNorm(width), GatedMlp(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, tokens, width)`` to the same shape."""
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Pool(nn.Module):
    """One vector per image: the tokens' features, weighed by how much each token matters."""

    def __init__(self, width: int, features: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, 1 + features)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, tokens, width)`` to ``(n, features)``."""
        read = self.read(x)
        weight, features = read[..., :1], read[..., 1:]
        return (weight.softmax(dim=1) * features).sum(dim=1)


class Hybrid(nn.Module):
    """Digits of 8x8 pixels, ``(n, 1, 8, 8)``, to logits, ``(n, 10)``."""

    def __init__(self, width: int = 48, num_heads: int = 6, hidden: int = 64, depth: int = 2) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 24, 3, padding=1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, width, 3, stride=2, padding=1),
        )
        self.position = nn.Parameter(0.02 * torch.randn(16, width))
        self.blocks = nn.ModuleList(Block(width, num_heads, hidden) for _ in range(depth))
        self.norm = RMSNorm(width)
        self.pool = Pool(width, 32)
        self.head = nn.Linear(32, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images to logits."""
        x = self.stem(images).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.pool(self.norm(x)))
