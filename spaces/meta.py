"""Operators on the meta device whose shapes PyTorch works out slowly, in Python: the same, quickly.

A trace runs a model dozens of times without numbers. PyTorch decomposes norms, soft-maxima and resizing into
dozens of operators to find shapes that follow from a glance at the inputs. What is not plain here goes to
PyTorch, which also raises what there is to raise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Callable

aten = torch.ops.aten


def run(func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """What ``func(*args, **kwargs)`` returns."""
    shortcut = _SHORTCUTS.get(func)
    if shortcut is not None and not kwargs and args and _is_plain(args[0]):
        made = shortcut(*args)
        if made is not None:
            return made
    return func(*args, **kwargs)


def _is_plain(x: Any) -> bool:
    return isinstance(x, Tensor) and x.is_meta and x.is_floating_point() and x.is_contiguous()


def _layer_norm(x: Tensor, shape: list[int], weight: Any, bias: Any, eps: float) -> Any:
    del eps
    if tuple(x.shape[-len(shape) :]) != tuple(shape) or any(
        p is not None and (tuple(p.shape) != tuple(shape) or p.dtype != x.dtype) for p in (weight, bias)
    ):
        return None
    statistics = x.new_empty((*x.shape[: -len(shape)], *(1,) * len(shape)))
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


def _batch_norm(x: Tensor, weight: Any, bias: Any, mean: Any, var: Any, *_: Any) -> Any:
    if x.dim() < 2 or any(
        p is not None and (p.shape != x.shape[1:2] or p.dtype != x.dtype) for p in (weight, bias, mean, var)
    ):
        return None
    return torch.empty_like(x), x.new_empty(x.shape[1]), x.new_empty(x.shape[1])


def _softmax(x: Tensor, dim: int, *dtype: Any) -> Any:
    return torch.empty_like(x) if not any(dtype) and -x.dim() <= dim < x.dim() else None


def _pointwise(x: Tensor, *others: Any) -> Any:
    """Same shapes and types all over, or numbers."""
    for other in others:
        if isinstance(other, Tensor):
            if other.shape != x.shape or other.dtype != x.dtype or not _is_plain(other):
                return None
        elif isinstance(other, complex):
            return None
    return torch.empty_like(x)


def _activation(x: Tensor, *_: Any) -> Any:
    return torch.empty_like(x)


def _activation_in_place(x: Tensor, *_: Any) -> Any:
    return x


def _addmm(bias: Tensor, left: Tensor, right: Tensor) -> Any:
    fits = left.dim() == right.dim() == 2 and left.shape[1] == right.shape[0] and bias.dim() == 1
    alike = bias.dtype == left.dtype == right.dtype and left.is_meta and right.is_meta
    if not (fits and alike and bias.shape[0] == right.shape[1]):
        return None
    return left.new_empty((left.shape[0], right.shape[1]))


def _resized(x: Tensor, size: Any, *_: Any) -> Any:
    return x.new_empty((*x.shape[:2], *size)) if x.dim() == 4 and size is not None else None


_ACTIVATIONS = ("hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "relu", "sigmoid", "silu", "tanh")

_SHORTCUTS: dict[Any, Callable[..., Any]] = {
    aten.native_layer_norm.default: _layer_norm,
    aten.native_batch_norm.default: _batch_norm,
    aten._safe_softmax.default: _softmax,
    aten.addmm.default: _addmm,
    aten.upsample_bilinear2d.default: _resized,
    aten.upsample_bicubic2d.default: _resized,
    **{getattr(aten, name).default: _activation for name in _ACTIVATIONS},
    **{getattr(aten, f"{name}_").default: _activation_in_place for name in _ACTIVATIONS},
    **dict.fromkeys((aten.add.Tensor, aten.mul.Tensor, aten.sub.Tensor, aten.gelu.default), _pointwise),
}
