"""A network as an ONNX file, with a batch of any size."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from typing import TYPE_CHECKING, Any

import torch

from evaluators.export.batch import open_batch
from evaluators.scoring import eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from torch import nn

#: Newest operator set that torch writes without a conversion afterwards.
OPSET = 20


def write_onnx(model: nn.Module, inputs: Any, path: Path) -> None:
    """Write ``model`` in eval mode; all weights are inside the one file, and no path of this machine is.

    Args:
        model: On the CPU; left as it was.
        inputs: What it is called with: a tensor, a tuple, or a dict of keyword arguments. The first dimension
            of every tensor is the batch.
        path: New file.

    Raises:
        Exception: Whatever ``torch.onnx`` raises for a model that it can not export.
    """
    call = open_batch(inputs)
    with _silence(), eval_mode(model), torch.no_grad():
        program = torch.onnx.export(
            model,
            call.args,
            kwargs=call.kwargs,
            dynamo=True,
            dynamic_shapes=call.shapes,
            opset_version=OPSET,
            verbose=False,
        )
        assert program is not None
        _forget_source(program.model)
        program.save(str(path), external_data=False)


def _forget_source(model: Any) -> None:
    """Take out the lines of code, with their files, that torch notes at every node."""
    graphs = [model.graph, *model.functions.values()]
    for noted in (model, *graphs, *(node for graph in graphs for node in graph.all_nodes())):
        noted.metadata_props.clear()


@contextlib.contextmanager
def _silence() -> Iterator[None]:
    """``torch.onnx`` prints and warns of matters that its caller can not change."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
