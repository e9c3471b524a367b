"""Everything that is shown about a space, computed once; the renderers only write it down."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from search.inspect.layers import Layer, find_layers
from search.inspect.reads import read_order
from search.inspect.units import unit_words

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from numpy.typing import NDArray

    from spaces.attributes import Mend
    from spaces.frozen import Frozen
    from spaces.groups import ChannelGroup
    from spaces.space import Space


@dataclass(frozen=True, slots=True)
class GroupFacts:
    """One group as people read it.

    Attributes:
        name: As patterns of options match it.
        width: Units.
        unit: What one unit is, in words.
        unit_channels: Channels per unit.
        step: Units between two proposed widths.
        smallest: Units of the smallest proposed width.
        choices: How many widths are proposed.
        exact: Whether a cut equals the masked network.
        layers: Weights that compute the units; several are coupled.
        readers: Weights that read them.
        macs_share: Share of the dense MACs that would go with all of the units.
        params_share: Likewise of the parameters.
    """

    name: str
    width: int
    unit: str
    unit_channels: int
    step: int
    smallest: int
    choices: int
    exact: bool
    layers: tuple[str, ...]
    readers: tuple[str, ...]
    macs_share: float
    params_share: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """A space before any search.

    Attributes:
        model: What was asked for.
        inputs: Shapes of the example inputs, such as ``1x3x224x224``.
        settings: Options that narrow the space, by name.
        groups: What may be pruned, in the order of the network's parameters.
        frozen: What stays whole, and why.
        layers: Weights in the order of execution.
        dense_macs: Multiply-adds of the network as it came, for a batch of one.
        dense_params: Its parameters.
        least_macs: Multiply-adds at the smallest widths.
        least_params: Parameters at the smallest widths.
        log10_architectures: Logarithm of the number of architectures.
        other_macs: Multiply-adds of products of activations, which no layer has.
        seconds: That tracing took.
        warnings: What the trace warns of.
        mends: Integers of modules that follow the widths.
    """

    model: str
    inputs: tuple[str, ...]
    settings: Mapping[str, Any]
    groups: tuple[GroupFacts, ...]
    frozen: tuple[Frozen, ...]
    layers: tuple[Layer, ...]
    dense_macs: int
    dense_params: int
    least_macs: int
    least_params: int
    log10_architectures: float
    other_macs: int
    seconds: float
    warnings: tuple[str, ...] = field(default=())
    mends: tuple[Mend, ...] = field(default=())


def inspect_space(
    name: str,
    model: nn.Module,
    example_inputs: Any,
    space: Space,
    *,
    seconds: float,
    settings: Mapping[str, Any],
) -> Inspection:
    """What there is to know of a traced model.

    Args:
        name: Of the model, for the reader.
        model: The network that ``space`` was traced from; left as it is.
        example_inputs: What it was traced with.
        space: Its space.
        seconds: That the trace took.
        settings: Options that narrowed the space.
    """
    reads = read_order(model, example_inputs)
    shares = zip(_shares(space, space.macs), _shares(space, space.params), strict=True)
    return Inspection(
        model=name,
        inputs=tuple(_shape(x) for x in pytree.tree_leaves(example_inputs) if isinstance(x, Tensor)),
        settings=settings,
        groups=tuple(
            _facts(model, group, macs, params)
            for group, (macs, params) in zip(space.groups, shares, strict=True)
        ),
        frozen=space.frozen,
        layers=find_layers(model, space, reads),
        dense_macs=space.macs(space.dense),
        dense_params=space.params(space.dense),
        least_macs=space.macs(space.smallest),
        least_params=space.params(space.smallest),
        log10_architectures=sum(math.log10(len(group.choices)) for group in space.groups),
        other_macs=reads.others,
        seconds=seconds,
        warnings=space.warnings,
        mends=space.mends,
    )


def _shares(space: Space, cost: Any) -> list[float]:
    """For each group, the share of the dense cost that goes when all of its units do."""
    dense: NDArray[np.int64] = space.widths_array(space.dense)[None]
    without = dense * (1 - np.eye(len(space.groups), dtype=np.int64))
    whole = int(cost(dense)[0])
    return (1 - cost(without) / whole).tolist() if whole else [0.0] * len(space.groups)


def _facts(model: nn.Module, group: ChannelGroup, macs: float, params: float) -> GroupFacts:
    return GroupFacts(
        name=group.name,
        width=group.width,
        unit=unit_words(model, group),
        unit_channels=group.unit_channels,
        step=group.step,
        smallest=group.choices[0],
        choices=len(group.choices),
        exact=group.exact,
        layers=_named(member.tensor for member in group.members if member.role == "output"),
        readers=_named(member.tensor for member in group.members if member.role == "input"),
        macs_share=macs,
        params_share=params,
    )


def _named(tensors: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(tensor.removesuffix(".weight") for tensor in tensors))


def _shape(tensor: Tensor) -> str:
    sizes = "x".join(map(str, tensor.shape))
    return sizes if tensor.is_floating_point() else f"{sizes}:{str(tensor.dtype).removeprefix('torch.')}"
