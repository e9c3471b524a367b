"""Stacking, repeating, rolling and windows: what is put where, without a change of its numbers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from spaces.rules.call import Call, rule
from spaces.rules.shapes import splitting

if TYPE_CHECKING:
    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


@rule(aten.stack)
def stacking(slots: Slots, call: Call) -> list[TensorLabels]:
    """A new dimension of fixed size; the others go together."""
    tensors = call["tensors"]
    met = zip(*(slots.of(tensor) for tensor in tensors), strict=True)
    labels = [slots.meet(dimensions) for dimensions in met]
    labels.insert(call["dim"] % (len(labels) + 1), None)
    return [tuple(labels)]


@rule(aten.unbind)
def unbinding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each index becomes a tensor of its own, so the dimension stays."""
    labels = list(slots.of(call["self"]))
    slots.freeze(labels.pop(call["dim"] % len(labels)))
    return [tuple(labels) for _ in call.outputs]


@rule(aten.unsafe_split, aten.unsafe_split_with_sizes)
def gates(slots: Slots, call: Call) -> list[TensorLabels]:
    """Recurrent cells split their gates in this way and multiply them, so all lose the same places."""
    labels = slots.of(call["self"])
    dim = call["dim"] % len(labels)
    cut = labels[dim]
    if cut is None or len({output.shape[dim] for output in call.outputs}) > 1:
        return splitting(slots, call)
    pieces = cut.reshape(len(call.outputs), -1)
    slots.tie(pieces, pieces[:1])
    return [(*labels[:dim], piece, *labels[dim + 1 :]) for piece in pieces]


@rule(aten.repeat)
def repetition(slots: Slots, call: Call) -> list[TensorLabels]:
    """Copies lose what the first loses; how often a single slot is repeated is up to Python code."""
    source, repeats = call["self"], call["repeats"]
    num_new = len(repeats) - source.dim()
    labels = (None,) * num_new + slots.of(source)
    sizes = (1,) * num_new + tuple(source.shape)
    return [
        tuple(
            _repeated(slots, some, size, times)
            for some, size, times in zip(labels, sizes, repeats, strict=True)
        )
    ]


def _repeated(slots: Slots, labels: Labels, size: int, times: int) -> Labels:
    if times == 1:
        return labels
    if size == 1:
        return slots.fresh(times)
    return None if labels is None else np.tile(labels, times)


@rule(aten.roll, aten.rot90)
def moving(slots: Slots, call: Call) -> list[TensorLabels]:
    """Slots of some dimensions change places by a fixed amount, so those dimensions stay."""
    labels = list(slots.of(call["self"]))
    for dim in call.dims("dims", max(1, len(labels))) if labels else ():
        slots.freeze(labels[dim])
        labels[dim] = None
    return [tuple(labels)]


@rule(aten.tril, aten.triu)
def triangle(slots: Slots, call: Call) -> list[TensorLabels]:
    """Fixed places of the last two dimensions become zero."""
    *batch, rows, columns = slots.of(call["self"])
    slots.freeze(rows, columns)
    return [(*batch, None, None)]


@rule(aten.diagonal)
def diagonal(slots: Slots, call: Call) -> list[TensorLabels]:
    """Two dimensions are read at fixed places and become one."""
    labels = slots.of(call["self"])
    dims = {call[name] % len(labels) for name in ("dim1", "dim2")}
    slots.freeze(*(labels[dim] for dim in dims))
    return [(*(some for dim, some in enumerate(labels) if dim not in dims), None)]


@rule(aten.diag_embed)
def diagonal_matrix(slots: Slots, call: Call) -> list[TensorLabels]:
    """The last dimension becomes two, whose sizes are fixed."""
    labels = list(slots.of(call["self"]))
    slots.freeze(labels.pop())
    for dim in sorted(call[name] % (len(labels) + 2) for name in ("dim1", "dim2")):
        labels.insert(dim, None)
    return [tuple(labels)]


@rule(aten.diagonal_scatter)
def diagonal_writing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Two dimensions are written at fixed places."""
    labels, source = list(slots.of(call["self"])), list(slots.of(call["src"]))
    dims = {call[name] % len(labels) for name in ("dim1", "dim2")}
    slots.freeze(source.pop(), *(labels[dim] for dim in dims))
    others = iter(source)
    return [
        tuple(some if dim in dims else slots.meet([some, next(others)]) for dim, some in enumerate(labels))
    ]


@rule(aten.unfold)
def windows(slots: Slots, call: Call) -> list[TensorLabels]:
    """Windows of a fixed size are cut from one dimension and stand in a new last one."""
    labels = list(slots.of(call["self"]))
    dim = call["dimension"] % len(labels)
    slots.freeze(labels[dim])
    labels[dim] = None
    return [(*labels, None)]


@rule(aten.im2col)
def patches(slots: Slots, call: Call) -> list[TensorLabels]:
    """``(..., channels, height, width)`` to ``(..., channels x places in a patch, patches)``."""
    *batch, channels, height, width = slots.of(call["self"])
    slots.freeze(height, width)
    return [(*batch, widened(channels, math.prod(call["kernel_size"])), None)]


@rule(aten.col2im)
def image_of_patches(slots: Slots, call: Call) -> list[TensorLabels]:
    """Undoes :func:`patches`: all places of a channel go together."""
    *batch, columns, positions = slots.of(call["self"])
    slots.freeze(positions)
    return [(*batch, narrowed(slots, columns, math.prod(call["kernel_size"])), None, None)]


def widened(channels: Labels, times: int) -> Labels:
    """Labels of a dimension in which each channel has ``times`` slots, one after another."""
    return None if channels is None else np.repeat(channels, times)


def narrowed(slots: Slots, labels: Labels, times: int) -> Labels:
    """Labels of a dimension in which ``times`` slots, one after another, become one channel."""
    if labels is None:
        return None
    lines = labels.reshape(-1, times)
    slots.tie(lines, lines[:, :1])
    return lines[:, 0]
