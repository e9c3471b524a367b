"""What the dense network's layers put out at sampled positions: what a re-fit has to reach."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evaluators.scoring import eval_mode
from evaluators.statistics.follow import Follow
from evaluators.statistics.sites import Sites, draw_sites, output_sizes, outputs_at

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from evaluators.statistics.layers import Layer


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """Where a layer is judged, and the dense network's value there.

    Attributes:
        sites: Sampled positions.
        values: ``(sites, outputs)``: behind the norm; where the layer joins a residual sum, that sum.
    """

    sites: Sites
    values: Tensor


def collect_targets(
    model: nn.Module, layers: Mapping[str, Layer], inputs: Any, count: Callable[[nn.Module], int], seed: int
) -> dict[str, Target]:
    """One forward pass of the dense network.

    Args:
        model: The dense network, on the inputs' device.
        layers: From :func:`evaluators.statistics.layers.find_layers`.
        inputs: One batch of calibration inputs.
        count: Positions to sample for a layer.
        seed: Of the positions.
    """
    collect = _Collect(model, layers, count, seed)
    with eval_mode(model), torch.no_grad():
        collect.run(inputs)
    return {name: collect.found[name] for name in layers if name in collect.found}


class _Collect(Follow):  # type: ignore[no-untyped-call]
    def __init__(
        self, model: nn.Module, layers: Mapping[str, Layer], count: Callable[[nn.Module], int], seed: int
    ) -> None:
        super().__init__(model, layers)
        self._count, self._generator = count, torch.Generator().manual_seed(seed)
        self.found: dict[str, Target] = {}

    def ends(self, layer: Layer, value: Tensor) -> None:
        module, sites = self._sites(layer, value)
        self.found[layer.name] = Target(sites, outputs_at(module, value, sites))

    def joins(self, layer: Layer, own: Tensor, other: Tensor) -> None:
        module, sites = self._sites(layer, own)
        total = outputs_at(module, own, sites) + outputs_at(module, other, sites)
        self.found[layer.name] = Target(sites, total)

    def _sites(self, layer: Layer, value: Tensor) -> tuple[nn.Module, Sites]:
        module = self.modules[layer.name]
        sites = draw_sites(output_sizes(module, value), self._count(module), self._generator)
        return module, tuple(index.to(value.device) for index in sites)
