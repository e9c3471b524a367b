"""Convolutions and matrix products: the contracted dimension vanishes, and the multiply-adds are counted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spaces.rules.call import Call, rule

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


@rule(aten.convolution, aten._convolution)
def convolution(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts input channels; for those in groups see :func:`_parts`."""
    data, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"]
    batch, read, *spatial = slots.of(data)
    rows, columns, *kernel = slots.of(weight)
    size = tuple(weight.shape[:2])
    if call["transposed"]:
        rows, columns, size = columns, rows, size[::-1]
    slots.freeze(*spatial, *kernel)
    positions = math.prod(call.outputs[0].shape[2:]) if not call["transposed"] else math.prod(data.shape[2:])
    if groups == 1:
        slots.give_role(rows, "output")
        slots.give_role(columns, "input")
        slots.tie(read, columns)
        made = rows
    elif read is None or (columns if call["transposed"] else rows) is None:
        slots.freeze(read, rows, columns)
        made = None
    elif call["transposed"]:
        made = _transposed_groups(slots, read, columns, rows, groups, size[0])
    else:
        _conv_groups(slots, read, rows, columns, groups)
        made = rows
    if bias is not None:
        slots.give_role(slots.of(bias)[0], "bias")
        slots.tie(slots.of(bias)[0], made)
    slots.count(
        data.shape[0] * positions * math.prod(weight.shape[2:]),
        [labels if labels is not None else n for labels, n in zip((rows, columns), size, strict=True)],
    )
    return [(batch, made, *(None for _ in spatial))]


def _parts(slots: Slots, read: NDArray[np.int64], groups: int) -> tuple[Labels, Labels]:
    """Labels of the conv groups, or of the inputs of each: whichever leaves more widths to choose from."""
    per_group = len(read) // groups
    if per_group == 1:
        return read, None
    whole, within = slots.split(read, (groups, per_group), default=-1 if per_group > groups else -2)
    return whole, within


def _conv_groups(slots: Slots, read: NDArray[np.int64], rows: Labels, columns: Labels, groups: int) -> None:
    """Some conv groups go, or inputs and outputs of all of them become fewer.

    Args: see :func:`convolution`; the weight is ``(out, in per group, ...)``.
    """
    assert rows is not None
    slots.give_role(rows, "output")
    grid = rows.reshape(groups, -1)
    whole, within = _parts(slots, read, groups)
    if whole is None:
        slots.give_role(columns, "input")
        slots.tie(columns, within)
        slots.tie(grid, grid[:1])
    else:
        slots.freeze(columns)
        slots.counts.append(grid[:, 0])
        slots.tie(grid, whole[:, None])


def _transposed_groups(
    slots: Slots, read: NDArray[np.int64], rows: Labels, columns: Labels, groups: int, num_made: int
) -> Labels:
    """As :func:`_conv_groups`, of a weight ``(in, out per group, ...)``; labels of what it makes."""
    assert rows is not None
    slots.tie(read, rows)
    whole, _ = _parts(slots, read, groups)
    if whole is None:
        slots.give_role(columns, "output")
        slots.give_role(rows, "input")
        return None if columns is None else np.tile(columns, groups)
    # A group's outputs have no slots of their own but go with its inputs.
    slots.freeze(columns)
    slots.give_role(rows, "output")
    slots.counts.append(whole)
    return np.repeat(whole, num_made)


def _matrix_product(slots: Slots, left: Tensor, right: Tensor) -> TensorLabels:
    *batch_left, rows, contracted = slots.of(left)
    *batch_right, read, made = slots.of(right)
    slots.give_role(made, "output")
    slots.give_role(read, "input")
    batch = [slots.meet([a, b]) for a, b in zip(batch_left, batch_right, strict=True)]
    labels = (*batch, rows, slots.meet([contracted, read]), made)
    slots.count(
        1,
        [n if some is None else some for some, n in zip(labels, (*left.shape, right.shape[-1]), strict=True)],
    )
    return (*batch, rows, made)


@rule(aten.mm, aten.bmm)
def matrix_product(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts the inner dimension."""
    if call["self"].dim() > 2:
        for some in (*slots.of(call["self"])[1:], *slots.of(call["mat2"])[1:]):
            if some is not None:
                slots.multiplied.append(some)
    return [_matrix_product(slots, call["self"], call["mat2"])]


@rule(aten.addmm)
def linear(slots: Slots, call: Call) -> list[TensorLabels]:
    """A linear layer: matrix product plus bias."""
    made = _matrix_product(slots, call["mat1"], call["mat2"])
    bias = slots.of(call["self"])
    slots.give_role(bias[-1], "bias")
    for labels, size, out in zip(reversed(bias), reversed(call["self"].shape), reversed(made), strict=False):
        if size > 1:
            slots.tie(labels, out)
    return [made]
