"""From tied slots to a space: units, groups of interchangeable units, and costs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from itertools import pairwise
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from spaces.attributes import Attribute, Mend
from spaces.cost import Cost, CostBuilder
from spaces.frozen import Frozen
from spaces.groups import ChannelGroup, Member
from spaces.slots import FROZEN, Cause, Place, Slots
from spaces.space import Space

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from spaces.slots import Owner

Number = TypeVar("Number", int, float)

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
        if not len(self.root):
            return {}
        rows = np.stack([self.owner, self.count], axis=1)
        starts = np.flatnonzero(np.diff(self.root, prepend=-1)).tolist()  # rows come by ascending root
        alike: dict[bytes, tuple[int, list[int]]] = {}
        for number, (start, end) in enumerate(pairwise([*starts, len(rows)])):
            _, members = alike.setdefault(rows[start:end].tobytes(), (number, []))
            members.append(int(self.root[start]))
        ends = [*starts[1:], len(rows)]
        return {
            tuple(map(tuple, rows[starts[number] : ends[number]].tolist())): members
            for number, members in alike.values()
        }


def _named_options(option: str, numbers: Mapping[str, Number]) -> list[tuple[str, Number]]:
    return [(f"{option}[{pattern!r}]", number) for pattern, number in numbers.items()]


@dataclass(frozen=True, slots=True)
class Limits:
    """What a caller allows; see :func:`spaces.trace`."""

    divisor: int = 1
    smallest: float = 0.0
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    divisor_of: Mapping[str, int] = field(default_factory=dict)
    smallest_of: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for option, divisor in [("divisor", self.divisor), *_named_options("divisor_of", self.divisor_of)]:
            if divisor < 1:
                raise ValueError(f"`{option}` must be at least 1, got {divisor}.")
        for option, share in [("smallest", self.smallest), *_named_options("smallest_of", self.smallest_of)]:
            if not 0 <= share <= 1:
                raise ValueError(f"`{option}` must be in [0, 1], got {share}.")

    def of(self, name: str) -> tuple[int, float]:
        """Divisor and smallest share of one group: of the last pattern that fits its name."""
        divisor, smallest = self.divisor, self.smallest
        for pattern, number in self.divisor_of.items():
            divisor = number if fnmatchcase(name, pattern) else divisor
        for pattern, share in self.smallest_of.items():
            smallest = share if fnmatchcase(name, pattern) else smallest
        return divisor, smallest

    def wants(self, name: str) -> bool:
        """Whether a group of this name may be pruned."""
        included = not self.include or any(fnmatchcase(name, pattern) for pattern in self.include)
        return included and not any(fnmatchcase(name, pattern) for pattern in self.exclude)


def assemble(
    slots: Slots,
    limits: Limits,
    refused: Mapping[str, Cause] | None = None,
) -> Space:
    """The space that the ties leave open.

    Args:
        slots: Labels and ties of a traced model.
        limits: What the caller allows.
        refused: Names of groups that failed verification, and why.
    """
    refused = {} if refused is None else refused
    roots = slots.final_roots()
    inexact, deviating = slots.inexact_roots(roots), slots.deviating_roots(roots)
    owned = [np.arange(owner.start, owner.start + owner.size) for owner in slots.owners]
    seen = {vector.tobytes(): vector for term in slots.terms for vector in term.sizes}
    units = _Units.of(roots, [*owned, *seen.values()])
    groups: list[ChannelGroup] = []
    group_of_root = np.full(len(roots), -1)
    reasons: dict[int, Cause] = {}
    for name, signature, members in _named(slots, units.by_signature()):
        if name is None or name in refused or len(members) == 1 or not limits.wants(name):
            cause = Cause("made by no layer" if name is None else "excluded", Place())
            cause = Cause("one unit only", Place()) if len(members) == 1 else refused.get(name or "", cause)
            reasons.update(dict.fromkeys(members, cause))
            continue
        group_of_root[members] = len(groups)
        divisor, share = limits.of(name)
        fewest = 1 if deviating.isdisjoint(members) else 2
        group = replace(
            _group(slots, roots, name, members, signature),
            divisor=divisor,
            exact=inexact.isdisjoint(members),
            smallest=max(fewest, math.ceil(share * len(members))),
            fewest=fewest,
        )
        groups.append(group)
    sizes = Sizes(tuple(groups), group_of_root[roots], np.zeros(len(roots), dtype=bool), roots)
    return Space(
        tuple(groups),
        _macs(slots, sizes),
        _params(slots, sizes),
        tuple(slots.warnings),
        _frozen(slots, roots, group_of_root, reasons),
    )


def _named(
    slots: Slots, groups: dict[Signature, list[int]]
) -> Iterator[tuple[str | None, Signature, list[int]]]:
    """Sets of interchangeable units; those with a choice have names that no pattern or freezing changes.

    A single unit can not go, since a group keeps at least one. The units of one tensor may fall into
    several groups; the later ones get a number.
    """
    seen: dict[str, int] = {}
    for signature, members in groups.items():
        name = _name(slots, signature)
        if len(members) > 1 and name is not None:
            seen[name] = seen.get(name, 0) + 1
            name = name if seen[name] == 1 else f"{name}#{seen[name]}"
        yield name, signature, members


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
) -> ChannelGroup:
    """Without limits."""
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
    layers = [place for place in places if place.role in ("output", "input")]
    channels = min(place.slots.shape[1] for place in layers or places)
    return ChannelGroup(name, len(members), 1, channels, tuple(places))


@dataclass(frozen=True, slots=True, eq=False)
class Sizes:
    """Sizes of labelled dimensions as functions of the kept widths.

    Attributes:
        groups: Those of the space.
        group_of: ``(labels,)`` the group of each label, -1 where it stays.
        unbound: ``(labels,)`` true where Python code made a size that no group has, and that may change.
        roots: ``(labels,)`` the unit of each label.
    """

    groups: tuple[ChannelGroup, ...]
    group_of: NDArray[np.int64]
    unbound: NDArray[np.bool_]
    roots: NDArray[np.int64]

    @classmethod
    def of(cls, slots: Slots, space: Space) -> Sizes:
        """Those of an assembled space."""
        roots = slots.roots()
        starts = {(owner.tensor, owner.dim): owner.start for owner in slots.owners}
        group_of_root = np.full(len(roots), -1)
        for number, group in enumerate(space.groups):
            for member in group.members:
                labels = starts[member.tensor, member.dim] + member.slots.ravel()
                group_of_root[roots[labels]] = number
        group_of = group_of_root[roots]
        return cls(space.groups, group_of, slots.unbound(roots) & (group_of < 0), roots)

    def __call__(self, vector: NDArray[np.int64]) -> tuple[int, tuple[int, ...]]:
        """Slots that always stay, and slots that one unit of each group adds."""
        of = self.group_of[vector]
        per_group = np.bincount(of[of >= 0], minlength=len(self.groups))
        widths = np.array([group.width for group in self.groups], dtype=np.int64)
        per_unit = tuple((per_group // widths).tolist()) if self.groups else ()
        return int(np.count_nonzero(of < 0)), per_unit

    def is_linear(self, vector: NDArray[np.int64]) -> bool:
        """Whether the kept widths alone decide the size: every unit of a group has as many slots there."""
        of = self.group_of[vector]
        per_unit = np.unique(self.roots[vector[of >= 0]], return_counts=True)
        counts: dict[int, set[int]] = {}
        for root, count in zip(*per_unit, strict=True):
            counts.setdefault(int(self.group_of[root]), set()).add(int(count))
        num_units = np.bincount(self.group_of[per_unit[0]], minlength=len(self.groups))
        return all(
            len(some) == 1 and num_units[group] == self.groups[group].width for group, some in counts.items()
        )

    def mend(self, attribute: Attribute, vector: NDArray[np.int64]) -> Mend:
        """An integer that is the size of this dimension."""
        fixed, per_unit = self(vector)
        names = [group.name for group in self.groups]
        counts = tuple((name, count) for name, count in zip(names, per_unit, strict=True) if count)
        return Mend(attribute, fixed, counts)


def _macs(slots: Slots, size: Sizes) -> Cost:
    macs = CostBuilder(len(size.groups))
    for term in slots.terms:
        macs.add(term.constant, [size(vector) for vector in term.sizes])
    return macs.build()


def _params(slots: Slots, size: Sizes) -> Cost:
    params = CostBuilder(len(size.groups))
    dims: dict[str, list[tuple[int, tuple[int, ...]]]] = {}
    for owner in slots.owners:
        if owner.is_parameter:
            dims.setdefault(owner.tensor, []).append(size(np.arange(owner.start, owner.start + owner.size)))
    for sizes in dims.values():
        params.add(1, sizes)
    params.add(len(slots.scalars), [])
    return params.build()


def _frozen(
    slots: Slots, roots: NDArray[np.int64], group_of_root: NDArray[np.int64], reasons: Mapping[int, Cause]
) -> tuple[Frozen, ...]:
    """For each layer, its outputs that stay, and the first reason for it."""
    cause_of = slots.causes()
    found = []
    for number, owner in enumerate(slots.owners):
        if slots.roles.get(number) != "output":
            continue
        labels = np.arange(owner.start, owner.start + owner.size)
        stay = labels[group_of_root[roots[labels]] < 0]
        if not len(stay):
            continue
        first = int(stay[0])
        cause = cause_of(first) if roots[first] == FROZEN else None
        cause = cause or reasons.get(int(roots[first])) or Cause("unknown", Place())
        place = cause.place
        name = owner.tensor.removesuffix(".weight")
        found.append(Frozen(name, len(stay), cause.reason, place.operator, place.module, place.line))
    return tuple(found)
