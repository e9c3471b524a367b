"""Element-wise operators: what meets in one place goes together."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces.rules.call import Call, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


def _broadcast(slots: Slots, tensors: list[Tensor], shape: Sequence[int]) -> TensorLabels:
    result: list[Labels] = []
    for dim, size in enumerate(shape):
        offset = len(shape) - dim
        present = [
            slots.of(tensor)[tensor.dim() - offset]
            for tensor in tensors
            if tensor.dim() >= offset and tensor.shape[tensor.dim() - offset] == size
        ]
        # Dimensions of size one stretch with whatever they meet.
        result.append(slots.meet(present) if size > 1 else next((p for p in present if p is not None), None))
    return tuple(result)


@rule(
    # Element-wise operators that ATen does not tag as such.
    aten.copy_,
    aten.hardswish,
    aten.log_sigmoid_forward,
    aten._prelu_kernel,
    aten.rrelu_with_noise,
)
def pointwise(slots: Slots, call: Call) -> list[TensorLabels]:
    """Matching dimensions go together."""
    return [_broadcast(slots, call.inputs, output.shape) for output in call.outputs]


@rule(
    aten.alias,
    aten.bernoulli,
    aten.clone,
    aten.contiguous,
    aten.detach,
    aten.dropout,
    aten.empty_like,
    aten.fill,
    aten.full_like,
    aten.lift_fresh,
    aten.native_dropout,
    aten.ones_like,
    aten.rand_like,
    aten.randn_like,
    aten._to_copy,
    aten.zero,
    aten.zeros_like,
)
def same_shape(slots: Slots, call: Call) -> list[TensorLabels]:
    """Outputs are shaped as the first tensor is."""
    labels = slots.of(call.inputs[0])
    return [labels for _ in call.outputs]


@rule(
    aten.arange,
    aten.empty,
    aten.empty_strided,
    aten.eye,
    aten.full,
    aten.linspace,
    aten.new_empty,
    aten.new_empty_strided,
    aten.new_full,
    aten.new_ones,
    aten.new_zeros,
    aten.ones,
    aten.rand,
    aten.randn,
    aten.randint,
    aten.randperm,
    aten.zeros,
)
def factory(slots: Slots, call: Call) -> list[TensorLabels]:
    """Python code chose the size, perhaps a width: it goes along with whatever it meets."""
    return [tuple(slots.fresh(size) for size in output.shape) for output in call.outputs]
