"""A network as a program of ``torch.export``, with a batch of any size."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch

from evaluators.export.batch import open_batch
from evaluators.scoring import eval_mode

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn


def write_pt2(model: nn.Module, inputs: Any, path: Path) -> None:
    """Write ``model`` in eval mode, weights inside, without paths of this machine and without example inputs.

    Args:
        model: On the CPU; left as it was.
        inputs: What it is called with; the first dimension of every tensor is the batch.
        path: New file.

    Raises:
        Exception: Whatever ``torch.export`` raises for a model that it can not export.
    """
    call = open_batch(inputs)
    with warnings.catch_warnings(), eval_mode(model), torch.no_grad():
        warnings.simplefilter("ignore")
        program = torch.export.export(model, call.args, call.kwargs, dynamic_shapes=call.shapes)
        for module in program.graph_module.modules():
            if isinstance(module, torch.fx.GraphModule):
                for node in module.graph.nodes:
                    node.meta.pop("stack_trace", None)
        program.example_inputs = None
        torch.export.save(program, path)
