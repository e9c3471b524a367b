"""How each ATen operator hands slot labels from its inputs to its outputs.

A rule takes the slots and one call and returns the labels of each output tensor. An operator without a
rule freezes whatever it reads and is named in ``Space.warnings``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from spaces.slots import Labels, Slots, TensorLabels

if TYPE_CHECKING:
    from torch._ops import OpOverload

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Call:
    """One operator call.

    Attributes:
        operator: The ATen overload.
        arguments: By schema name, defaults filled in.
        outputs: Every tensor that came out.
        sizes: Shape of the first argument before the call, which an in-place operator may change.
    """

    operator: OpOverload
    arguments: dict[str, Any]
    outputs: tuple[Tensor, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(
        cls, operator: OpOverload, args: Sequence[Any], kwargs: dict[str, Any], result: Any, sizes: tuple[int, ...]
    ) -> Call:
        """Bind positional arguments and defaults to their names."""
        arguments = {}
        for position, argument in enumerate(operator._schema.arguments):
            if position < len(args):
                arguments[argument.name] = args[position]
            else:
                arguments[argument.name] = kwargs.get(
                    argument.name, argument.default_value if argument.has_default_value() else None
                )
        outputs = result if isinstance(result, (tuple, list)) else (result,)
        return cls(operator, arguments, tuple(output for output in outputs if isinstance(output, Tensor)), sizes)

    def __getitem__(self, name: str) -> Any:
        return self.arguments[name]

    @property
    def inputs(self) -> list[Tensor]:
        """Every tensor among the arguments, those in lists too."""
        flat = (x for a in self.arguments.values() for x in (a if isinstance(a, (tuple, list)) else (a,)))
        return [x for x in flat if isinstance(x, Tensor)]

    def dims(self, name: str, rank: int) -> set[int]:
        """A ``dim`` argument as a set of non-negative dimensions; all of them when it is absent."""
        value = self.arguments.get(name)
        if value is None or value == []:
            return set(range(rank))
        return {d % rank for d in (value if isinstance(value, (tuple, list)) else (value,))}


Rule = Callable[[Slots, Call], "list[TensorLabels]"]
RULES: dict[Any, Rule] = {}


def rule(*operators: Any) -> Callable[[Rule], Rule]:
    """Register a rule for all overloads of some operators."""

    def register(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operators, function))
        return function

    return register


def apply(slots: Slots, call: Call) -> None:
    """Run the operator's rule, or freeze what it reads."""
    found = _rule_for(call.operator)
    if found is None:
        freeze_inputs(slots, call)
        for output in call.outputs:
            slots.put(output, (None,) * output.dim())
        return
    for output, labels in zip(call.outputs, found(slots, call), strict=False):
        slots.put(output, labels)


def _rule_for(operator: OpOverload) -> Rule | None:
    """The operator's own rule; an in-place operator such as ``hardswish_`` follows its functional twin."""
    packet = operator.overloadpacket
    twin = getattr(aten, packet.__name__.removesuffix("_"), packet)
    found = RULES.get(packet) or RULES.get(twin)
    if found is None and any(
        torch.Tag.pointwise in getattr(one, name).tags for one in (packet, twin) for name in one.overloads()
    ):
        return pointwise
    return found


def freeze_inputs(slots: Slots, call: Call) -> None:
    """No rule: everything that the operator reads must stay."""
    labelled = [labels for tensor in call.inputs for labels in slots.of(tensor) if labels is not None]
    if labelled:
        slots.freeze(*labelled)
        slots.warnings[f"{call.operator} has no rule: what it reads stays whole."] = None


# -- element-wise ---------------------------------------------------------------------------------


def _broadcast(slots: Slots, tensors: list[Tensor], shape: Sequence[int]) -> TensorLabels:
    result: list[Labels] = []
    for dim, size in enumerate(shape):
        offset = len(shape) - dim
        present = [
            slots.of(tensor)[tensor.dim() - offset]
            for tensor in tensors
            if tensor.dim() >= offset and tensor.shape[tensor.dim() - offset] == size
        ]
        labelled = [labels for labels in present if labels is not None]
        if labelled and size > 1 and len(labelled) < len(present):
            slots.freeze(*labelled)
        for labels in labelled[1:]:
            slots.tie(labelled[0], labels)
        result.append(labelled[0] if labelled else None)
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


# -- contractions ---------------------------------------------------------------------------------


