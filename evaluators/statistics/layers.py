"""The linear layers of a network, and where the outputs of each are judged."""

from __future__ import annotations

from collections import Counter
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from evaluators.scoring import call, eval_mode
from evaluators.statistics.sites import LINEAR_LAYERS, runs_as_written

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RELU = (torch.ops.aten.relu.default, torch.ops.aten.relu_.default)
#: The operators of a residual sum.
ADD = (torch.ops.aten.add.Tensor, torch.ops.aten.add_.Tensor)


@dataclass(frozen=True, slots=True)
class Layer:
    """A convolution or linear layer that runs once in a forward pass.

    Attributes:
        name: Of the module.
        norm: Name of the BatchNorm that alone reads its outputs, if there is one.
        joins: Whether what comes out (of the norm, if there is one) is read by one sum with another tensor
            of its shape and by nothing else: the end of a residual branch. Of two layers in one sum the end
            of the longer branch joins, the other one is the shortcut.
        rectified: Whether that sum, or else what comes out, is read by a ReLU alone: only its positive part
            matters.
    """

    name: str
    norm: str | None
    joins: bool
    rectified: bool


def find_layers(model: nn.Module, inputs: Any) -> dict[str, Layer]:
    """All linear layers that run exactly once, in the order in which they run.

    Left out are layers that share their weight or compute it, and those with a forward pass of their own.

    Args:
        model: Runs once, in eval mode; left as it is.
        inputs: What it is called with.
    """
    notes = _Notes()
    with eval_mode(model), torch.no_grad(), watched(model, notes.layer_ran, notes.norm_ran), notes:
        call(model, inputs)
    return notes.layers()


@contextmanager
def watched(
    model: nn.Module,
    layer_ran: Callable[[str, nn.Module, Tensor, Tensor], None],
    norm_ran: Callable[[str, nn.Module, Tensor, Tensor], None],
) -> Iterator[None]:
    """Call back with name, module, input and output whenever a linear layer or a BatchNorm has run."""
    with ExitStack() as stack:
        for name, module in model.named_modules():
            ran = layer_ran if isinstance(module, LINEAR_LAYERS) else norm_ran
            if isinstance(module, (*LINEAR_LAYERS, _BatchNorm)):

                def hook(
                    module: nn.Module,
                    inputs: Any,
                    output: Tensor,
                    name: str = name,
                    ran: Callable[[str, nn.Module, Tensor, Tensor], None] = ran,
                ) -> None:
                    if inputs:  # a layer that is called by keyword is left out
                        ran(name, module, inputs[0], output)

                stack.callback(module.register_forward_hook(hook).remove)
        yield


class _Notes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """What reads what in one forward pass.

    Tensors are told apart by identity, so all that are noted are kept alive to the end.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._alive: list[Tensor] = []
        self._calls: Counter[str] = Counter()
        self._reads: Counter[int] = Counter()
        self._outputs: dict[str, Tensor] = {}
        self._norms: dict[int, tuple[str, Tensor]] = {}
        self._sums: dict[int, _Sum] = {}
        self._relus: dict[int, tuple[bool, int]] = {}
        self._weights: dict[str, Tensor] = {}

    def layer_ran(self, name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        del inputs
        self._calls[name] += 1
        if runs_as_written(module):
            self._weights[name] = module.get_parameter("weight")
        self._outputs[name] = output
        self._alive.append(output)
        self._reads[id(output)] = 0  # what ran inside the layer is no reader

    def norm_ran(self, name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        if module.running_mean is not None:
            self._norms[id(inputs)] = (name, output)
            self._alive.extend((inputs, output))
            self._reads[id(output)] = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in pytree.tree_leaves((args, kwargs or {})) if isinstance(x, Tensor)]
        self._alive.extend(tensors)
        self._reads.update({id(tensor) for tensor in tensors})
        if func in ADD and is_plain_sum(args, kwargs):
            self._alive.append(result)
            number = len(self._alive)
            for operand in args[:2]:
                # After a sum in place the same tensor may be an operand of later sums.
                self._sums.setdefault(id(operand), _Sum(number, result, self._reads[id(operand)]))
        if func in _RELU:
            self._relus.setdefault(id(args[0]), (result is args[0], self._reads[id(args[0])]))
        return result

    def layers(self) -> dict[str, Layer]:
        """What was seen."""
        norms = Counter(name for name, _ in self._norms.values())
        found: dict[str, Layer] = {}
        at_sum: dict[int, list[str]] = {}
        for name, output in self._outputs.items():
            weight = self._weights.get(name)
            if weight is None or self._calls[name] > 1 or self._reads[id(weight)] > 1:
                continue
            norm, end = self._norms.get(id(output), (None, output))
            if norm is not None and (self._reads[id(output)] > 1 or norms[norm] > 1):
                norm, end = None, output
            number = self._joined(end)
            found[name] = Layer(
                name, norm, number is not None, self._rectified(end, joins=number is not None)
            )
            if number is not None:
                at_sum.setdefault(number, []).append(name)
        order = {name: index for index, name in enumerate(self._outputs)}
        for first, second in (pair for pair in at_sum.values() if len(pair) == 2):
            # What runs between the two belongs to the second one's branch; the shorter branch is the
            # shortcut, which is not asked to mend the other one's errors.
            shortcut = first if order[second] - order[first] > 1 else second
            found[shortcut] = replace(found[shortcut], joins=False, rectified=False)
        return found

    def _rectified(self, end: Tensor, *, joins: bool) -> bool:
        """Whether a ReLU reads the sum or ``end`` and nothing else does; in place, nothing else before it."""
        judged = self._sums[id(end)].total if joins else end
        if id(judged) not in self._relus:
            return False
        in_place, reads = self._relus[id(judged)]
        # An in-place sum was read as an operand before it was a sum.
        as_operand = self._sums[id(end)].reads if joins and judged is end else 0
        return (reads if in_place else self._reads[id(judged)]) - as_operand == 1

    def _joined(self, end: Tensor) -> int | None:
        """The number of the sum that alone reads ``end``, if there is one."""
        found = self._sums.get(id(end))
        if found is None:
            return None
        # An in-place sum is its own first operand: who reads the sum later is no reader of the operand.
        reads = found.reads if found.total is end else self._reads[id(end)]
        return found.number if reads == 1 else None


@dataclass(frozen=True, slots=True, eq=False)
class _Sum:
    """A sum, told apart by its number, and how often its operand had been read when it was done."""

    number: int
    total: Tensor
    reads: int


def is_plain_sum(args: Any, kwargs: Any) -> bool:
    """Whether a call of an ``add`` operator adds two tensors of one shape."""
    first, second = args[0], args[1]
    return (
        isinstance(second, Tensor)
        and first.shape == second.shape
        and first is not second
        and (kwargs or {}).get("alpha", 1) == 1
    )
