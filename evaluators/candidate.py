"""A candidate: an architecture plus the criteria that choose which units stay."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from spaces import Architecture, Space


@dataclass(frozen=True)
class Candidate:
    """Evaluated once per (``id``, rung, method, seed).

    Attributes:
        architecture: Kept units per group.
        chosen: ``(group, criterion)`` for every group that loses units; a full group needs none, so
            that two candidates which build the same network have the same ``id``.
    """

    architecture: Architecture
    chosen: tuple[tuple[str, str], ...]

    @classmethod
    def of(cls, space: Space, architecture: Architecture, criteria: str | Mapping[str, str]) -> Candidate:
        """A candidate with one criterion for all groups, or one for each."""
        widths = architecture.widths
        pruned = [group.name for group in space.groups if widths[group.name] < group.width]
        return cls(
            space.ordered(architecture),
            tuple((name, criteria if isinstance(criteria, str) else criteria[name]) for name in pruned),
        )

    @property
    def criteria(self) -> Mapping[str, str]:
        """Criterion of each group that loses units."""
        return MappingProxyType(dict(self.chosen))

    @cached_property
    def id(self) -> str:
        """Ten hexadecimal digits that are the same in every process."""
        canonical = json.dumps([self.architecture.items, self.chosen], sort_keys=True)
        return hashlib.sha256(canonical.encode()).hexdigest()[:10]
