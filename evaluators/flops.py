"""fvcore's count of a real network, against which the closed form is held."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evaluators.counted_operators import COUNTED
from evaluators.free_operators import is_free
from evaluators.scoring import eval_mode
from spaces.blame import first_line
from spaces.structure import flatten
from spaces.trace import as_call, batch_of_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spaces.follow import Arguments

with warnings.catch_warnings():  # fvcore scripts functions with torch.jit, which warns on import
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis

#: A traced ``torch.autograd.Function``, which is followed by the operators that it runs.
_FUNCTION = "prim::PythonOp"


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-adds of one forward pass in eval mode, for a batch of one, counted by fvcore.

    Convolutions, linear and recurrent layers and matrix products count (:data:`COUNTED`), also those whose
    results nobody uses; everything else is free. fvcore calls the unit a flop. The network's modes are
    restored.

    Args:
        model: The network, on the inputs' device.
        example_inputs: A tensor, tuple or dict; of a larger batch the first sample is taken.

    Raises:
        RuntimeError: If an operator is neither counted nor known to be free; names it. If torch.jit, on
            which fvcore stands, can not run the model.
    """
    whole = as_call(example_inputs)
    inputs = batch_of_one(*whole)
    if not _runs(model, inputs):  # inputs without a batch are counted as they are, as in a trace
        inputs = whole
    tensors = tuple(x for x in pytree.tree_leaves(inputs) if isinstance(x, Tensor))
    with eval_mode(model), _quiet(), torch.no_grad():
        analysis = FlopCountAnalysis(_Traceable(model, inputs), tensors)
        analysis.clear_op_handles().set_op_handle(**COUNTED)
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        try:
            total = analysis.total()
        except Exception as error:  # torch.jit may choke on a foreign forward in any way
            raise RuntimeError(f"fvcore can not follow the model: {first_line(error)}") from error
        operators = analysis.unsupported_ops()
    unknown = sorted(name for name in operators if not (name.startswith(_FUNCTION) or is_free(name)))
    if unknown:
        raise RuntimeError(
            f"fvcore can not count {', '.join(unknown)}: neither counted nor known to be free."
        )
    return int(total)


def _runs(model: nn.Module, inputs: Arguments) -> bool:
    args, kwargs = inputs
    with eval_mode(model), torch.random.fork_rng(), torch.no_grad():
        try:
            model(*args, **kwargs)
        except Exception:  # a foreign forward may raise anything
            return False
    return True


class _Traceable(nn.Module):
    """Takes and returns nothing but tensors, as torch.jit demands, and keeps what is computed in vain.

    Args:
        model: What is called.
        inputs: Its arguments, of which the tensors are given anew to every call.
    """

    def __init__(self, model: nn.Module, inputs: Arguments) -> None:
        super().__init__()
        self.model = model
        self._leaves, self._structure = pytree.tree_flatten(inputs)

    def forward(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """Tensors that the model returns, in order."""
        given = iter(tensors)
        leaves = [next(given) if isinstance(leaf, Tensor) else leaf for leaf in self._leaves]
        args, kwargs = pytree.tree_unflatten(leaves, self._structure)
        made, _ = flatten(self.model(*args, **kwargs))
        graph = torch._C._get_tracing_state().graph()
        for node in _nodes(graph):
            if not (node.kind().startswith("prim::") or is_free(node.kind())):
                for output in node.outputs():  # a node whose outputs nobody uses is dropped
                    graph.registerOutput(output)
        return tuple(made)


def _nodes(block: Any) -> Iterator[Any]:
    for node in block.nodes():
        yield node
        for inner in node.blocks():
            yield from _nodes(inner)


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from the tracer; attention's fast path off, since it hides operators."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    level = logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fastpath)