@rule(aten.convolution, aten._convolution)
def convolution(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts input channels; a conv group goes whole, and so does a depthwise channel."""
    data, weight, bias, groups = call["input"], call["weight"], call["bias"], call["groups"]
    batch, read, *spatial = slots.of(data)
    rows, columns, *kernel = slots.of(weight)
    if call["transposed"]:
        rows, columns = columns, rows
    slots.freeze(*spatial, *kernel)
    slots.give_role(rows, "output")
    positions = math.prod(call.outputs[0].shape[2:]) if not call["transposed"] else math.prod(data.shape[2:])
    size = {True: (weight.shape[1], weight.shape[0]), False: tuple(weight.shape[:2])}[call["transposed"]]
    made = rows
    if groups == 1:
        slots.give_role(columns, "input")
        slots.tie(read, columns)
    elif read is None or rows is None or call["transposed"]:
        slots.freeze(read, rows, columns)
        made = None
    else:
        slots.freeze(columns)
        slots.tie(read.reshape(groups, -1), rows.reshape(groups, -1)[:, :1])
        slots.tie(rows.reshape(groups, -1), rows.reshape(groups, -1)[:, :1])
    if bias is not None:
        slots.give_role(slots.of(bias)[0], "bias")
        slots.tie(slots.of(bias)[0], rows)
    slots.count(
        data.shape[0] * positions * math.prod(weight.shape[2:]),
        [labels if labels is not None else n for labels, n in zip((rows, columns), size, strict=True)],
    )
    return [(batch, made, *(None for _ in spatial))]


def _matrix_product(slots: Slots, left: Tensor, right: Tensor) -> TensorLabels:
    *batch_left, rows, contracted = slots.of(left)
    *batch_right, read, made = slots.of(right)
    slots.give_role(made, "output")
    slots.give_role(read, "input")
    slots.tie(contracted, read)
    for a, b in zip(batch_left, batch_right, strict=True):
        if a is not None or b is not None:
            slots.tie(a, b)
    labels = (*batch_left, rows, contracted if contracted is not None else read, made)
    slots.count(1, [n if some is None else some for some, n in zip(labels, (*left.shape, right.shape[-1]), strict=True)])
    return (*batch_left, rows, made)


@rule(aten.mm, aten.bmm)
def matrix_product(slots: Slots, call: Call) -> list[TensorLabels]:
    """Contracts the inner dimension."""
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


# -- norms and reductions -------------------------------------------------------------------------


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
    return [labels]


@rule(aten.native_layer_norm)
def layer_norm(slots: Slots, call: Call) -> list[TensorLabels]:
    """Mixes the values of all channels: shapes follow, values change, so the group is inexact by nature."""
    labels = slots.of(call["input"])
    normalized = labels[-len(call["normalized_shape"]) :]
    for name, role in (("weight", "scale"), ("bias", "bias")):
        if call[name] is not None:
            for mine, theirs in zip(normalized, slots.of(call[name]), strict=True):
                slots.give_role(theirs, role)  # type: ignore[arg-type]
                slots.tie(mine, theirs)
    for mine in normalized:
        slots.mark_inexact(mine)
    return [labels]


@rule(
    aten.amax,
    aten.amin,
    aten.mean,
    aten.var,
)
def reduction(slots: Slots, call: Call) -> list[TensorLabels]:
    """Reducing over channels would change values when some go, so those stay."""
    return _reduced(slots, call, drops_labels=False)


@rule(aten.sum)
def summation(slots: Slots, call: Call) -> list[TensorLabels]:
    """A removed channel is zero in a sum, so labels may be dropped."""
    return _reduced(slots, call, drops_labels=True)


def _reduced(slots: Slots, call: Call, *, drops_labels: bool) -> list[TensorLabels]:
    labels = slots.of(call["self"])
    dims = call.dims("dim", len(labels))
    if not drops_labels:
        slots.freeze(*(labels[dim] for dim in dims))
    keepdim = bool(call.arguments.get("keepdim"))
    return [
        tuple(None if dim in dims else some for dim, some in enumerate(labels) if keepdim or dim not in dims)
        for _ in call.outputs
    ]


@rule(aten._softmax, aten._log_softmax, aten.cumsum, aten.flip)
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
    """Acts on each channel alone and changes only positions, which carry no labels."""
    *kept, _height, _width = slots.of(call.inputs[0])
    slots.freeze(_height, _width)
    return [(*kept, None, None) for _ in call.outputs]


# -- shapes ---------------------------------------------------------------------------------------


@rule(aten.view, aten._unsafe_view, aten.reshape, aten._reshape_alias)
def view(slots: Slots, call: Call) -> list[TensorLabels]:
    """Splits and merges dimensions block by block."""
    source, target = call["self"], call.outputs[0]
    labels = slots.of(source)
    result: list[Labels] = []
    for ins, outs in _matching_blocks(tuple(source.shape), tuple(target.shape)):
        merged = _merge(slots, [labels[i] for i in ins], [source.shape[i] for i in ins])
        result += _split(slots, merged, [target.shape[o] for o in outs])
    return [tuple(result)]


def _matching_blocks(source: tuple[int, ...], target: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Shortest runs of dimensions with equal products."""
    blocks: list[tuple[list[int], list[int]]] = []
    i = o = 0
    while i < len(source) or o < len(target):
        ins, outs = [], []
        left = right = 1
        while True:
            if i < len(source) and (left <= right or o >= len(target)):
                left *= source[i]
                ins.append(i)
                i += 1
            elif o < len(target):
                right *= target[o]
                outs.append(o)
                o += 1
            if (left == right and ins and outs) or (i >= len(source) and o >= len(target)):
                break
        blocks.append((ins, outs))
    return blocks


def _merge(
    slots: Slots, labels: list[Labels], sizes: list[int]
) -> Labels:
    """Labels of the row-major product of dimensions, one of which may be labelled."""
    labelled = [i for i, some in enumerate(labels) if some is not None]
    if not labelled:
        return None
    if len(labelled) > 1:
        slots.freeze(*labels)
        return None
    only = labelled[0]
    some = labels[only]
    assert some is not None
    before, after = math.prod(sizes[:only]), math.prod(sizes[only + 1 :])
    return np.tile(np.repeat(some, after), before)


def _split(slots: Slots, labels: Labels, sizes: list[int]) -> list[Labels]:
    """Undo a merge where there was one; else the innermost dimension shrinks and the outer ones stay."""
    result: list[Labels] = [None] * len(sizes)
    if labels is None or not sizes:
        slots.freeze(labels)
        return result
    grid = labels.reshape(sizes)
    for dim, size in enumerate(sizes):
        lines = np.moveaxis(grid, dim, -1).reshape(-1, size)
        if size > 1 and (np.ptp(lines, axis=0) == 0).all():
            result[dim] = lines[0]
            return result
    inner = max((dim for dim, size in enumerate(sizes) if size > 1), default=len(sizes) - 1)
    lines = np.moveaxis(grid, inner, -1).reshape(-1, sizes[inner])
    slots.tie(lines, lines[:1])
    result[inner] = lines[0]
    return result


@rule(aten.as_strided)
def restriding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Pooling of channels_last data restates its strides; any other use has no rule."""
    if tuple(call["size"]) == call.sizes:
        return [slots.of(call["self"])]
    freeze_inputs(slots, call)
    return []


@rule(aten.t, aten.transpose, aten.permute, aten.numpy_T)
def permutation(slots: Slots, call: Call) -> list[TensorLabels]:
    """Labels move with their dimensions."""
    labels = slots.of(call["self"])
    order = list(range(len(labels)))
    if "dims" in call.arguments:
        order = [dim % len(labels) for dim in call["dims"]]
    elif "dim0" in call.arguments:
        a, b = call["dim0"] % len(labels), call["dim1"] % len(labels)
        order[a], order[b] = order[b], order[a]
    else:
        order.reverse()
    return [tuple(labels[dim] for dim in order)]


@rule(aten.unsqueeze)
def unsqueeze(slots: Slots, call: Call) -> list[TensorLabels]:
    """A new dimension of size one."""
    labels = list(slots.of(call["self"]))
    labels.insert(call["dim"] % (len(labels) + 1), None)
    return [tuple(labels)]


@rule(aten.squeeze)
def squeeze(slots: Slots, call: Call) -> list[TensorLabels]:
    """Dimensions of size one vanish."""
    labels = slots.of(call["self"])
    dims = call.dims("dim", len(labels))
    sizes = call.sizes
    return [tuple(some for dim, some in enumerate(labels) if dim not in dims or sizes[dim] != 1)]


@rule(aten.expand)
def expand(slots: Slots, call: Call) -> list[TensorLabels]:
    """Stretched dimensions get a fixed size."""
    source, target = call["self"], call.outputs[0]
    labels = (None,) * (target.dim() - source.dim()) + slots.of(source)
    shape = (1,) * (target.dim() - source.dim()) + tuple(source.shape)
    return [tuple(some if a == b else None for some, a, b in zip(labels, shape, target.shape, strict=True))]


@rule(aten.cat)
def concatenation(slots: Slots, call: Call) -> list[TensorLabels]:
    """Label vectors are concatenated; the other dimensions match as in element-wise operators."""
    tensors = [tensor for tensor in call["tensors"] if tensor.dim() > 1 or tensor.numel()]
    dim = call["dim"] % call.outputs[0].dim()
    pieces = [slots.of(tensor)[dim] for tensor in tensors]
    joined = None
    if any(piece is not None for piece in pieces):
        # A piece without labels has a fixed size: its slots stay.
        joined = np.concatenate(
            [
                np.zeros(tensor.shape[dim], dtype=np.int64) if piece is None else piece
                for tensor, piece in zip(tensors, pieces, strict=True)
            ]
        )
    result: list[Labels] = [None] * call.outputs[0].dim()
    for other in range(call.outputs[0].dim()):
        if other == dim:
            result[other] = joined
            continue
        labelled = [slots.of(tensor)[other] for tensor in tensors]
        if any(some is not None for some in labelled):
            for some in labelled[1:]:
                slots.tie(labelled[0], some)
            result[other] = next(some for some in labelled if some is not None)
    return [tuple(result)]


@rule(aten.constant_pad_nd)
def padding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Padded channels are fixed in number; cropped ones freeze the dimension."""
    source = call["self"]
    result = list(slots.of(source))
    for position in range(len(call["pad"]) // 2):
        dim = source.dim() - 1 - position
        before, after = call["pad"][2 * position : 2 * position + 2]
        labels = result[dim]
        if labels is None or (before == 0 and after == 0):
            continue
        if before < 0 or after < 0 or call["value"]:
            slots.freeze(labels)
            result[dim] = None
        else:
            result[dim] = np.pad(labels, (before, after))
    return [tuple(result)]


@rule(aten.slice)
def slicing(slots: Slots, call: Call) -> list[TensorLabels]:
    """A part of a labelled dimension is cut out at fixed places, so the dimension stays."""
    source = call["self"]
    result = list(slots.of(source))
    dim = call["dim"] % source.dim()
    if call.outputs[0].shape[dim] != source.shape[dim] or (call["step"] or 1) != 1:
        slots.freeze(result[dim])
        result[dim] = None
    return [tuple(result)]


@rule(aten.select)
def selection(slots: Slots, call: Call) -> list[TensorLabels]:
    """One index is read at a fixed place, so the dimension stays."""
    labels = list(slots.of(call["self"]))
    slots.freeze(labels.pop(call["dim"] % len(labels)))
    return [tuple(labels)]


@rule(aten.split, aten.split_with_sizes, aten.chunk)
def splitting(slots: Slots, call: Call) -> list[TensorLabels]:
    """Equal pieces stay equal: each loses as many slots as the others. Unequal pieces are fixed."""
    labels = slots.of(call["self"])
    dim = call["dim"] % len(labels)
    sizes = [output.shape[dim] for output in call.outputs]
    cut = labels[dim]
    pieces: list[Labels] = [None] * len(sizes)
    if cut is not None and len(set(sizes)) == 1:
        ends = list(accumulate(sizes))
        pieces = [cut[end - size : end] for size, end in zip(sizes, ends, strict=True)]
        for piece in pieces[1:]:
            _balance(slots, pieces[0], piece)
    else:
        slots.freeze(cut)
    return [(*labels[:dim], piece, *labels[dim + 1 :]) for piece in pieces]


def _balance(slots: Slots, left: Labels, right: Labels) -> None:
    """Tie units so that, whatever goes, both sides lose equally many slots.

    Units with as many slots on either side need no tie. The others are paired in order of position,
    which keeps more freedom than tying the sides slot by slot: ShuffleNet's shuffles would otherwise
    tie all channels of a stage together after a few blocks.
    """
    assert left is not None
    assert right is not None
    roots = slots.roots()
    surplus: dict[int, int] = {}
    for root in roots[left].tolist():
        surplus[root] = surplus.get(root, 0) + 1
    for root in roots[right].tolist():
        surplus[root] = surplus.get(root, 0) - 1
    surplus.pop(0, None)
    # Largest first, so that equal amounts meet and few units are tied in chains.
    more = sorted(([root, amount] for root, amount in surplus.items() if amount > 0), key=lambda pair: -pair[1])
    less = sorted(([root, -amount] for root, amount in surplus.items() if amount < 0), key=lambda pair: -pair[1])
    pairs = []
    while more and less:
        pairs.append((more[0][0], less[0][0]))
        amount = min(more[0][1], less[0][1])
        for side in (more, less):
            side[0][1] -= amount
            if side[0][1] == 0:
                side.pop(0)
    for root, _ in more + less:
        slots.freeze(np.array([root]))
    if pairs:
        a, b = np.array(pairs).T
        slots.tie(a, b)
