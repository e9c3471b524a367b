"""Who climbs: successive halving on non-dominated ranks, as pure functions of a table of scores."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.front import crowding, ranks

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from search.front import Mark

#: One of so many that reach a rung climbs to the next.
REDUCTION = 3


def quota(num_evaluated: int, reduction: int = REDUCTION) -> int:
    """Candidates that may climb once so many are evaluated; at least one where there are any."""
    return max(min(num_evaluated, 1), num_evaluated // reduction)


def ranked(marks: Sequence[Mark]) -> list[tuple[int, Mark]]:
    """``(rank, mark)``, best first: by non-dominated rank, then larger crowding distance, then id."""
    rank_of = ranks(marks)
    table: list[tuple[int, float, str, Mark]] = []
    for rank in sorted(set(rank_of.tolist())):
        peers = [mark for mark, r in zip(marks, rank_of, strict=True) if r == rank]
        distances = crowding(sorted(peers))
        table += [(rank, -d, mark.id, mark) for mark, d in zip(sorted(peers), distances, strict=True)]
    return [(rank, mark) for rank, *_, mark in sorted(table)]


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
    room = quota(len(marks), reduction) - len(promoted)
    waiting = [mark.id for _, mark in ranked(marks) if mark.id not in promoted]
    return waiting[: max(room, 0)]
