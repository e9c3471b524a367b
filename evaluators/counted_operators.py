"""Operators whose multiply-adds count, and how many each of them makes.

Every handle gets a traced operator's inputs and outputs and returns an integer. fvcore has handles of its
own, but rounds ``einsum`` to four digits, leaves out batches that ``matmul`` stretches, and lacks others.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from evaluators.einsum import einsum_macs

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

with warnings.catch_warnings():  # fvcore scripts functions with torch.jit, which warns on import
    warnings.simplefilter("ignore")
    from fvcore.nn.jit_handles import conv_flop_count, get_shape

Handle = Callable[[list[Any], list[Any]], int]


def _shape(value: Any) -> list[int]:
    sizes: list[int] = get_shape(value)
    return sizes


def _convolution(inputs: list[Any], outputs: list[Any]) -> int:
    """``input, weight, bias, stride, padding, dilation, transposed, ...``, of which the rest is free."""
    macs: int = conv_flop_count(*map(_shape, (*inputs[:2], outputs[0])), transposed=inputs[6].toIValue())
    return macs


def _convolution_with_named_padding(inputs: list[Any], outputs: list[Any]) -> int:
    """``input, weight, bias, stride, "same" or "valid", dilation, groups``: never transposed."""
    macs: int = conv_flop_count(*map(_shape, (*inputs[:2], outputs[0])))
    return macs


def _linear(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``(..., in)`` and ``(out, in)`` or ``(in,)``."""
    data, weight = map(_shape, inputs[:2])
    return math.prod(data) * math.prod(weight[:-1])


def _matrix_product(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``(..., n, k)`` and ``(..., k, m)``, whose batches are stretched to each other, or vectors."""
    left, right = map(_shape, inputs[:2])
    rows = left[-2] if len(left) > 1 else 1
    columns = right[-1] if len(right) > 1 else 1
    return math.prod(_stretched(left[:-2], right[:-2])) * rows * left[-1] * columns


def _inner_product(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``(..., k)`` and ``(..., k)``: everything in front of one with everything in front of the other."""
    left, right = map(_shape, inputs[:2])
    return math.prod(left) * math.prod(right[:-1])


def _tensor_product(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``left, right`` and the dimensions of each that are summed over."""
    left, right = map(_shape, inputs[:2])
    summed = {dim.toIValue() % len(right) for dim in inputs[3].node().inputs()}
    return math.prod(left) * math.prod(size for dim, size in enumerate(right) if dim not in summed)


def _product_with_summand(inputs: list[Any], outputs: list[Any]) -> int:
    return _matrix_product(inputs[1:3], outputs)


def _product_in_groups(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """Where only one side has three dimensions, the groups share the rows or columns of the other."""
    left, right = map(_shape, inputs[:2])
    groups = left[0] if len(left) == len(right) == 3 else 1
    return groups * left[-2] * left[-1] * right[-1]


def _attention(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``Q K'`` and its product with ``V``: ``(..., L, E)``, ``(..., S, E)``, ``(..., S, Ev)``.

    Where keys have fewer heads than queries, each of them is used several times.
    """
    query, key, value = map(_shape, inputs[:3])
    batch = _stretched(query[:-2], key[:-2], value[:-2])
    return math.prod(batch) * query[-2] * key[-2] * (query[-1] + value[-1])


def _recurrent(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """Every step of every sequence passes every weight matrix of every layer and direction once.

    The data are ``(sequence, batch, features)``, with the first two in either order, or ``(steps, features)``
    of packed sequences. The last list of tensors holds the weights: those to and from the gates, and the
    projections.
    """
    data = _shape(inputs[0])
    weights = [value for value in inputs if value.type().kind() == "ListType"][-1]
    shapes = map(_shape, weights.node().inputs())
    return math.prod(data[:-1]) * sum(math.prod(shape) for shape in shapes if len(shape) == 2)


def _einsum(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``equation, operands, path``, the path where there are more than two operands, if at all."""
    equation, shapes = inputs[0].toIValue(), [_shape(operand) for operand in inputs[1].node().inputs()]
    has_path = len(inputs) > 2 and inputs[2].type().kind() == "ListType"
    path = [position.toIValue() for position in inputs[2].node().inputs()] if has_path else []
    return einsum_macs(equation, shapes, path)


def _stretched(*shapes: Sequence[int]) -> Iterable[int]:
    """Sizes of dimensions, aligned at the last one, that are stretched to each other."""
    return (max(sizes) for sizes in zip_longest(*(reversed(shape) for shape in shapes), fillvalue=1))


#: One multiply-add counts one, as everywhere in fvcore.
COUNTED: dict[str, Handle] = {
    "aten::_convolution": _convolution,
    "aten::_convolution_mode": _convolution_with_named_padding,
    "aten::_grouped_mm": _product_in_groups,
    "aten::addbmm": _product_with_summand,
    "aten::addmm": _product_with_summand,
    "aten::addmv": _product_with_summand,
    "aten::baddbmm": _product_with_summand,
    "aten::bmm": _matrix_product,
    "aten::dot": _matrix_product,
    "aten::einsum": _einsum,
    "aten::gru": _recurrent,
    "aten::inner": _inner_product,
    "aten::linear": _linear,
    "aten::lstm": _recurrent,
    "aten::matmul": _matrix_product,
    "aten::mm": _matrix_product,
    "aten::mv": _matrix_product,
    "aten::rnn_relu": _recurrent,
    "aten::rnn_tanh": _recurrent,
    "aten::scaled_dot_product_attention": _attention,
    "aten::tensordot": _tensor_product,
    "aten::vdot": _matrix_product,
}
COUNTED |= {
    f"{name}_": COUNTED[name] for name in ("aten::addbmm", "aten::addmm", "aten::addmv", "aten::baddbmm")
}
