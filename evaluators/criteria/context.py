"""What a criterion is and what it may look at."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from evaluators.reconstruct.elimination import Elimination, backward_elimination
from evaluators.statistics.records import Consumer, Statistics, UnitStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces.groups import ChannelGroup, Role


class NotApplicable(ValueError):  # noqa: N818 - a fact about a group, not a fault
    """The criterion needs slots or statistics that the group does not have."""


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """The dense network as criteria see it; every criterion reads the same one.

    Attributes:
        parameters: Parameters and buffers by name.
        statistics: What the sweep over the calibration data left behind.
        seed: For criteria that draw.
        scores: Criterion -> group -> ``(width,)`` scores of the criteria that are already computed; only
            ``learned`` reads them.
        groups: All groups of the space; only ``learned`` reads them.
    """

    parameters: Mapping[str, Tensor]
    statistics: Statistics
    seed: int
    scores: Mapping[str, Mapping[str, Tensor]] = field(default_factory=dict)
    groups: tuple[ChannelGroup, ...] = ()
    _eliminations: dict[str, Elimination] = field(default_factory=dict)

    def weights(self, group: ChannelGroup, *roles: Role) -> Tensor:
        """All numbers in the slots of the members with one of ``roles``: ``(width, n)`` float64.

        Raises:
            NotApplicable: If the group has no such member.
        """
        return per_unit(self.parameters, group, roles)

    def weight_gradients(self, group: ChannelGroup, *roles: Role) -> Tensor:
        """The gradients of what :meth:`weights` returns, in the same order: ``(width, n)`` float64.

        Raises:
            NotApplicable: If the group has no such member, or the loss does not reach it.
        """
        return per_unit(self.statistics.gradients, group, roles)

    def consumers(self, group: ChannelGroup) -> tuple[Consumer, ...]:
        """The convolutions and linear layers that read the group and have moments.

        Raises:
            NotApplicable: If there is none.
        """
        found = []
        for member in group.members:
            moments = self.statistics.moments.get(member.tensor.removesuffix(".weight"))
            if moments is not None and (member.role, member.dim) == ("input", 1):
                slots = torch.from_numpy(np.ascontiguousarray(member.slots))
                columns = slots[:, :, None] * moments.taps + torch.arange(moments.taps)
                found.append(Consumer(moments, columns.flatten(1)))
        if not found:
            raise NotApplicable(f"{group.name!r} has no layer with moments that reads it.")
        return tuple(found)

    def elimination(self, group: ChannelGroup) -> Elimination:
        """Backward elimination of the group's units; done once, since it takes a while.

        Raises:
            NotApplicable: As :meth:`consumers`.
        """
        if group.name not in self._eliminations:
            self._eliminations[group.name] = backward_elimination(self.consumers(group))
        return self._eliminations[group.name]

    def units(self, group: ChannelGroup) -> UnitStatistics:
        """Statistics of the group's units.

        Raises:
            NotApplicable: If there are none, since no layer reads the group.
        """
        if group.name not in self.statistics.units:
            raise NotApplicable(f"{group.name!r} has no statistics of its units.")
        return self.statistics.units[group.name]


class Criterion(Protocol):
    """Scores the units of a group: ``(group.width,)`` float64; **higher means keep**.

    Raises:
        NotApplicable: If the group lacks what the criterion looks at.
    """

    def __call__(self, context: ScoringContext, group: ChannelGroup) -> Tensor:
        """Score every unit of ``group``."""
        ...


def per_unit(tensors: Mapping[str, Tensor], group: ChannelGroup, roles: tuple[Role, ...]) -> Tensor:
    """Everything that ``tensors`` hold in a unit's slots, members one behind the other.

    Args:
        tensors: By the names that members have; a member without a tensor is passed over.
        group: Whose units.
        roles: Of the members to read.

    Returns:
        ``(width, n)`` float64, in the order of the members.

    Raises:
        NotApplicable: If no member is left.
    """
    members = [member for member in group.members if member.role in roles and member.tensor in tensors]
    if not members:
        raise NotApplicable(f"{group.name!r} has no {' or '.join(roles)} slots.")
    rows = []
    for member in members:
        slots = torch.from_numpy(np.ascontiguousarray(member.slots))
        tensor = tensors[member.tensor].detach().movedim(member.dim, 0)
        rows.append(tensor[slots.flatten()].double().reshape(group.width, -1))
    return torch.cat(rows, dim=1)
