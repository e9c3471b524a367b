"""The cuts that a set of groups must survive before it is offered."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from torch import Tensor

    from spaces.groups import ChannelGroup


def random_kept(
    groups: Sequence[ChannelGroup], generator: torch.Generator, counts: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Random units of each group.

    Args:
        groups: Of a space.
        generator: Source of randomness.
        counts: How many units of each group; at least half where it is not said. A single unit stretches to
            whatever it meets, which would hide that two groups belong together, and of few units all may be
            silent behind a ReLU, which would hide anything.
    """
    kept = {}
    for group in groups:
        half = max(-(-group.width // 2), group.fewest)
        size = int(torch.randint(half, max(half + 1, group.width), (), generator=generator))
        size = size if counts is None else counts[group.name]
        kept[group.name] = torch.randperm(group.width, generator=generator)[:size].sort().values
    return kept


def spread_counts(groups: Sequence[ChannelGroup]) -> Iterator[dict[str, int]]:
    """Kept counts, for several cuts, such that two groups of equal width differ in at least one of them.

    Code that wants two groups to have the same size would go unnoticed where both happen to keep as many.
    """
    place: dict[str, int] = {}
    size_of: Counter[int] = Counter()
    for group in groups:
        place[group.name] = size_of[group.width]
        size_of[group.width] += 1
    fewest = max((group.fewest for group in groups), default=1)
    options: dict[int, range] = {}
    for width, size in size_of.items():
        half = min(max(-(-width // 2), fewest), width)
        # Nothing goes in some of the cuts where there are more groups than widths from half to full.
        options[width] = range(half, width if size <= width - half else width + 1)
    digit = 0
    while any(size > len(options[width]) ** digit for width, size in size_of.items()) or digit == 0:
        digits = {
            group.name: place[group.name] // len(options[group.width]) ** digit % len(options[group.width])
            for group in groups
        }
        yield {group.name: options[group.width][digits[group.name]] for group in groups}
        if any(width in some for width, some in options.items()):
            # Of two that differ, the one that lost nothing loses some now.
            yield {group.name: options[group.width][-1 - digits[group.name]] for group in groups}
        digit += 1


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts that every set of groups must survive.

    Attributes:
        random: Some units of each group.
        spread: Others, see :func:`spread_counts`.
        least: The last unit of each, or as few as there may be.
    """

    random: dict[str, Tensor]
    spread: tuple[dict[str, Tensor], ...]
    least: dict[str, Tensor]

    @classmethod
    def of(cls, groups: Sequence[ChannelGroup], generator: torch.Generator) -> Cuts:
        """Cuts of all groups."""
        return cls(
            random_kept(groups, generator),
            tuple(random_kept(groups, generator, counts) for counts in spread_counts(groups)),
            {group.name: torch.arange(group.width)[-group.fewest :] for group in groups},
        )

    def only(self, groups: Sequence[ChannelGroup]) -> Cuts:
        """Cuts of some of the groups."""

        def part(kept: dict[str, Tensor]) -> dict[str, Tensor]:
            return {group.name: kept[group.name] for group in groups}

        return Cuts(part(self.random), tuple(map(part, self.spread)), part(self.least))
