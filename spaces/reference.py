"""The network that a cut must equal, also where norms over channels change what all channels hold.

A norm or a mean over channels gives other values when some channels go, so a cut network differs from one
whose removed channels are zero. It must equal one in which those operators skip the removed channels, and
that can be computed on the masked network: the slot labels say which channels each operator must skip.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaces.double import full_precision
from spaces.follow import Arguments, register, run_labelled
from spaces.slots import FROZEN, Slots
from spaces.structure import flatten
from spaces.surgery import masked

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from torch import Tensor, nn

    from spaces.slots import Labels
    from spaces.space import Space

aten = torch.ops.aten

#: Computes what an operator returns.
Compute = Callable[[Slots, Any, Any, Any], Any]

_REDUCTIONS = {aten.amax, aten.amin, aten.mean, aten.std, aten.std_mean, aten.var, aten.var_mean}


def expected(
    model: nn.Module,
    space: Space,
    kept: Mapping[str, Tensor],
    inputs: Arguments,
    *,
    training: bool = False,
    scratch: dict[str, Tensor] | None = None,
) -> Any:
    """What the cut network must return.

    Args:
        model: The dense network; left as it is.
        space: Its space.
        kept: Kept units of each group, as in :func:`spaces.cut`.
        inputs: Positional and keyword arguments.
        training: Whether in train mode.
        scratch: See :func:`spaces.surgery.masked`.
    """
    with _unfused_attention():
        return _expected(model, space, kept, inputs, training, scratch)


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Fused kernels derive widths of heads from what the labels know better."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _expected(
    model: nn.Module,
    space: Space,
    kept: Mapping[str, Tensor],
    inputs: Arguments,
    training: bool,
    scratch: dict[str, Tensor] | None,
) -> Any:
    if all(group.exact for group in space.groups if group.name in kept):
        twin = masked(model, space, kept, scratch).train(training)
        with full_precision(twin):
            outputs = twin(*inputs[0], **inputs[1])
        if not any(tensor.isnan().any() for tensor in flatten(outputs)[0]):
            return outputs
    goes = _removed_labels(model, space, kept)
    skip = _skipping(goes)
    outputs = None
    for compute in (skip, _cleaning(goes, skip)):
        twin = masked(model, space, kept, scratch)
        with full_precision(twin):
            slots = Slots(dict(space.splits))
            outputs = run_labelled(slots, twin, inputs, training=training, compute=compute)
        if not any(tensor.isnan().any() for tensor in flatten(outputs)[0]):
            break
    return outputs


def _cleaning(goes: np.ndarray[Any, Any], compute: Compute) -> Compute:
    """Operators that read zeros where what is gone became NaN: a row of zeros has no length, for instance."""

    def clean(slots: Slots, x: Any) -> Any:
        if isinstance(x, torch.Tensor) and x.is_floating_point() and x.isnan().any():
            labels_of = slots.of(x)
            for dim, labels in enumerate(labels_of):
                if labels is not None:
                    gone = goes[np.where(labels < len(goes), labels, FROZEN)]
                    x = x.index_fill(dim, torch.from_numpy(np.flatnonzero(gone)), 0)
            slots.put(x, labels_of)
        return x

    def computed(slots: Slots, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return compute(slots, func, tuple(clean(slots, x) for x in args), kwargs)

    return computed


def _removed_labels(model: nn.Module, space: Space, kept: Mapping[str, Tensor]) -> np.ndarray[Any, Any]:
    slots = Slots()
    register(slots, model)
    removed: dict[str, dict[int, list[int]]] = {}
    for group in space.groups:
        if group.name in kept:
            gone = np.delete(np.arange(group.width), kept[group.name].numpy())
            for member in group.members:
                places = removed.setdefault(member.tensor, {}).setdefault(member.dim, [])
                places += member.slots[gone].ravel().tolist()
    return slots.removed_labels(
        {
            name: {dim: np.array(places, dtype=np.int64) for dim, places in dims.items()}
            for name, dims in removed.items()
        }
    )


def _skipping(goes: np.ndarray[Any, Any]) -> Compute:
    """Operators over channels that see only those that stay."""

    def stays(labels: Labels) -> Tensor | None:
        if labels is None:
            return None
        gone = goes[np.where(labels < len(goes), labels, FROZEN)]
        return torch.from_numpy(np.flatnonzero(~gone)) if gone.any() else None

    def compute(slots: Slots, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        packet = func.overloadpacket
        if packet in _REDUCTIONS:
            x = args[0]
            dims = _dims(args[1] if len(args) > 1 else kwargs.get("dim"), x.dim())
            for dim, labels in enumerate(slots.of(x)):
                if dim in dims and (index := stays(labels)) is not None:
                    x = x.index_select(dim, index)
            return func(x, *args[1:], **kwargs)
        if packet in (aten.native_layer_norm, aten._fused_rms_norm):
            index = stays(slots.of(args[0])[-1])
            if index is not None and len(args[1]) == 1:
                return _normalised(func, args, kwargs, -1, index, ([len(index)],))
        if packet is aten.native_batch_norm and args[3] is None:
            for dim, labels in enumerate(slots.of(args[0])):
                if dim != 1 and (index := stays(labels)) is not None:
                    made = func(args[0].index_select(dim, index), *args[1:], **kwargs)
                    return (torch.zeros_like(args[0]).index_copy_(dim, index, made[0]), *made[1:])
        if packet is aten.native_group_norm:
            index = stays(slots.of(args[0])[1])
            data, weight, bias, batch, channels, positions, num_groups, eps = args
            if index is not None and _equal_shares(index, channels, num_groups):
                head = (data, weight, bias)
                made = aten.native_group_norm(
                    *(None if x is None else x.index_select(min(x.dim() - 1, 1), index) for x in head),
                    batch,
                    len(index),
                    positions,
                    num_groups,
                    eps,
                )
                return (torch.zeros_like(data).index_copy_(1, index, made[0]), *made[1:])
        return func(*args, **kwargs)

    return compute


def _normalised(
    func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], dim: int, index: Tensor, shape: tuple[Any, ...]
) -> Any:
    """A norm of the channels that stay; the others are zero."""
    data, _, *rest = args
    tensors = [x.index_select(-1, index) if isinstance(x, torch.Tensor) else x for x in rest]
    made = func(data.index_select(dim, index), *shape, *tensors, **kwargs)
    return (torch.zeros_like(data).index_copy_(dim, index, made[0]), *made[1:])


def _equal_shares(index: Tensor, channels: int, num_groups: int) -> bool:
    """Whether each group of a group norm loses some channels, equally many as every other."""
    shares = torch.bincount(index // (channels // num_groups), minlength=num_groups)
    return bool((shares == shares[0]).all()) and len(index) < channels


def _dims(dim: Any, rank: int) -> set[int]:
    if dim is None or dim == []:
        return set(range(rank))
    return {d % rank for d in (dim if isinstance(dim, (tuple, list)) else (dim,))}
