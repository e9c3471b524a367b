"""The re-fit from the dense network's moments: a small solve per layer, and no data."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evaluators.reconstruct.shapes import Remains, has_constant, norm_of, write_back
from evaluators.reconstruct.solve import best_solution

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluators.statistics.layers import Layer
    from evaluators.statistics.records import Moments
    from spaces.surgery import KeptSlots

logger = logging.getLogger(__name__)


def refit_from_moments(
    model: nn.Module,
    dense: nn.Module,
    slots: KeptSlots,
    moments: Mapping[str, Moments],
    layers: Mapping[str, Layer],
) -> list[str]:
    r"""Solve every layer that lost inputs for the weights which best make up for them, in place.

    .. math:: W_S = (G_{SS} + \lambda I)^{-1} G_{S\cdot} W, \qquad G = X'X / n

    with the ridge :math:`\lambda` that does best on held-out positions, none on the constant. The dense
    network's own activations are assumed in front of every layer.

    Args:
        model: The cut network, on the CPU; changed.
        dense: The network that it was cut from.
        slots: What the cut kept, from :func:`spaces.surgery.kept_slots`.
        moments: Of the dense network's layers. Layers without full ones keep their weights.
        layers: From :func:`evaluators.statistics.layers.find_layers`.

    Returns:
        Names of the layers that were to be fitted and kept their inherited weights, because the problem was
        singular or not finite.

    References:
        He, Zhang and Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017.
    """
    failed = []
    for name, found in moments.items():
        remains = Remains.of(name, dense.get_submodule(name), slots)
        if not remains.is_narrower or found.gram is None or found.held is None:
            continue
        module, norm = model.get_submodule(name), norm_of(model, layers[name].norm)
        constant = has_constant(module, norm)
        weights = _solve(found, remains, constant=constant)
        if weights is None:
            failed.append(name)
            continue
        shift = weights[:, -1] if constant else None
        write_back(module, norm, weights[:, :-1] if constant else weights, shift)
    if failed:
        logger.warning("no finite re-fit of %s: inherited weights kept", ", ".join(failed))
    return failed


def _solve(moments: Moments, remains: Remains, *, constant: bool) -> Tensor | None:
    """``(conv groups, kept columns, kept outputs)``, the constant in the last row if there is one."""
    assert moments.gram is not None
    assert moments.held is not None
    columns = remains.columns
    if constant:
        columns = torch.cat([columns, columns.new_tensor([moments.weights.shape[1] - 1])])
    weights = moments.weights[remains.groups][:, :, remains.outputs]
    importance = moments.importance[remains.groups][:, remains.outputs]
    parts = []
    for gram in (moments.gram[remains.groups], moments.held[remains.groups]):
        product = gram @ weights
        parts.append((gram[:, columns][:, :, columns], product[:, columns], (weights * product).sum(1)))
    (fit_gram, fit_cross, _), held = parts
    best = best_solution((fit_gram, fit_cross), held, importance, constant=constant)
    return None if best is None else best.weights
