"""How much the loss rises when one group alone is cut: what single-layer allocations are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from evaluators.criteria.ranking import kept_units

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

    from spaces import ChannelGroup, Space

#: Networks that are measured, over all groups: half a minute at half a second each.
_MOST = 64

#: Fewer widths per group than these say nothing about its shape.
_LEAST_PER_GROUP = 2


def sensitivities(
    space: Space,
    build: Callable[[dict[str, Tensor]], nn.Module],
    orders: Mapping[str, Tensor],
    loss: Callable[[nn.Module], float],
    *,
    most_per_group: int = 4,
    most: int = _MOST,
) -> dict[str, Tensor]:
    """Measure every group's damage at some of its proposed widths while the others stay whole.

    At most ``most_per_group`` widths of a group are measured, evenly spaced from the narrowest on, and the
    others interpolated. Where that would be more than ``most`` networks over all groups, all groups get
    fewer widths, down to two; then the groups whose narrowest width saves fewest MACs are left out.

    Args:
        space: Groups and costs.
        build: Makes and mends the network that keeps the given units: for each group a sorted ``(k,)``
            LongTensor; groups left out stay whole.
        orders: For each group its ``(width,)`` units, best first; groups without are left out.
        loss: Of a network, lower is better.
        most_per_group: Widths of one group.
        most: Cut networks over all groups; the dense one comes on top.

    Returns:
        For each measured group the ``(choices,)`` float64 rises of the loss at its proposed widths, never
        negative, 0 at full width. A loss that is not finite counts as the worst finite one.

    Raises:
        FloatingPointError: If the loss of the dense network is not finite.
    """
    free = [group for group in space.groups if len(group.choices) > 1 and group.name in orders]
    per_group = min(most_per_group, max(_LEAST_PER_GROUP, most // max(1, len(free))))
    chosen = _costliest(space, free, most // per_group)
    dense = loss(build({}))
    if not np.isfinite(dense):
        raise FloatingPointError(f"The loss of the dense network is {dense}.")
    measured = {}
    for group in chosen:
        indices = _evenly(len(group.choices), per_group)
        kept = [kept_units(orders[group.name], group.choices[index]) for index in indices]
        rises = [loss(build({group.name: units})) - dense for units in kept]
        measured[group.name] = indices, np.array(rises)
    worst = max((r for _, rises in measured.values() for r in rises if np.isfinite(r)), default=0.0)
    return {
        group.name: _interpolated(len(group.choices), *measured[group.name], max(worst, 0.0))
        for group in chosen
    }


def _costliest(space: Space, groups: Sequence[ChannelGroup], most: int) -> list[ChannelGroup]:
    """Up to ``most`` groups whose narrowest width alone saves most MACs, in the order of the space."""
    dense = space.widths_array(space.dense)
    index = {group.name: column for column, group in enumerate(space.groups)}
    cuts = np.repeat(dense[None], len(groups), axis=0)
    for row, group in enumerate(groups):
        cuts[row, index[group.name]] = group.choices[0]
    return [groups[row] for row in sorted(np.argsort(space.macs(cuts), kind="stable")[:most])]


def _evenly(choices: int, count: int) -> list[int]:
    """Up to ``count`` indices from 0 to below the last of ``choices``, evenly spaced."""
    spaced = np.linspace(0, choices - 1, min(count, choices - 1) + 1)[:-1]
    return [round(index) for index in spaced]


def _interpolated(choices: int, indices: list[int], rises: NDArray[np.float64], worst: float) -> Tensor:
    """``(choices,)`` damages from those at some indices; 0 at the last one."""
    known = np.where(np.isfinite(rises), np.maximum(rises, 0.0), worst)
    damages = np.interp(np.arange(choices), [*indices, choices - 1], [*known, 0.0])
    return torch.from_numpy(damages)
