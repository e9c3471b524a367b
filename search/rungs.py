"""Who climbs: successive halving on non-dominated ranks, as pure functions of a table of scores."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from search.front import ranked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from search.front import Mark

#: One of so many that reach a rung climbs to the next.
REDUCTION = 3


def quota(num_evaluated: int, reduction: int = REDUCTION) -> int:
    """Candidates that may climb once so many are evaluated; at least one where there are any."""
    return max(min(num_evaluated, 1), num_evaluated // reduction)


def climbers(
    marks: Sequence[Mark], promoted: Collection[str], reduction: int = REDUCTION
) -> Iterator[tuple[int, Mark]]:
    """``(rank, mark)`` of those that climb now, best first; arguments as in :func:`promotable`."""
    room = quota(len(marks), reduction) - len(promoted)
    if room <= 0:
        return iter(())
    return islice(((rank, mark) for rank, mark in ranked(marks) if mark.id not in promoted), room)


def promotable(marks: Sequence[Mark], promoted: Collection[str], reduction: int = REDUCTION) -> list[str]:
    """Ids that climb now, best first.

    Args:
        marks: Everything that was evaluated on the rung.
        promoted: Ids that climbed already; they count against the quota for good.
        reduction: One of so many climbs.

    References:
        Li et al., A System for Massively Parallel Hyperparameter Tuning (ASHA), 2020; with one table of
        non-dominated ranks where theirs has one metric.
    """
    return [mark.id for _, mark in climbers(marks, promoted, reduction)]
