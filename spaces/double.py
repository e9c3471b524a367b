"""Arithmetic in double precision also where a model asks for less.

Norms and soft-maxima of many language models compute in ``float32`` whatever they are given. Their rounding
would hide whether a cut is right, so a copy that is compared runs with every cast to a shorter type made a
cast to ``float64``.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

_LONG: dict[torch.dtype, torch.dtype] = {
    **dict.fromkeys((torch.float32, torch.float16, torch.bfloat16), torch.float64),
    **dict.fromkeys((torch.complex64, torch.complex32), torch.complex128),
}


class InDouble(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Every operator that would make shorter floating-point numbers makes ``float64`` or ``complex128``."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if kwargs.get("dtype") in _LONG:
            kwargs = {**kwargs, "dtype": _LONG[kwargs["dtype"]]}
        made = func(*args, **kwargs)
        if any(result.alias_info is not None for result in func._schema.returns):
            return made  # a view, or what was written into: a copy would lose what is written next
        return pytree.tree_map_only(Tensor, lambda x: x.to(_LONG.get(x.dtype, x.dtype)), made)


def full_precision(model: nn.Module) -> contextlib.AbstractContextManager[object]:
    """Runs a model of ``float64`` numbers in ``float64`` all through; any other as it is."""
    long = any(parameter.dtype == torch.float64 for parameter in model.parameters())
    return InDouble() if long else contextlib.nullcontext()  # type: ignore[no-untyped-call]
