"""One forward pass, stopped at every place where a layer's outputs are judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from evaluators.scoring import call
from evaluators.statistics.layers import ADD, is_plain_sum, watched

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluators.statistics.layers import Layer


class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Runs a network and hands the outputs of each layer to :meth:`ends` or :meth:`joins`.

    A layer is judged behind its BatchNorm; where it joins a residual sum, at the sum.

    Args:
        model: In eval mode.
        layers: From :func:`evaluators.statistics.layers.find_layers`.
    """

    def __init__(self, model: nn.Module, layers: Mapping[str, Layer]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.model, self.layers = model, layers
        self.modules = {name: model.get_submodule(name) for name in layers}
        self._by_norm = {layer.norm: layer for layer in layers.values() if layer.norm is not None}
        # Tensors are told apart by identity, so the noted ones are kept alive.
        self._joining: dict[int, tuple[Layer, Tensor]] = {}

    def ends(self, layer: Layer, value: Tensor) -> None:
        """Outputs of a layer that joins no sum, behind its norm."""

    def joins(self, layer: Layer, own: Tensor, other: Tensor) -> Tensor | None:
        """``own`` is about to be added to ``other``; what is returned takes its place in the sum."""

    def run(self, inputs: Any) -> Any:
        """The network's outputs."""
        try:
            with watched(self.model, self._layer_ran, self._norm_ran), self:
                return call(self.model, inputs)
        finally:
            self._joining.clear()

    def _layer_ran(self, name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        del module, inputs
        layer = self.layers.get(name)
        if layer is not None and layer.norm is None:
            self._judge(layer, output)

    def _norm_ran(self, name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
        del module, inputs
        if name in self._by_norm:
            self._judge(self._by_norm[name], output)

    def _judge(self, layer: Layer, value: Tensor) -> None:
        if layer.joins:
            self._joining[id(value)] = (layer, value)
        else:
            self.ends(layer, value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func in ADD and is_plain_sum(args, kwargs):
            args = self._replaced(list(args), in_place=func is torch.ops.aten.add_.Tensor)
        return func(*args, **(kwargs or {}))

    def _replaced(self, operands: list[Any], *, in_place: bool) -> list[Any]:
        for index in (0, 1):
            # Once: after a sum in place, the same tensor is an operand of the next one.
            layer, own = self._joining.pop(id(operands[index]), (None, None))
            if layer is None or own is None:
                continue
            value = self.joins(layer, own, operands[1 - index])
            if value is None:
                continue
            if in_place and index == 0:
                own.copy_(value)  # the network goes on with the tensor that it holds
            else:
                operands[index] = value
        return operands
