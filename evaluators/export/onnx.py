"""A network as an ONNX file, with a batch of any size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

#: Newest operator set that torch writes without a conversion afterwards.
OPSET = 20


def write_onnx(model: nn.Module, inputs: Any, path: Path) -> None:
    """Write ``model`` in eval mode; all weights are inside the one file.

    Args:
        model: On the CPU; left as it was.
        inputs: What it is called with: a tensor, a tuple, or a dict of keyword arguments. The first dimension
            of every tensor is the batch.
        path: New file.

    Raises:
        Exception: Whatever ``torch.onnx`` raises for a model that it can not export.
    """
    args, kwargs = ((), inputs) if isinstance(inputs, dict) else (inputs, {})
    args = args if isinstance(args, tuple) else (args,)
    args, kwargs = pytree.tree_map_only(torch.Tensor, _two, (args, kwargs))
    shapes = pytree.tree_map_only(torch.Tensor, lambda _: {0: torch.export.Dim.DYNAMIC}, (args, kwargs))
    training = model.training
    model.eval()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), torch.no_grad():
            warnings.simplefilter("ignore")
            logging.getLogger("torch.onnx").setLevel(logging.ERROR)
            torch.onnx.export(
                model,
                args,
                str(path),
                kwargs=kwargs,
                dynamo=True,
                dynamic_shapes=(*shapes[0],) if not kwargs else shapes[1],
                opset_version=OPSET,
                external_data=False,
                verbose=False,
            )
    finally:
        model.train(training)


def _two(tensor: torch.Tensor) -> torch.Tensor:
    """A batch of one would be taken for a constant."""
    return torch.cat((tensor, tensor)) if tensor.ndim and len(tensor) == 1 else tensor
