"""Norms, reductions and pooling: what acts on each channel alone, and what mixes channels."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces.rules.call import Call, rule

if TYPE_CHECKING:
    from spaces.slots import Slots, TensorLabels

aten = torch.ops.aten


@rule(
    aten.native_batch_norm,
    aten.cudnn_batch_norm,
    aten._native_batch_norm_legit,
    aten._native_batch_norm_legit_no_training,
    aten._batch_norm_with_update,
    aten._batch_norm_no_update,
)
def batch_norm(slots: Slots, call: Call) -> list[TensorLabels]:
    """Acts on each channel alone: its parameters and statistics go with the channel."""
    data, *others = call.inputs
    labels = slots.of(data)
    roles = {"weight": "scale", "bias": "bias", "running_mean": "statistic", "running_var": "statistic"}
    for name, role in roles.items():
        if isinstance(call.arguments.get(name), Tensor):
            slots.give_role(slots.of(call[name])[0], role)  # type: ignore[arg-type]
    for tensor in others:
        slots.tie(labels[1], slots.of(tensor)[0])
    if call.arguments.get("running_mean") is None:
        # Statistics of the data at hand: standardised weights mix their inputs, for instance.
        for dim, mixed in enumerate(labels):
            if dim != 1:
                slots.mark_inexact(mixed)
    return [labels]


@rule(aten.native_layer_norm, aten._fused_rms_norm)
def layer_norm(slots: Slots, call: Call) -> list[TensorLabels]:
    """Mixes the values of all channels: shapes follow, values change, so the group is inexact by nature."""
    labels = slots.of(call["input"])
    num_normalized = len(call["normalized_shape"])
    normalized = labels[-num_normalized:]
    for name, role in (("weight", "scale"), ("bias", "bias")):
        if call.arguments.get(name) is not None:
            for mine, theirs in zip(normalized, slots.of(call[name]), strict=True):
                slots.give_role(theirs, role)  # type: ignore[arg-type]
                slots.tie(mine, theirs)
    for mine in normalized:
        slots.mark_inexact(mine)
    statistics = (*labels[:-num_normalized], *(None,) * num_normalized)
    return [labels, *(statistics[: output.dim()] for output in call.outputs[1:])]


@rule(aten.native_group_norm)
def group_norm(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each group is normalised alone, so whole groups may go; with one group it is a norm over channels."""
    labels = slots.of(call["input"])
    mine, num_groups = labels[1], call["group"]
    for name, role in (("weight", "scale"), ("bias", "bias")):
        if call[name] is not None:
            theirs = slots.of(call[name])[0]
            slots.give_role(theirs, role)  # type: ignore[arg-type]
            slots.tie(mine, theirs)
    if mine is not None and num_groups == 1:
        slots.mark_inexact(mine)
    elif mine is not None and num_groups < len(mine):
        whole, within = slots.split(mine, (num_groups, len(mine) // num_groups), default=-2)
        if whole is None:
            slots.mark_inexact(within)
    return [labels, *((labels[0], None) for _ in call.outputs[1:])]


_DEVIATIONS = {aten.std, aten.std_mean, aten.var, aten.var_mean}


@rule(aten.amax, aten.amin, aten.mean, aten.std, aten.std_mean, aten.var, aten.var_mean)
def reduction(slots: Slots, call: Call) -> list[TensorLabels]:
    """Reducing over channels gives another value when some go, so their group is inexact by nature."""
    x = call.inputs[0]
    dims = call.dims("dim", x.dim())
    unbiased = call.arguments.get("unbiased", True) and call.arguments.get("correction") != 0
    if call.operator.overloadpacket in _DEVIATIONS and unbiased:
        labelled = [dim for dim in dims if slots.of(x)[dim] is not None]
        if len(labelled) == 1 and all(x.shape[dim] == 1 for dim in dims if dim not in labelled):
            slots.mark_deviating(slots.of(x)[labelled[0]])
    return _reduced(slots, call, drops_labels=False)


@rule(aten.sum, aten.linalg_vector_norm)
def summation(slots: Slots, call: Call) -> list[TensorLabels]:
    """A removed channel is zero in a sum or a norm, so labels may be dropped."""
    return _reduced(slots, call, drops_labels=True)


def _reduced(slots: Slots, call: Call, *, drops_labels: bool) -> list[TensorLabels]:
    labels = slots.of(call.inputs[0])
    dims = call.dims("dim", len(labels))
    if not drops_labels:
        for dim in dims:
            slots.mark_inexact(labels[dim])
    keepdim = bool(call.arguments.get("keepdim"))
    return [
        tuple(None if dim in dims else some for dim, some in enumerate(labels) if keepdim or dim not in dims)
        for _ in call.outputs
    ]


@rule(aten._softmax, aten._safe_softmax, aten._log_softmax, aten.cumsum, aten.flip)
def along_dim(slots: Slots, call: Call) -> list[TensorLabels]:
    """Mixes or reorders one dimension, which therefore stays; the others act alone."""
    labels = slots.of(call["self"])
    dims = call.dims("dims" if "dims" in call.arguments else "dim", len(labels))
    slots.freeze(*(labels[dim] for dim in dims))
    return [tuple(None if dim in dims else some for dim, some in enumerate(labels))]


@rule(
    aten.adaptive_avg_pool2d,
    aten._adaptive_avg_pool2d,
    aten._adaptive_avg_pool3d,
    aten.adaptive_max_pool2d,
    aten.avg_pool1d,
    aten.avg_pool2d,
    aten.avg_pool3d,
    aten.max_pool2d,
    aten.max_pool2d_with_indices,
    aten.max_pool3d_with_indices,
    aten.upsample_bilinear2d,
    aten.upsample_nearest2d,
)
def pooling(slots: Slots, call: Call) -> list[TensorLabels]:
    """Acts on each channel alone and changes only positions, whose sizes are fixed."""
    labels = slots.of(call.inputs[0])
    num_positions = _rank(call)
    slots.freeze(*labels[-num_positions:])
    return [(*labels[:-num_positions], *(None,) * num_positions) for _ in call.outputs]


def _rank(call: Call) -> int:
    """Dimensions of the positions: the digit in names such as ``max_pool2d_with_indices``."""
    return int(re.findall(r"([123])d", str(call.operator))[0])
