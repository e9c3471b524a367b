"""A network, data and groups small enough to be checked by hand."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.precision import Precision
from evaluators.statistics.records import Consumer, Moments, Statistics, UnitStatistics
from evaluators.task import Recipe, Task, TensorLoader
from spaces.groups import ChannelGroup, Member, Role

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from evaluators.task import Batch
    from spaces import Space

PLAIN = Precision()


class Toy(nn.Module):
    """Six channels, then four, then three classes; groups ``conv1`` and ``conv2``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(6)
        self.conv2 = nn.Conv2d(6, 4, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        return self.head(x.mean(dim=(2, 3)))


def toy_model(seed: int = 0) -> Toy:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Toy()
        for norm in (model.bn1, model.bn2):
            nn.init.uniform_(norm.weight, 0.5, 1.5)
            nn.init.uniform_(norm.bias, -0.3, 0.3)
        return model.eval()


def toy_data(samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Three classes of 6x6 images: a fixed pattern each, under noise."""
    patterns = torch.randn(3, 1, 6, 6, generator=torch.Generator().manual_seed(7))
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, 3, (samples,), generator=generator)
    return patterns[targets] + 0.7 * torch.randn(samples, 1, 6, 6, generator=generator), targets


def toy_task(seed: int = 0, **changes: Any) -> Task:
    settings: dict[str, Any] = {
        "name": "toy",
        "model": toy_model(seed),
        "example_inputs": torch.zeros(1, 1, 6, 6),
        "train": TensorLoader(*toy_data(96, seed=1), 16, shuffle=True),
        "holdout": TensorLoader(*toy_data(60, seed=2), 25),
        "test": TensorLoader(*toy_data(60, seed=3), 25),
        "recipe": Recipe(
            epochs=4, finetune_epochs=2, brief_epochs=0.5, lr=0.1, finetune_lr=0.05, batch_size=16
        ),
        "divisor": 1,
        "calibration": TensorLoader(*toy_data(64, seed=4), 16),
    }
    return Task(**(settings | changes))


def group(name: str, width: int, **members: list[tuple[str, int]]) -> ChannelGroup:
    """A group whose unit ``u`` owns slot ``u`` of each ``role=[(tensor, dim), ...]``."""
    slots = np.arange(width, dtype=np.int64)[:, None]
    found = [
        Member(tensor, dim, _role(role), slots) for role, places in members.items() for tensor, dim in places
    ]
    return ChannelGroup(name, width, 1, 1, tuple(found))


def _role(role: str) -> Role:
    return role  # type: ignore[return-value]


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def same_state(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def readers(model: nn.Module, group: ChannelGroup) -> list[tuple[str, nn.Module, Tensor]]:
    """Name, layer and ``(width, n)`` input channels of all convolution and linear layers that read it."""
    found = []
    for member in group.members:
        if (member.role, member.dim) == ("input", 1):
            name = member.tensor.removesuffix(".weight")
            layer = model.get_submodule(name)
            channels = torch.arange(layer.weight.shape[1] * getattr(layer, "groups", 1))
            # A column of the weight is a channel of every conv group.
            owned = [channels[channels % layer.weight.shape[1] == c] for c in member.slots.ravel().tolist()]
            found.append((name, layer, torch.cat(owned).view(len(member.slots), -1)))
    return found


def channels_first(values: Tensor) -> Tensor:
    """``(n, channels, positions)``."""
    return values.flatten(2) if values.dim() > 2 else values[:, :, None]


def unfolded(layer: nn.Module, inputs: Tensor) -> Tensor:
    """``(conv groups, rows, d)`` float64: what every output position reads, and a one."""
    if isinstance(layer, nn.Conv2d):
        columns = F.unfold(inputs, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        rows = columns.movedim(1, 2).flatten(0, 1).unflatten(1, (layer.groups, -1)).movedim(1, 0)
    else:
        rows = inputs.flatten(0, -2)[None]
    return torch.cat([rows, torch.ones_like(rows[:, :, :1])], dim=2).double()


def weights_of(layer: nn.Module, conv_groups: int) -> Tensor:
    """``(conv groups, d, outputs)`` float64 with the bias in the last row."""
    rows = layer.weight.detach().flatten(1).double()
    bias = torch.zeros(len(rows), dtype=torch.float64) if layer.bias is None else layer.bias.detach().double()
    return torch.cat([rows, bias[:, None]], dim=1).unflatten(0, (conv_groups, -1)).mT.contiguous()


def moments_of(name: str, x: Tensor, weights: Tensor, taps: int, importance: Tensor | None = None) -> Moments:
    """Moments of the rows ``x``: ``(conv groups, n, d)``."""
    gram = x.mT @ x / x.shape[1]
    if importance is None:
        importance = torch.ones(len(weights), weights.shape[2], dtype=torch.float64)
    return Moments(name, weights, gram, gram, None, importance, taps)


@contextmanager
def gated(model: nn.Module, groups: Sequence[ChannelGroup], gates: Mapping[str, Tensor]) -> Iterator[None]:
    """What is read of each unit is multiplied by its gate: ``(width,)``, or one per sample."""
    with ExitStack() as stack:
        for group in groups:
            for _, layer, slots in readers(model, group):

                def scale(
                    _: nn.Module, args: tuple[Tensor, ...], group: ChannelGroup = group, slots: Tensor = slots
                ) -> tuple[Tensor, ...]:
                    x = args[0]
                    gate = gates[group.name].expand(len(x), -1)
                    factors = torch.ones_like(x[:, :, *[0] * (x.dim() - 2)])
                    factors = factors.index_copy(
                        1, slots.flatten(), gate.repeat_interleave(slots.shape[1], dim=1).to(x)
                    )
                    return (x * factors.reshape(*factors.shape, *[1] * (x.dim() - 2)),)

                stack.callback(layer.register_forward_pre_hook(scale).remove)
        yield


def slow_statistics(
    model: nn.Module, batches: Iterable[Batch], groups: Sequence[ChannelGroup], bins: int = 10
) -> Statistics:
    """All statistics by brute force: all positions, one sample at a time; every output counts 1."""
    model.eval()
    batches = list(batches)
    inputs, targets = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    layers = {name: layer for g in groups for name, layer, _ in readers(model, g)}
    read: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, layer in layers.items():

            def keep(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                read[name] = args[0].detach()

            stack.callback(layer.register_forward_pre_hook(keep).remove)
        model(inputs)
    moments = {}
    for name, layer in layers.items():
        x = unfolded(layer, read[name])
        taps = int(np.prod(layer.kernel_size)) if isinstance(layer, nn.Conv2d) else 1
        moments[name] = moments_of(name, x, weights_of(layer, len(x)), taps)

    parameters = {name: p for name, p in model.named_parameters() if p.requires_grad}
    gradients = {name: torch.zeros_like(p, dtype=torch.float64) for name, p in parameters.items()}
    gate_gradients = {g.name: [] for g in groups}
    for i in range(len(inputs)):
        gates = {g.name: torch.ones(g.width, dtype=torch.float64, requires_grad=True) for g in groups}
        with gated(model, groups, gates):
            loss = F.cross_entropy(model(inputs[i : i + 1]), targets[i : i + 1])
        found = torch.autograd.grad(loss, [*parameters.values(), *gates.values()])
        for name, gradient in zip(parameters, found, strict=False):
            gradients[name] += gradient / len(inputs)
        for name, gradient in zip(gates, found[len(parameters) :], strict=True):
            gate_gradients[name].append(gradient)
    units = {
        g.name: _slow_units(
            [(read[name], slots) for name, _, slots in readers(model, g)],
            torch.stack(gate_gradients[g.name]),
            bins,
        )
        for g in groups
    }
    return Statistics(moments, units, gradients)


def _slow_units(places: Sequence[tuple[Tensor, Tensor]], gates: Tensor, bins: int) -> UnitStatistics:
    """``places``: what a layer reads, and the ``(width, n)`` channels of each unit in it."""
    values = [channels_first(x)[:, slots].double() for x, slots in places]  # (samples, width, n, positions)
    ranks = [
        torch.linalg.matrix_rank(x[:, slots]).double().mean(dim=(0, 2)) for x, slots in places if x.dim() == 4
    ]

    def average(f: Any) -> Tensor:
        return torch.stack([f(v).mean(dim=(0, 2, 3)) for v in values]).mean(0)

    per_sample = torch.stack([v.mean(dim=(2, 3)) for v in values]).mean(0)
    histogram = [np.histogram(column.numpy(), bins)[0] for column in per_sample.T]
    return UnitStatistics(
        mean=average(lambda v: v),
        absolute=average(torch.abs),
        square=average(torch.square),
        zeros=average(lambda v: (v == 0).double()),
        histogram=torch.from_numpy(np.stack(histogram)),
        rank=torch.stack(ranks).mean(0) if ranks else None,
        gradient=gates.mean(0),
        gradient_square=gates.square().mean(0),
    )


def random_consumer(
    width: int,
    taps: int = 1,
    outputs: int = 3,
    *,
    conv_groups: int = 1,
    others: int = 0,
    rows: int = 400,
    seed: int = 0,
    importance: bool = False,
) -> tuple[Tensor, Consumer]:
    """Raw rows ``(conv groups, n, d)`` of correlated columns, and the consumer with their moments.

    Columns of ``others`` channels that no unit owns lie between those of the units, which are shuffled.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    channels = width + others
    d = channels * taps
    x = normal(conv_groups, rows, d) @ (normal(conv_groups, d, d) / d**0.5 + torch.eye(d)) + normal(d)
    x = torch.cat([x, torch.ones(conv_groups, rows, 1)], dim=2)
    weights = normal(conv_groups, d + 1, outputs)
    counts = normal(conv_groups, outputs).abs() if importance else torch.ones(conv_groups, outputs)
    owned = torch.randperm(channels, generator=generator)[:width]
    columns = owned[:, None] * taps + torch.arange(taps)
    return x, Consumer(moments_of("layer", x, weights, taps, counts.double()), columns)


def every_site(sizes: Sequence[int], count: int, generator: torch.Generator) -> tuple[Tensor, ...]:
    """Takes the place of ``draw_sites``: all positions, in order."""
    del count, generator
    indices = torch.meshgrid(*(torch.arange(size) for size in sizes), indexing="ij")
    return tuple(index.flatten() for index in indices)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """In eval mode, with BatchNorms that do something; in place."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in (
                (module.running_mean, -0.3, 0.3),
                (module.running_var, 0.5, 1.5),
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.3, 0.3),
            ):
                tensor.uniform_(low, high, generator=generator)
    return model.eval()


def first_units(space: Space, **widths: int) -> dict[str, Tensor]:
    """Of each named group its first units; of all groups the first half when none is named."""
    if not widths:
        widths = {g.name: max(1, g.width // 2) for g in space.groups}
    return {name: torch.arange(width) for name, width in widths.items()}


class Branched(nn.Module):
    """Four layers of three kinds read the residual channels, one of them strided and dilated."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.inner, self.outer = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(5, 6, 1)
        self.outer_norm = nn.BatchNorm2d(6)
        self.side = nn.Conv2d(6, 3, 2, stride=2, dilation=2, padding=1)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(x + self.outer_norm(self.outer(torch.relu(self.inner(x)))))
        return self.head(x.mean((2, 3))) + self.side(x).mean((2, 3))


class Grouped(nn.Module):
    """Conv groups and depthwise channels on the way, and maps that are flattened before they are read."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 4, 3, groups=2)
        self.depthwise = nn.Conv2d(4, 8, 3, padding=1, groups=4)
        self.point, self.head = nn.Conv2d(8, 6, 1), nn.Linear(6 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.depthwise(self.grouped(self.stem(x).relu()).relu()).relu()
        return self.head(self.point(x).relu().flatten(1))


class Winding(nn.Module):
    """Strides, dilations, a layer with neither bias nor norm, and one norm behind a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.bare = nn.Conv2d(8, 6, 3, stride=2, padding=2, dilation=2, bias=False)
        self.normed, self.middle = nn.Conv2d(6, 5, (1, 2), padding=1, bias=False), nn.BatchNorm2d(5)
        self.both, self.last = nn.Conv2d(5, 4, 2), nn.BatchNorm2d(4)
        self.head = nn.Linear(48, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        x = torch.relu(self.bare(x))
        x = torch.relu(self.middle(self.normed(x)))
        return self.head(torch.relu(self.last(self.both(x))).flatten(1))
