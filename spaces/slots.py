"""Slot labels: which indices of which tensors must go together.

Every index of every dimension of every parameter and buffer is a *slot* with an integer label. While
the model runs, operator rules (:mod:`spaces.rules`) hand labels from tensor to tensor and record which
labels are tied; connected components of those ties are what can only be removed as a whole.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from torch import Tensor

    from spaces.groups import Role

#: Labels of the indices of one dimension; ``None`` where no choice of widths changes the size.
Labels = NDArray[np.int64] | None
TensorLabels = tuple[Labels, ...]

#: The label of slots that must stay.
FROZEN = 0


@dataclass(frozen=True, slots=True, eq=False)
class Owner:
    """One dimension of one parameter or buffer; its slots carry labels ``start`` to ``start + size``."""

    tensor: str
    dim: int
    size: int
    start: int
    is_parameter: bool


@dataclass(frozen=True, slots=True)
class Place:
    """Where in the model an operator ran.

    Attributes:
        operator: ATen overload, such as ``aten.select.int``.
        module: Dotted name of the innermost module; empty for the model itself.
        line: The line of the model's own code, such as ``resnet.py:92``.
    """

    operator: str | None = None
    module: str | None = None
    line: str | None = None


@dataclass(frozen=True, slots=True)
class Cause:
    """Why slots must stay."""

    reason: str
    place: Place


@dataclass(frozen=True, slots=True, eq=False)
class Site:
    """A dimension that was split, so that either its inner or its outer part may shrink.

    Attributes:
        sizes: Sizes that it was split into.
        kept: Labels of the part that may shrink.
        dim: Which part that is, counted from the end (-1 is the innermost).
    """

    sizes: tuple[int, ...]
    kept: NDArray[np.int64]
    dim: int


#: A split is known by module, line, and how many splits that line made there before.
SiteKey = tuple[str | None, str | None, int]


@dataclass(frozen=True, slots=True, eq=False)
class MacsTerm:
    """Multiply-adds of one operator: ``constant`` times the sizes of labelled dimensions."""

    constant: int
    sizes: tuple[NDArray[np.int64], ...]


def components(num_labels: int, left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    """Smallest label of the connected component of each label.

    Args:
        num_labels: Labels are ``0 .. num_labels - 1``.
        left: ``(edges,)`` one end of each tie.
        right: ``(edges,)`` the other end.

    Returns:
        ``(num_labels,)``; 0 for whatever is tied to a frozen slot.
    """
    root = np.arange(num_labels)
    while True:
        a, b = root[left], root[right]
        open_ties = a != b
        if not open_ties.any():
            return root
        np.minimum.at(root, np.maximum(a, b)[open_ties], np.minimum(a, b)[open_ties])
        while not np.array_equal(root, shorter := root[root]):
            root = shorter


class Slots:
    """Labels of all tensors of one trace, and the ties between them.

    Args:
        parts: Which part of a split dimension may shrink, where it is not the default.
    """

    def __init__(self, parts: Mapping[SiteKey, int] | None = None) -> None:
        self.owners: list[Owner] = []
        self.roles: dict[int, Role] = {}
        self.terms: list[MacsTerm] = []
        self.warnings: dict[str, None] = {}
        self.sites: dict[SiteKey, Site] = {}
        self.counting = True
        self.scalars: set[str] = set()
        self.place: Callable[[], Place] = Place
        #: Labels of rows and columns of matrices that are multiplied in batches, as in attention.
        self.multiplied: list[NDArray[np.int64]] = []
        #: Labels of what operators count without making a dimension of it, such as groups of channels.
        self.counts: list[NDArray[np.int64]] = []
        self._parts = dict(parts or {})
        self._visits: Counter[tuple[str | None, str | None]] = Counter()
        self._num_labels = FROZEN + 1
        self._made: list[NDArray[np.int64]] = []
        self._starts: list[int] = []
        self._read: set[str] = set()
        self._left: list[NDArray[np.int64]] = []
        self._right: list[NDArray[np.int64]] = []
        self._frozen: list[tuple[NDArray[np.int64], Cause]] = []
        self._inexact: list[NDArray[np.int64]] = []
        self._deviating: list[NDArray[np.int64]] = []
        self._known: dict[str, TensorLabels] = {}
        self._labels: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._names: WeakIdKeyDictionary = WeakIdKeyDictionary()

    # -- tensors ----------------------------------------------------------------------------------

    def register(self, name: str, tensor: Tensor, *, is_parameter: bool) -> None:
        """Give every slot of a parameter or buffer its label; a second trace finds the same ones."""
        if name not in self._known:
            labels: list[Labels] = []
            for dim, size in enumerate(tensor.shape):
                if size == 1:  # the only slot there can not go
                    labels.append(None)
                    continue
                labels.append(np.arange(self._num_labels, self._num_labels + size))
                self.owners.append(Owner(name, dim, size, self._num_labels, is_parameter))
                self._starts.append(self._num_labels)
                self._num_labels += size
            self._known[name] = tuple(labels)
            if is_parameter and all(some is None for some in labels):
                self.scalars.add(name)
        self._labels[tensor] = self._known[name]
        self._names[tensor] = name

    def of(self, tensor: Tensor) -> TensorLabels:
        """Labels of each dimension of a tensor."""
        if tensor in self._names:
            self._read.add(self._names[tensor])
        labels: TensorLabels = self._labels[tensor] if tensor in self._labels else (None,) * tensor.dim()
        return labels

    def fresh(self, size: int) -> Labels:
        """Labels of a dimension whose size Python code made, as ``torch.zeros(1, width)`` does.

        It goes along with whatever it meets; whether the code really follows is for verification to find out.
        """
        if size <= 1:
            return None
        labels = np.arange(self._num_labels, self._num_labels + size)
        self._num_labels += size
        self._made.append(labels)
        return labels

    def put(self, tensor: Tensor, labels: TensorLabels) -> None:
        """Set the labels of an operator's output."""
        assert len(labels) == tensor.dim()
        self._labels[tensor] = labels

    # -- facts that rules state -------------------------------------------------------------------

    def tie(self, left: Labels, right: Labels) -> None:
        """Corresponding slots go together; a dimension without labels freezes its partner."""
        if left is None or right is None:
            self.freeze(left, right, reason="meets a dimension of fixed size")
            return
        left, right = (some.ravel() for some in np.broadcast_arrays(left, right))
        stays = (left == FROZEN) | (right == FROZEN)
        if stays.any():
            self.freeze(left[stays], right[stays], reason="meets slots that stay")
        bound = ~stays & (left != right)
        if bound.any():
            self._left.append(left[bound])
            self._right.append(right[bound])

    def meet(self, dimensions: Sequence[Labels]) -> Labels:
        """Labels of what several dimensions of equal size become together."""
        if not dimensions or all(some is None for some in dimensions):
            return None
        named = next(some for some in dimensions if some is not None)
        for some in dimensions:
            if some is not named:
                self.tie(named, some)
        return None if any(some is None for some in dimensions) else named

    def freeze(self, *labels: Labels, reason: str = "read at fixed places") -> None:
        """These slots must stay."""
        for some in labels:
            if some is not None and (named := some[some != FROZEN]).size:
                self._frozen.append((named, Cause(reason, self.place())))

    def freeze_tensor(self, name: str, reason: str) -> None:
        """Every slot of a parameter or buffer must stay."""
        for labels in self._known[name]:
            if labels is not None and labels.size:
                self._frozen.append((labels, Cause(reason, Place(module=name.rpartition(".")[0]))))

    def split(self, labels: NDArray[np.int64], sizes: Sequence[int], default: int = -1) -> list[Labels]:
        """Labels of the parts of a dimension that is split, of which one may shrink.

        Args:
            labels: ``(n,)`` of the dimension.
            sizes: Of its parts, with product ``n``.
            default: The part that may shrink, counted from the end, where no choice was made.
        """
        place = self.place()
        visit = (place.module, place.line)
        key = (*visit, self._visits[visit])
        self._visits[visit] += 1
        dim = self._parts.get(key, default)
        lines = np.moveaxis(labels.reshape(tuple(sizes)), dim, -1).reshape(-1, sizes[dim])
        self.tie(lines, lines[:1])
        self.sites[key] = Site(tuple(sizes), lines[0], dim)
        self.counts.append(lines[0])
        result: list[Labels] = [None] * len(sizes)
        result[dim] = lines[0]
        return result

    def begin_pass(self) -> None:
        """The model runs anew: its splits come in the same order."""
        self._visits.clear()

    def mark_inexact(self, labels: Labels) -> None:
        """Removing these slots changes the values of the others, as a norm over channels does."""
        if labels is not None:
            self._inexact.append(labels[labels != FROZEN])

    def mark_deviating(self, labels: Labels) -> None:
        """Of these slots two must stay: their unbiased deviation is divided by one less than their number."""
        if labels is not None:
            self._deviating.append(labels[labels != FROZEN])

    def give_role(self, labels: Labels, role: Role) -> None:
        """Say what a parameter's slots do; the first word counts: activations carry these labels too."""
        if labels is not None and labels.size and labels.flat[0] != FROZEN:
            number = int(np.searchsorted(self._starts, labels.flat[0], side="right")) - 1
            owner = self.owners[number]
            if number >= 0 and labels.flat[0] < owner.start + owner.size:
                self.roles.setdefault(number, role)

    def count(self, constant: int, sizes: Sequence[NDArray[np.int64] | int]) -> None:
        """Record an operator's multiply-adds: the product of ``constant`` and ``sizes``."""
        if self.counting:
            for size in sizes:
                constant *= size if isinstance(size, int) else 1
            self.terms.append(MacsTerm(constant, tuple(s for s in sizes if not isinstance(s, int))))

    def freeze_all_but_one(self, dimensions: Sequence[Labels]) -> int:
        """Of several dimensions that become one only one may shrink: preferably one that was chosen to.

        Next best is one that a layer makes.

        Returns:
            The position of that one.
        """
        roots = self.roots()
        layers = [
            np.arange(owner.start, owner.start + owner.size)
            for number, owner in enumerate(self.owners)
            if self.roles.get(number) in ("output", "input")
        ]
        made = np.zeros(self._num_labels, dtype=bool)
        made[roots[_joined(layers)]] = True
        made[FROZEN] = False
        shares = [-1.0 if some is None else float(made[roots[some]].mean()) for some in dimensions]
        sizes = [0 if some is None else len(some) for some in dimensions]
        chosen = np.zeros(self._num_labels, dtype=bool)
        chosen[roots[_joined(site.kept for key, site in self.sites.items() if key in self._parts)]] = True
        chosen[FROZEN] = False
        wanted = [some is not None and bool(chosen[roots[some]].all()) for some in dimensions]
        kept = max(range(len(shares)), key=lambda place: (wanted[place], shares[place], sizes[place], place))
        others = [some for position, some in enumerate(dimensions) if position != kept]
        self.freeze(*others, reason="merged with another dimension that may shrink")
        return kept

    # -- what follows from them -------------------------------------------------------------------

    def roots(self) -> NDArray[np.int64]:
        """``(labels,)`` smallest tied label of each label; 0 where it must stay."""
        frozen = _joined(some for some, _ in self._frozen)
        self._left, self._right = [_joined(self._left)], [_joined(self._right)]
        left = np.concatenate([self._left[0], frozen])
        right = np.concatenate([self._right[0], np.full(len(frozen), FROZEN)])
        return components(self._num_labels, left, right)

    def final_roots(self) -> NDArray[np.int64]:
        """As :meth:`roots`, with everything frozen that no operator read."""
        for owner in self.owners:
            if owner.tensor not in self._read:
                self.freeze_tensor(owner.tensor, "not read by the forward pass")
        return self.roots()

    def causes(self) -> Callable[[int], Cause | None]:
        """Tells why a label must stay: the first statement that froze it or something tied to it."""
        alone = components(self._num_labels, _joined(self._left), _joined(self._right))
        first: dict[int, Cause] = {}
        for some, cause in self._frozen:
            for root in np.unique(alone[some]).tolist():
                first.setdefault(root, cause)
        return lambda label: first.get(int(alone[label]))

    def unwise_splits(self) -> Iterator[tuple[SiteKey, str]]:
        """Splits of whose kept part some was ``frozen`` as it is, or which is ``multiplied`` in batches.

        Another part may shrink in its place: attention loses heads rather than the width of every head.
        """
        frozen = np.zeros(self._num_labels, dtype=bool)
        frozen[_joined(some for some, _ in self._frozen)] = True
        exactly = {some.tobytes() for some in self.multiplied}
        kept = {site.kept.tobytes() for site in self.sites.values()}
        # Queries, keys and values may be cut out of one part.
        partly = np.zeros(self._num_labels, dtype=bool)
        partly[_joined(some for some in self.multiplied if some.tobytes() not in kept)] = True
        partly[FROZEN] = False
        for key, site in self.sites.items():
            if frozen[site.kept].any():
                yield key, "frozen"
            elif site.dim == -1 and (site.kept.tobytes() in exactly or partly[site.kept].any()):
                yield key, "multiplied"

    def unbound(self, roots: NDArray[np.int64]) -> NDArray[np.bool_]:
        """``(labels,)`` true where Python code made a size that met nothing which must stay."""
        unbound: NDArray[np.bool_] = roots != FROZEN
        unbound[np.setdiff1d(np.arange(self._num_labels), _joined(self._made))] = False
        return unbound

    def inexact_roots(self, roots: NDArray[np.int64]) -> set[int]:
        """Roots of the slots whose removal changes other values."""
        return set(roots[_joined(self._inexact)].tolist())

    def deviating_roots(self, roots: NDArray[np.int64]) -> set[int]:
        """Roots of the slots of which two must stay."""
        return set(roots[_joined(self._deviating)].tolist())

    def removed_labels(self, removed: Mapping[str, Mapping[int, NDArray[np.int64]]]) -> NDArray[np.bool_]:
        """``(labels,)`` whether each label goes, from the indices that go of each tensor's dimensions."""
        goes = np.zeros(self._num_labels, dtype=bool)
        for owner in self.owners:
            index = removed.get(owner.tensor, {}).get(owner.dim)
            if index is not None:
                goes[owner.start + index] = True
        return goes


def _joined(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
