"""From tied slots to a space: units, groups of interchangeable units, and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from spaces.cost import CostBuilder
from spaces.groups import ChannelGroup, Member
from spaces.slots import FROZEN, Slots
from spaces.space import Space

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from numpy.typing import NDArray

    from spaces.slots import Owner

#: ``(owner, slots)`` of a unit, by owner: where it lives and how much of each place it takes.
Signature = tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Units:
    """Where every unit of the network lives: one row per (unit, owner) pair.

    Attributes:
        root: ``(rows,)`` the unit.
        owner: ``(rows,)`` parameter dimensions first, then dimensions that only costs know.
        count: ``(rows,)`` slots that the unit has there.
    """

    root: NDArray[np.int64]
    owner: NDArray[np.int64]
    count: NDArray[np.int64]

    @classmethod
    def of(cls, roots: NDArray[np.int64], vectors: Sequence[NDArray[np.int64]]) -> _Units:
        owner = np.repeat(np.arange(len(vectors)), [len(v) for v in vectors])
        root = roots[np.concatenate([np.empty(0, dtype=np.int64), *vectors])]
        pairs, count = np.unique((root * len(vectors) + owner)[root != FROZEN], return_counts=True)
        return cls(*np.divmod(pairs, len(vectors)), count)

    def by_signature(self) -> dict[Signature, list[int]]:
        """Units with the same number of slots in the same places are interchangeable."""
        signatures: dict[int, list[tuple[int, int]]] = {}
        for root, owner, count in zip(
            self.root.tolist(), self.owner.tolist(), self.count.tolist(), strict=True
        ):
            signatures.setdefault(root, []).append((owner, count))
        groups: dict[Signature, list[int]] = {}
        for root, signature in signatures.items():
            groups.setdefault(tuple(signature), []).append(root)
        return groups


def assemble(
    slots: Slots,
    *,
    divisor: int,
    smallest: float,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    frozen: Collection[str] = (),
) -> Space:
    """The space that the ties leave open.

    Args:
        slots: Labels and ties of a traced model.
        divisor: See :func:`spaces.trace`.
        smallest: See :func:`spaces.trace`.
        include: See :func:`spaces.trace`.
        exclude: See :func:`spaces.trace`.
        frozen: Names of groups that failed verification.
    """
    roots = slots.final_roots()
    inexact = slots.inexact_roots(roots)
    owned = [np.arange(owner.start, owner.start + owner.size) for owner in slots.owners]
    seen = {vector.tobytes(): vector for term in slots.terms for vector in term.sizes}
    units = _Units.of(roots, [*owned, *seen.values()])
    groups: list[ChannelGroup] = []
    group_of_root = np.full(len(roots), -1)
    for name, signature, members in _named(slots, units.by_signature()):
        if name in frozen or not _wanted(name, include, exclude):
            continue
        group_of_root[members] = len(groups)
        exact = inexact.isdisjoint(members)
        groups.append(_group(slots, roots, name, members, signature, divisor, smallest, exact=exact))
    return _space(slots, tuple(groups), group_of_root[roots])


def _named(slots: Slots, groups: dict[Signature, list[int]]) -> Iterator[tuple[str, Signature, list[int]]]:
    """Groups with a choice, each with a name of its own that no pattern or freezing changes.

    A single unit can not go, since a group keeps at least one. The units of one tensor may fall into
    several groups; the later ones get a number.
    """
    seen: dict[str, int] = {}
    for signature, members in groups.items():
        name = _name(slots, signature)
        if len(members) > 1 and name is not None:
            seen[name] = seen.get(name, 0) + 1
            yield name if seen[name] == 1 else f"{name}#{seen[name]}", signature, members


def _wanted(name: str, include: Sequence[str], exclude: Sequence[str]) -> bool:
    included = not include or any(fnmatchcase(name, pattern) for pattern in include)
    return included and not any(fnmatchcase(name, pattern) for pattern in exclude)


def _name(slots: Slots, signature: Signature) -> str | None:
    """The first tensor whose rows make the units; ``None`` where nothing does."""
    for owner, _ in signature:
        if owner < len(slots.owners) and slots.roles.get(owner) == "output":
            return slots.owners[owner].tensor.removesuffix(".weight")
    return None


def _group(
    slots: Slots,
    roots: NDArray[np.int64],
    name: str,
    members: list[int],
    signature: Signature,
    divisor: int,
    smallest: float,
    *,
    exact: bool,
) -> ChannelGroup:
    position = np.full(len(roots), -1)
    position[members] = np.arange(len(members))
    places = []
    for number, count in signature:
        if number < len(slots.owners):
            owner: Owner = slots.owners[number]
            unit = position[roots[owner.start : owner.start + owner.size]]
            # Stable: the slots of each unit stay in ascending order.
            order = np.argsort(unit, kind="stable")[np.count_nonzero(unit < 0) :]
            role = slots.roles.get(number, "other")
            places.append(Member(owner.tensor, owner.dim, role, order.reshape(len(members), count)))
    channels = min(place.slots.shape[1] for place in places)
    return ChannelGroup(
        name,
        len(members),
        divisor,
        channels,
        tuple(places),
        exact,
        max(1, math.ceil(smallest * len(members))),
    )


def _space(slots: Slots, groups: tuple[ChannelGroup, ...], group_of: NDArray[np.int64]) -> Space:
    """Costs from the recorded operators and the tensors' shapes."""
    widths = np.array([group.width for group in groups], dtype=np.int64)

    def size(vector: NDArray[np.int64]) -> tuple[int, tuple[int, ...]]:
        of = group_of[vector]
        per_group = np.bincount(of[of >= 0], minlength=len(groups))
        return int(np.count_nonzero(of < 0)), tuple((per_group // widths).tolist() if len(groups) else ())

    macs = CostBuilder(len(groups))
    for term in slots.terms:
        macs.add(term.constant, [size(vector) for vector in term.sizes])
    params = CostBuilder(len(groups))
    dims: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for owner in slots.owners:
        if owner.is_parameter:
            dims.setdefault(owner.tensor, []).append(size(np.arange(owner.start, owner.start + owner.size)))
    for sizes in dims.values():
        params.add(1, sizes)
    params.add(len(slots.scalars), [])
    return Space(groups, macs.build(), params.build(), tuple(slots.warnings))
