"""Views, permutations, concatenation and splitting: labels move with their dimensions."""

from __future__ import annotations

import math
from itertools import accumulate
from typing import TYPE_CHECKING

import numpy as np
import torch

from spaces.rules.call import Call, freeze_inputs, rule
from spaces.slots import FROZEN

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


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


def _merge(slots: Slots, labels: list[Labels], sizes: list[int]) -> Labels:
    """Labels of the row-major product of dimensions, one of which may be labelled."""
    labelled = [i for i, some in enumerate(labels) if some is not None]
    if not labelled:
        return None
    only = labelled[0]
    if len(labelled) > 1:
        only = labelled[slots.freeze_all_but_one([labels[i] for i in labelled])]
    some = labels[only]
    assert some is not None
    before, after = math.prod(sizes[:only]), math.prod(sizes[only + 1 :])
    return np.tile(np.repeat(some, after), before)


def _split(slots: Slots, labels: Labels, sizes: list[int]) -> list[Labels]:
    """Undo a merge where there was one; else one part shrinks and the others stay."""
    result: list[Labels] = [None] * len(sizes)
    if labels is None or not labels.size or not sizes:
        slots.freeze(labels)
        return result
    grid = labels.reshape(sizes)
    for dim, size in enumerate(sizes):
        lines = np.moveaxis(grid, dim, -1).reshape(-1, size)
        if size > 1 and (np.ptp(lines, axis=0) == 0).all():
            result[dim] = lines[0]
            return result
    parts = [dim for dim, size in enumerate(sizes) if size > 1] or [len(sizes) - 1]
    if len(parts) == 1:
        result[parts[0]] = labels
        return result
    for dim, some in zip(parts, slots.split(labels, [sizes[dim] for dim in parts]), strict=True):
        result[dim] = some
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
    """Dimensions stretch to a size that Python code chose."""
    source, target = call["self"], call.outputs[0]
    labels = (None,) * (target.dim() - source.dim()) + slots.of(source)
    shape = (1,) * (target.dim() - source.dim()) + tuple(source.shape)
    return [
        tuple(
            some if old == new else slots.fresh(new)
            for some, old, new in zip(labels, shape, target.shape, strict=True)
        )
    ]


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
                np.full(tensor.shape[dim], FROZEN) if piece is None else piece
                for tensor, piece in zip(tensors, pieces, strict=True)
            ]
        )
    result: list[Labels] = [None] * call.outputs[0].dim()
    for other in range(call.outputs[0].dim()):
        if other == dim:
            result[other] = joined
            continue
        result[other] = slots.meet([slots.of(tensor)[other] for tensor in tensors])
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
    """Equal pieces, such as halves, stay equal; of any other part what comes before its ends stays."""
    source = call["self"]
    result = list(slots.of(source))
    dim = call["dim"] % source.dim()
    labels, whole, size = result[dim], source.shape[dim], call.outputs[0].shape[dim]
    start = min(call["start"] or 0, whole)
    start += whole if start < 0 else 0
    if labels is None or (size == whole and (call["step"] or 1) == 1):
        return [tuple(result)]
    if call["step"] != 1 or not size:
        slots.freeze(labels)
        result[dim] = None
    elif size > 1 and whole % size == 0 and start % size == 0:
        pieces = labels.reshape(-1, size)
        _balance_all(slots, list(pieces))
        result[dim] = pieces[start // size]
    else:
        # Literal ends count from the front or, where negative, from the back.
        for end in (call["start"] or 0, call["end"]):
            if end is not None and abs(end) < whole:
                slots.freeze(labels[:end] if end > 0 else labels[whole + end :] if end < 0 else None)
        result[dim] = labels[start : start + size]
    return [tuple(result)]


@rule(aten.select)
def selection(slots: Slots, call: Call) -> list[TensorLabels]:
    """One index is read at a fixed place: it stays, and so does all between it and its end."""
    labels = list(slots.of(call["self"]))
    some, index = labels.pop(call["dim"] % len(labels)), call["index"]
    slots.freeze(None if some is None else some[: index + 1] if index >= 0 else some[index:])
    return [tuple(labels)]


@rule(aten.split, aten.split_with_sizes, aten.chunk, aten.unsafe_split, aten.unsafe_chunk)
def splitting(slots: Slots, call: Call) -> list[TensorLabels]:
    """Equal pieces stay equal: each loses as many slots as the others. Unequal ones go as they may."""
    labels = slots.of(call["self"])
    dim = call["dim"] % len(labels)
    sizes = [output.shape[dim] for output in call.outputs]
    cut = labels[dim]
    if cut is None:
        return [labels for _ in sizes]
    pieces = [cut[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]
    if len(set(sizes)) == 1:
        _balance_all(slots, pieces)
    return [(*labels[:dim], piece, *labels[dim + 1 :]) for piece in pieces]


def _balance_all(slots: Slots, pieces: Sequence[NDArray[np.int64]]) -> None:
    """Tie units so that, whatever goes, all pieces lose equally many slots."""
    roots = slots.roots()
    for piece in pieces[1:]:
        if _balance(slots, roots, pieces[0], piece):
            roots = slots.roots()


def _balance(
    slots: Slots, roots: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> bool:
    """Tie units so that, whatever goes, both sides lose equally many slots.

    Units with as many slots on either side need no tie. The others are paired in order of position,
    which keeps more freedom than tying the sides slot by slot: ShuffleNet's shuffles would otherwise
    tie all channels of a stage together after a few blocks.

    Returns:
        Whether there was anything to tie or freeze.
    """
    surplus: dict[int, int] = {}
    for root in roots[left].tolist():
        surplus[root] = surplus.get(root, 0) + 1
    for root in roots[right].tolist():
        surplus[root] = surplus.get(root, 0) - 1
    surplus.pop(FROZEN, None)
    # Largest first, so that equal amounts meet and few units are tied in chains.
    more = sorted(
        ([root, amount] for root, amount in surplus.items() if amount > 0), key=lambda pair: -pair[1]
    )
    less = sorted(
        ([root, -amount] for root, amount in surplus.items() if amount < 0), key=lambda pair: -pair[1]
    )
    pairs = []
    while more and less:
        pairs.append((more[0][0], less[0][0]))
        amount = min(more[0][1], less[0][1])
        for side in (more, less):
            side[0][1] -= amount
            if side[0][1] == 0:
                side.pop(0)
    for root, _ in more + less:
        slots.freeze(np.array([root]), reason="pieces must stay equal")
    if pairs:
        a, b = np.array(pairs).T
        slots.tie(a, b)
    return bool(pairs or more or less)
