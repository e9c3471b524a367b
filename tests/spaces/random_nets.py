"""Random networks made of the building blocks that real ones are made of.

``build(rng)`` composes blocks at random; ``single(kind, name, rng)`` puts one block between two layers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import random_map_blocks  # noqa: F401 (registers its blocks)
import random_sequence_blocks  # noqa: F401 (registers its blocks)
import torch
from random_blocks import ADAPTIVE_POOL, BLOCKS, CONV, WIDTHS, Signal
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random


class Reduce(nn.Module):
    """To one vector per sample."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "first":
            return x[:, 0]
        if self.how == "tokens":
            return x.mean(1)
        if self.how == "pool":
            return ADAPTIVE_POOL[x.dim() - 2](1)(x).flatten(1)
        if self.how == "positions":
            return x.mean(tuple(range(2, x.dim())))
        return x.flatten(1)


class ToTokens(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Embed(nn.Module):
    """Tokens and positions."""

    def __init__(self, size: int, tokens: int, channels: int) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(size, channels), nn.Embedding(tokens, channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.words(x) + self.places(torch.arange(x.shape[1], device=x.device))


class TiedHead(nn.Module):
    """Logits through the embedding's own matrix."""

    def __init__(self, embedding: nn.Embedding) -> None:
        super().__init__()
        self.decoder = nn.Linear(embedding.embedding_dim, embedding.num_embeddings, bias=False)
        self.decoder.weight = embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(x)


class Net(nn.Module):
    """Stems (one per input), trunk, heads (one per output)."""

    def __init__(self, stems: list[nn.Module], join: str, trunk: list[nn.Module]) -> None:
        super().__init__()
        self.stems, self.join = nn.ModuleList(stems), join
        self.trunk, self.heads = nn.ModuleList(trunk), nn.ModuleDict()
        self.returns = "tensor"

    def forward(self, x: Tensor, y: Tensor | None = None) -> Any:
        x = self.stems[0](x)
        if y is not None:
            other = self.stems[1](y)
            dim = -1 if self.join == "cat tokens" else 1
            joined = {"add": lambda: x + other, "mul": lambda: x * other}
            x = joined.get(self.join, lambda: torch.cat([x, other], dim=dim))()
        middle = x
        for number, step in enumerate(self.trunk):
            x = step(x)
            middle = x if number == len(self.trunk) // 2 else middle
        outputs = {name: head(middle if name == "middle" else x) for name, head in self.heads.items()}
        if self.returns == "dict":
            return outputs
        return tuple(outputs.values()) if self.returns == "tuple" else outputs["logits"]


def start(rng: Random) -> tuple[Callable[[int], nn.Module], Signal, Tensor]:
    """A stem for a number of channels, what it makes, and an example input."""
    generator = torch.Generator().manual_seed(0)
    kind = rng.choice(("image", "image", "image", "volume", "series", "text", "text", "features", "tokens"))
    if kind in ("image", "volume", "series"):
        positions = {"image": (4, 4), "volume": (3, 3, 3), "series": (6,)}[kind]
        example = torch.randn(2, 3, *positions, generator=generator, dtype=torch.float64)
        dims = len(positions)
        return lambda width: CONV[dims](3, width, 3, padding=1), Signal("map", 0, positions), example
    if kind == "text":
        example = torch.randint(0, 11, (2, 5), generator=generator)
        return lambda width: Embed(11, 5, width), Signal("sequence", 0, (5,)), example
    if kind == "tokens":
        example = torch.randn(2, 5, 6, generator=generator, dtype=torch.float64)
        return lambda width: nn.Linear(6, width), Signal("sequence", 0, (5,)), example
    example = torch.randn(2, 6, generator=generator, dtype=torch.float64)
    return lambda width: nn.Linear(6, width), Signal("vector", 0), example


def reduction(rng: Random, signal: Signal) -> tuple[nn.Module, Signal]:
    how = rng.choice(
        ("pool", "positions", "flatten") if signal.kind == "map" else ("first", "tokens", "flatten")
    )
    count = 1
    if how == "flatten":
        for size in signal.positions:
            count *= size
    return Reduce(how), Signal("vector", signal.channels * count)


def head(rng: Random, signal: Signal) -> nn.Module:
    if signal.kind == "map" and rng.random() < 0.3:
        return CONV[signal.dims](signal.channels, 3, 1)
    if signal.kind == "vector" or (signal.kind == "sequence" and rng.random() < 0.3):
        return nn.Linear(signal.channels, 3)
    reduce, flat = reduction(rng, signal)
    return nn.Sequential(reduce, nn.Linear(flat.channels, 3))


def build(rng: Random) -> tuple[Net, tuple[Tensor, ...]]:
    """A random network in eval mode and float64, and its inputs."""
    torch.manual_seed(0)
    make, signal, example = start(rng)
    width = rng.choice(WIDTHS)
    stems, join, inputs = [make(width)], "", (example,)
    if rng.random() < 0.25:
        join = rng.choice(("add", "mul", "cat tokens" if signal.kind == "sequence" else "cat"))
        other = rng.choice(WIDTHS) if join.startswith("cat") else width
        stems.append(make(other))
        width += other if join.startswith("cat") else 0
        inputs = (example, example.flip(0))
    signal = signal.with_channels(width)
    trunk: list[nn.Module] = []
    signals = [signal]
    for _ in range(rng.randint(1, 4)):
        if signal.kind == "map" and rng.random() < 0.1:
            step: nn.Module = ToTokens()
            tokens = 1
            for size in signal.positions:
                tokens *= size
            signal = Signal("sequence", signal.channels, (tokens,))
        elif signal.kind != "vector" and rng.random() < 0.07:
            step, signal = reduction(rng, signal)
            step = nn.Sequential(step, nn.Linear(signal.channels, 8))
            signal = signal.with_channels(8)
        else:
            name = rng.choice(sorted(BLOCKS[signal.kind]))
            step, signal = BLOCKS[signal.kind][name](rng, signal)
        trunk.append(step)
        signals.append(signal)
    net = Net(stems, join, trunk)
    net.heads["logits"] = head(rng, signal)
    if (
        isinstance(stems[0], Embed)
        and signal.kind == "sequence"
        and signal.channels == stems[0].words.embedding_dim
    ):
        net.heads["logits"] = TiedHead(stems[0].words) if rng.random() < 0.5 else net.heads["logits"]
    net.returns = rng.choice(("tensor", "tensor", "tuple", "dict"))
    if net.returns != "tensor":
        net.heads["middle"] = head(rng, signals[len(trunk) // 2 + 1])
    return randomised(net), inputs


def single(kind: str, name: str, rng: Random) -> tuple[Net, tuple[Tensor, ...]]:
    """A stem, one block, and a head."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    shape = {"map": (2, 3, 4, 4), "sequence": (2, 5, 6), "vector": (2, 6)}[kind]
    example = torch.randn(shape, generator=generator, dtype=torch.float64)
    signal = Signal(kind, 8, {"map": (4, 4), "sequence": (5,), "vector": ()}[kind])
    stem = CONV[2](3, 8, 3, padding=1) if kind == "map" else nn.Linear(6, 8)
    step, after = BLOCKS[kind][name](rng, signal)
    net = Net([stem], "", [step])
    if kind == "map":
        net.heads["logits"] = CONV[2](after.channels, 3, 1)
    else:
        net.heads["logits"] = nn.Linear(after.channels, 3)
    return randomised(net), (example,)


def randomised(net: Net) -> Net:
    """Every number of its own, so that nothing is right by coincidence; in float64 and eval mode."""
    generator = torch.Generator().manual_seed(1)
    net = net.double().eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
        for name, buffer in net.named_buffers():
            if buffer.is_floating_point():
                noise = torch.rand(buffer.shape, generator=generator, dtype=torch.float64)
                buffer.copy_(0.5 + noise if name.endswith("running_var") else noise - 0.5)
    return net
