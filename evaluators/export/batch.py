"""How a network is called while it is traced for another runtime: with a batch whose size is left open."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from spaces.trace import as_call


@dataclass(frozen=True, slots=True)
class OpenBatch:
    """Arguments of a call, and which of their dimensions are open.

    Attributes:
        args: Positional.
        kwargs: By keyword.
        shapes: What ``torch.export`` and ``torch.onnx`` take as ``dynamic_shapes``.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shapes: Any


def open_batch(inputs: Any) -> OpenBatch:
    """The first dimension of every tensor is the batch.

    Args:
        inputs: What a network is called with: a tensor, a tuple, or a dict of keyword arguments.
    """
    args, kwargs = pytree.tree_map_only(Tensor, _blank, as_call(inputs))
    shapes = pytree.tree_map_only(
        Tensor, lambda x: {0: torch.export.Dim.DYNAMIC} if x.ndim else None, (args, kwargs)
    )
    return OpenBatch(args, kwargs, shapes[1] if kwargs else shapes[0])


def _blank(tensor: Tensor) -> Tensor:
    """At least two examples, since one would be taken for a constant; zeros, since files may keep them."""
    examples = torch.cat((tensor, tensor)) if tensor.ndim and len(tensor) == 1 else tensor
    return torch.zeros_like(examples) if examples.is_floating_point() else examples
