"""Rarer products: with vectors, of three tensors, with a summand, in groups of rows, and distances."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces.rules.call import Call, freeze_inputs, rule
from spaces.rules.contractions import matrix_product

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


def _sizes(labels: Sequence[Labels], shape: Sequence[int]) -> list[NDArray[np.int64] | int]:
    return [n if some is None else some for some, n in zip(labels, shape, strict=True)]


def _with_summand(slots: Slots, summand: Tensor, made: TensorLabels, shape: Sequence[int]) -> TensorLabels:
    """Labels of a product to which a tensor is added that may have to be stretched."""
    result = list(made)
    for from_end, some in enumerate(reversed(slots.of(summand)), start=1):
        if summand.shape[-from_end] == shape[-from_end]:
            result[-from_end] = slots.meet([result[-from_end], some])
    return tuple(result)


@rule(aten.baddbmm)
def batched_product_with_summand(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts the inner dimension."""
    product = replace(call, arguments={"self": call["batch1"], "mat2": call["batch2"]})
    (made,) = matrix_product(slots, product)
    return [_with_summand(slots, call["self"], made, call.outputs[0].shape)]


@rule(aten.addbmm)
def summed_products(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts the inner dimension and the batch."""
    product = replace(call, arguments={"self": call["batch1"], "mat2": call["batch2"]})
    ((_, *made),) = matrix_product(slots, product)
    return [_with_summand(slots, call["self"], tuple(made), call.outputs[0].shape)]


@rule(aten.mv, aten.addmv)
def product_with_vector(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts the columns of a matrix with a vector."""
    matrix = call["self"] if call.operator.overloadpacket is aten.mv else call["mat"]
    rows, columns = slots.of(matrix)
    slots.give_role(rows, "output")
    slots.give_role(columns, "input")
    contracted = slots.meet([columns, slots.of(call["vec"])[0]])
    slots.count(1, _sizes([rows, contracted], matrix.shape))
    if matrix is call["self"]:
        return [(rows,)]
    return [_with_summand(slots, call["self"], (rows,), call.outputs[0].shape)]


@rule(aten.dot, aten.vdot)
def product_of_vectors(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts both."""
    left, right = call.inputs
    slots.count(1, _sizes([slots.meet([slots.of(left)[0], slots.of(right)[0]])], left.shape))
    return [()]


@rule(aten.addr)
def outer_product_with_summand(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each slot of one vector with each slot of another."""
    made = (*slots.of(call["vec1"]), *slots.of(call["vec2"]))
    return [_with_summand(slots, call["self"], made, call.outputs[0].shape)]


@rule(aten._trilinear)
def product_of_three(slots: Slots, call: Call) -> list[TensorLabels]:
    """Three tensors are stretched to each other, multiplied, and summed over some dimensions."""
    rank = call["i1"].dim() + len(call["expand1"])
    summed = {dim % rank for dim in call["sumdim"]}
    present: list[list[Labels]] = [[] for _ in range(rank)]
    for number in (1, 2, 3):
        stretched = {dim % rank for dim in call[f"expand{number}"]}
        own = [dim for dim in range(rank) if dim not in stretched]
        for dim, some in zip(own, slots.of(call[f"i{number}"]), strict=True):
            if number == 2:  # the weight of a bilinear layer
                slots.give_role(some, "input" if dim in summed else "output")
            present[dim].append(some)
    labels = [slots.meet(met) for met in present]
    return [tuple(some for dim, some in enumerate(labels) if dim not in summed)]


@rule(aten._grouped_mm)
def product_in_groups(slots: Slots, call: Call) -> list[TensorLabels]:
    """Rows in groups, each with a matrix of its own, as a mixture of experts has: experts stay."""
    left, right = call["self"], call["mat2"]
    if left.dim() != 2 or right.dim() != 3 or call["bias"] is not None:
        freeze_inputs(slots, call)
        return [(None,) * call.outputs[0].dim()]
    (rows, contracted), (experts, read, made) = slots.of(left), slots.of(right)
    slots.freeze(experts, reason="experts")
    slots.give_role(made, "output")
    slots.give_role(read, "input")
    labels = [rows, slots.meet([contracted, read]), made]
    slots.count(1, _sizes(labels, (*left.shape, right.shape[-1])))
    return [(rows, made)]


@rule(aten._cdist_forward, aten._euclidean_dist)
def distances(slots: Slots, call: Call) -> list[TensorLabels]:
    """Between all rows of two tensors; columns in which both are zero add nothing."""
    pair = (call["x1"], call["x2"])
    (*_, rows, mine), (*_, other_rows, theirs) = (slots.of(x) for x in pair)
    slots.meet([mine, theirs])
    batch = call.outputs[0].shape[:-2]
    met = [
        [
            slots.of(x)[-from_end - 2]
            for x in pair
            if x.dim() >= from_end + 2 and x.shape[-from_end - 2] == size
        ]
        for from_end, size in zip(range(len(batch), 0, -1), batch, strict=True)
    ]
    return [(*(slots.meet(dimensions) for dimensions in met), rows, other_rows)]


@rule(aten._pdist_forward)
def distances_within(slots: Slots, call: Call) -> list[TensorLabels]:
    """Between all pairs of rows, in a fixed order."""
    rows, _ = slots.of(call["self"])
    slots.freeze(rows)
    return [(None,)]
