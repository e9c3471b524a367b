"""What must hold of every space: cuts equal the masked network, costs are exact."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from evaluators.flops import count_macs
from spaces import Architecture, Space, cut, trace
from spaces.neutral import neutral
from spaces.reference import expected
from spaces.structure import flatten
from spaces.surgery import masked


def random_kept(space: Space, generator: torch.Generator) -> dict[str, Tensor]:
    """Random units of a random part of the groups."""
    kept = {}
    for group in space.groups:
        if torch.rand((), generator=generator) < 0.8:
            size = int(torch.randint(group.fewest, group.width + 1, (), generator=generator))
            kept[group.name] = torch.randperm(group.width, generator=generator)[:size].sort().values
    return kept


def assert_equal(got: object, wanted: object) -> None:
    """Same structure, same shapes, same numbers; NaN equals nothing."""
    mine, theirs = flatten(got), flatten(wanted)
    assert mine[1] == theirs[1], f"{mine[1]} is not {theirs[1]}"
    for a, b in zip(mine[0], theirs[0], strict=True):
        assert a.shape == b.shape, f"{a.shape} is not {b.shape}"
        if a.is_floating_point():
            difference, scale = float((a - b).abs().max()), max(float(b.abs().max()), 1e-6)
            assert difference <= 1e-8 * scale, f"differs by {difference} at a scale of {scale}"
        else:
            assert torch.equal(a, b), f"{a} is not {b}"


def check(net: nn.Module, inputs: tuple[Tensor, ...], seed: int) -> Space:
    """Everything that must hold of a network and its space."""
    with torch.no_grad():
        space = trace(net, inputs)
        check_costs(net, space, space.dense, inputs)
        generator = torch.Generator().manual_seed(seed)
        for _ in range(2):
            kept = random_kept(space, generator)
            check_cut(net, space, kept, inputs)
        check_cut(
            net,
            space,
            {group.name: torch.arange(group.width)[-group.fewest :] for group in space.groups},
            inputs,
        )
    return space


def reference(net: nn.Module, space: Space, kept: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> object:
    """What the cut must return. Fused kernels hide norms from the reference; the cut itself may use them."""
    with neutral():
        return expected(net, space, kept, (inputs, {}))


def plain(net: nn.Module, space: Space, kept: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> object:
    """The masked network, save where zeros became NaN: what is gone may be anything."""
    outputs = masked(net, space, kept)(*inputs)
    has_nan = any(x.isnan().any() for x in flatten(outputs)[0])
    return reference(net, space, kept, inputs) if has_nan else outputs


def check_cut(net: nn.Module, space: Space, kept: dict[str, Tensor], inputs: tuple[Tensor, ...]) -> None:
    exact = {group.name for group in space.groups if group.exact}
    only = {name: units for name, units in kept.items() if name in exact}
    assert_equal(cut(net, space, only)(*inputs), plain(net, space, only, inputs))
    small = cut(net, space, kept)
    assert_equal(small(*inputs), reference(net, space, kept, inputs))
    widths = {g.name: len(kept[g.name]) if g.name in kept else g.width for g in space.groups}
    check_costs(small, space, Architecture.of(widths), inputs)


def check_costs(net: nn.Module, space: Space, architecture: Architecture, inputs: tuple[Tensor, ...]) -> None:
    assert space.params(architecture) == sum(parameter.numel() for parameter in net.parameters())
    if any(isinstance(module, nn.RNNBase) for module in net.modules()):  # fvcore does not see inside
        counter = FlopCounterMode(display=False)
        with neutral(), counter:
            net(*(x[:1] for x in inputs))
        assert 2 * space.macs(architecture) == counter.get_total_flops()
    else:
        assert space.macs(architecture) == count_macs(net, inputs)


def randomised(model: nn.Module) -> nn.Module:
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in model.double().eval().parameters():
            parameter.copy_(0.5 * torch.randn(parameter.shape, generator=generator, dtype=torch.float64))
    return model


def right(model: nn.Module, example: Tensor | tuple[Tensor, ...]) -> Space:
    """The space of a model, after cuts to all kinds of widths have been held against the reference."""
    inputs = example if isinstance(example, tuple) else (example,)
    space = trace(randomised(model), inputs)
    generator = torch.Generator().manual_seed(3)
    cuts = [random_kept(space, generator) for _ in range(4)]
    for group in space.groups:  # each alone, at all widths
        for size in range(group.fewest, group.width):
            units = torch.randperm(group.width, generator=generator)[:size].sort().values
            cuts.append({group.name: units})
    exact = {group.name for group in space.groups if group.exact}
    with torch.no_grad():
        for kept in cuts:
            only = {name: units for name, units in kept.items() if name in exact}
            assert_equal(cut(model, space, only)(*inputs), plain(model, space, only, inputs))
            assert_equal(cut(model, space, kept)(*inputs), reference(model, space, kept, inputs))
    return space


def names(space: Space) -> set[str]:
    return {group.name for group in space.groups}
