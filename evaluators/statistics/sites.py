"""Sampled positions of a layer's outputs, and the unfolded inputs that each of them reads."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.conv import _ConvNd

if TYPE_CHECKING:
    from collections.abc import Sequence

#: One index vector for each dimension of a layer's outputs but the channels: sample, then place.
Sites = tuple[Tensor, ...]

#: Positions to choose from, for each one that is chosen, from which choosing with replacement does no harm.
_SPARSE = 8

#: The modules whose outputs are linear in their unfolded inputs.
LINEAR_LAYERS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.Linear)


def runs_as_written(layer: nn.Module) -> bool:
    """Whether outputs are the inputs times the parameter ``weight``, by torch's own forward pass.

    Not where a subclass pads or standardises in a way of its own, or the weight is parametrised.
    """
    kind = next((kind for kind in LINEAR_LAYERS if isinstance(layer, kind)), None)
    own = type(layer)
    methods = ("forward", "_conv_forward")
    plain = all(getattr(own, name, None) is getattr(kind, name, None) for name in methods)
    return kind is not None and plain and "weight" in layer._parameters


def num_taps(layer: nn.Module) -> int:
    """Kernel positions of a convolution; 1 for a linear layer."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight[0, 0].numel()


def num_groups(layer: nn.Module) -> int:
    """Conv groups; 1 for a linear layer."""
    return layer.groups if isinstance(layer, _ConvNd) else 1


def num_channels(layer: nn.Module) -> int:
    """Input channels, of all conv groups."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight.shape[1] * num_groups(layer)


def input_channels(layer: nn.Module, columns: Tensor) -> Tensor:
    """``(width, n * conv groups)`` input channels of units that own ``(width, n)`` columns of the weight.

    The weight's columns are those of every conv group.
    """
    starts = range(0, num_channels(layer), num_channels(layer) // num_groups(layer))
    return torch.cat([columns + start for start in starts], dim=1)


def draw_sites(sizes: Sequence[int], count: int, generator: torch.Generator) -> Sites:
    """``count`` positions, as evenly over the samples as can be, at random places of each.

    No position comes twice where they are a good part of all that there are; of many more, hardly one does.
    Positions that came twice would stand on both sides when some are held out.

    Args:
        sizes: Samples, then the places along each other dimension of the outputs but the channels.
        count: Positions; all that there are, if there are fewer.
        generator: Source of randomness.
    """
    samples, *places = sizes
    if not places:
        return (torch.randperm(samples, generator=generator)[:count],)
    per_sample = torch.Size(places).numel()
    count = min(count, samples * per_sample)
    start = int(torch.randint(samples, (), generator=generator))
    sample = (start + torch.arange(count)) % samples
    if samples * per_sample <= _SPARSE * count:
        # Each sample's places in an order of its own; every round takes the next one of each sample.
        order = torch.rand(samples, per_sample, generator=generator).argsort(dim=1)
        place = order[sample, torch.arange(count) // samples]
        return sample, *torch.unravel_index(place, tuple(places))
    return sample, *(torch.randint(size, (count,), generator=generator) for size in places)


def output_sizes(layer: nn.Module, outputs: Tensor) -> list[int]:
    """The dimensions of ``outputs`` that :func:`draw_sites` wants: all but the channels."""
    return list(channels_last(layer, outputs).shape[:-1])


def channels_last(layer: nn.Module, values: Tensor) -> Tensor:
    """A view of a layer's inputs or outputs whose last dimension is the channels."""
    return values.movedim(1, -1) if isinstance(layer, _ConvNd) else values


def outputs_at(layer: nn.Module, outputs: Tensor, sites: Sites) -> Tensor:
    """``(sites, channels)`` outputs of ``layer``, or anything of their shape."""
    return channels_last(layer, outputs)[sites]


def inputs_at(layer: nn.Module, inputs: Tensor, sites: Sites) -> Tensor:
    """Unfolded inputs at ``sites`` only: ``(conv groups, sites, channels per group * taps)``.

    Columns are in the order of ``weight.flatten(1)``. Nothing is unfolded that no site reads.
    """
    if not isinstance(layer, _ConvNd):
        return inputs[sites].unsqueeze(0)
    if layer.padding_mode == "zeros":
        rows = _zero_padded(layer, inputs.movedim(1, -1), sites)
    else:
        padded = F.pad(inputs, _padding(layer), mode=_PAD_MODES[layer.padding_mode]).movedim(1, -1)
        rows = torch.stack([padded[index] for index in _read_at(layer, sites)], dim=2)
    return rows.reshape(len(rows), layer.groups, -1).movedim(1, 0)


def _zero_padded(layer: _ConvNd, values: Tensor, sites: Sites) -> Tensor:
    """``(sites, channels, taps)`` from ``values`` with channels last; padding all of them would cost more."""
    starts = _padding(layer)[-2::-2]
    columns = []
    for sample, *places in _read_at(layer, sites):
        inside = torch.ones_like(sample, dtype=torch.bool)
        index = [sample]
        for place, start, size in zip(places, starts, values.shape[1:-1], strict=True):
            index.append((place - start).clamp(0, size - 1))
            inside &= (place >= start) & (place < start + size)
        columns.append(values[tuple(index)] * inside[:, None])
    return torch.stack(columns, dim=2)


def _read_at(layer: _ConvNd, sites: Sites) -> list[Sites]:
    """For each tap, where in the padded inputs it reads."""
    sample, *places = sites
    offsets = itertools.product(
        *(range(0, k * d, d) for k, d in zip(layer.kernel_size, layer.dilation, strict=True))
    )
    corners = [place * stride for place, stride in zip(places, layer.stride, strict=True)]
    return [(sample, *(c + o for c, o in zip(corners, offset, strict=True))) for offset in offsets]


def empty_outputs(layer: nn.Module, inputs: Tensor) -> Tensor:
    """Uninitialised numbers in the shape, type and layout of ``layer(inputs)``."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    if not isinstance(layer, _ConvNd):
        return inputs.new_empty(*inputs.shape[:-1], len(weight))
    ends = _padding(layer)
    padded = [size + ends[2 * i] + ends[2 * i + 1] for i, size in enumerate(reversed(inputs.shape[2:]))][::-1]
    places = [
        (size - d * (k - 1) - 1) // s + 1
        for size, d, k, s in zip(padded, layer.dilation, layer.kernel_size, layer.stride, strict=True)
    ]
    if inputs.dim() == 4 and inputs.is_contiguous(memory_format=torch.channels_last):
        return inputs.new_empty(len(inputs), len(weight), *places).to(memory_format=torch.channels_last)
    return inputs.new_empty(len(inputs), len(weight), *places)


_PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "replicate", "circular": "circular"}


def _padding(layer: _ConvNd) -> list[int]:
    """For ``F.pad``: both ends of each dimension, the last one first."""
    if layer.padding == "valid":
        return [0, 0] * len(layer.kernel_size)
    if layer.padding == "same":
        totals = [d * (k - 1) for k, d in zip(layer.kernel_size, layer.dilation, strict=True)]
        return [side for total in reversed(totals) for side in (total // 2, total - total // 2)]
    assert not isinstance(layer.padding, str)
    return [side for size in reversed(layer.padding) for side in (size, size)]
