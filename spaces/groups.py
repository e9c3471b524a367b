"""What may be pruned: groups of interchangeable units and the tensor slots that each unit owns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Role = Literal["output", "input", "scale", "bias", "statistic", "other"]


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """The slots that a group's units own in one dimension of one parameter or buffer.

    Attributes:
        tensor: Name of the parameter or buffer, as in ``state_dict``.
        dim: Dimension that a cut shortens.
        role: What the slots do: ``output`` rows compute the unit and ``input`` columns read it
            (weights of convolution and linear layers), ``scale`` and ``bias`` are per-channel
            parameters, ``statistic`` is a running mean or variance.
        slots: ``(width, slots per unit)`` int64; row ``u`` lists the indices that go with unit ``u``.
    """

    tensor: str
    dim: int
    role: Role
    slots: NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class ChannelGroup:
    """Units that are interchangeable: keep any ``k`` of them.

    Attributes:
        name: The tensor whose rows produce the units, without its ``.weight``.
        width: Number of units.
        divisor: Kept widths that are proposed are multiples of it, in channels, or full.
        unit_channels: Channels per unit: 1, or the size of a conv group.
        members: Every place where a unit lives; all go together.
        exact: Whether a cut equals the masked network. A norm over the channels makes it ``False``.
        smallest: Units that a search always keeps.
        fewest: Units that must stay for the network to have numbers: an unbiased deviation needs two.
    """

    name: str
    width: int
    divisor: int
    unit_channels: int
    members: tuple[Member, ...]
    exact: bool = True
    smallest: int = 1
    fewest: int = 1

    def __post_init__(self) -> None:
        if self.width < 1:
            raise ValueError(f"ChannelGroup {self.name!r}: `width` must be at least 1, got {self.width=}.")
        if self.divisor < 1:
            raise ValueError(
                f"ChannelGroup {self.name!r}: `divisor` must be at least 1, got {self.divisor=}."
            )

    @property
    def step(self) -> int:
        """Units between two proposed widths; a unit wider than the divisor counts as a whole step."""
        return max(1, -(-self.divisor // self.unit_channels))

    @property
    def choices(self) -> tuple[int, ...]:
        """Widths that a search proposes, ascending: multiples of :attr:`step`, and full."""
        first = -(-self.smallest // self.step) * self.step
        return (*range(first, self.width, self.step), self.width)
