"""An architecture: how many units each group keeps. Scratch training depends on nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, slots=True)
class Architecture:
    """Kept units per group, hashable and ordered as the space's groups are.

    Attributes:
        items: ``(group name, kept units)`` pairs.
    """

    items: tuple[tuple[str, int], ...]

    @classmethod
    def of(cls, widths: Mapping[str, int]) -> Architecture:
        """The architecture with these kept units per group."""
        return cls(tuple((name, int(width)) for name, width in widths.items()))

    @property
    def widths(self) -> Mapping[str, int]:
        """Kept units of each group."""
        return MappingProxyType(dict(self.items))
