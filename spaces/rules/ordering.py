"""Sorts, extremes and running products along a dimension, which therefore stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spaces.rules.call import Call, rule
from spaces.rules.reductions import along_dim, summation

if TYPE_CHECKING:
    from spaces.slots import Slots, TensorLabels

aten = torch.ops.aten

rule(aten._safe_softmax)(along_dim)

# Zero adds nothing to any of these, in the dimensions that they reduce.
rule(aten.count_nonzero, aten.nansum, aten.norm)(summation)


@rule(aten.all, aten.any)
def quantified(slots: Slots, call: Call) -> list[TensorLabels]:
    """What a removed channel answers, ``0 <= 0`` for one, may decide for all: those that are asked stay."""
    labels = slots.of(call["self"])
    slots.freeze(*(labels[dim] for dim in call.dims("dim", len(labels))), reason="asked of all its slots")
    return summation(slots, call)


@rule(aten.argsort, aten.cummax, aten.cummin, aten.cumprod, aten.logcumsumexp, aten.sort, aten.topk)
def ordered(slots: Slots, call: Call) -> list[TensorLabels]:
    """What stands where depends on all slots of the dimension."""
    labels = list(slots.of(call["self"]))
    if labels:
        dim = call["dim"] % len(labels)
        slots.freeze(labels[dim], reason="ordered by its numbers")
        labels[dim] = None
    return [tuple(labels) for _ in call.outputs]


@rule(
    aten.aminmax,
    aten.argmax,
    aten.argmin,
    aten.kthvalue,
    aten.logsumexp,
    aten.max,
    aten.median,
    aten.min,
    aten.mode,
    aten.nanmedian,
    aten.prod,
)
def extreme(slots: Slots, call: Call) -> list[TensorLabels]:
    """One slot stands for a whole dimension, or for all of them."""
    labels = slots.of(call["self"])
    dims = call.dims("dim", len(labels)) if labels else set()
    slots.freeze(*(labels[dim] for dim in dims), reason="one value stands for all slots")
    keepdim = bool(call.arguments.get("keepdim"))
    kept = tuple(None if d in dims else some for d, some in enumerate(labels) if keepdim or d not in dims)
    return [kept for _ in call.outputs]
