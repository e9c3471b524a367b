"""Slot labels: which indices of which tensors must go together.

Every index of every dimension of every parameter and buffer is a *slot* with an integer label. While
the model runs, operator rules (:mod:`spaces.rules`) hand labels from tensor to tensor and record which
labels are tied; connected components of those ties are what can only be removed as a whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.weak import WeakIdKeyDictionary

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

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
    """Labels of all tensors of one trace, and the ties between them."""

    def __init__(self) -> None:
        self.owners: list[Owner] = []
        self.roles: dict[int, Role] = {}
        self.terms: list[MacsTerm] = []
        self.warnings: dict[str, None] = {}
        self.counting = True
        self.scalars: set[str] = set()
        self._num_labels = 1
        self._starts: list[int] = []
        self._read: set[str] = set()
        self._left: list[NDArray[np.int64]] = []
        self._right: list[NDArray[np.int64]] = []
        self._inexact: list[NDArray[np.int64]] = []
        self._known: dict[str, TensorLabels] = {}
        self._labels: WeakIdKeyDictionary = WeakIdKeyDictionary()
        self._names: WeakIdKeyDictionary = WeakIdKeyDictionary()

    # -- tensors ----------------------------------------------------------------------------------

    def register(self, name: str, tensor: Tensor, *, is_parameter: bool) -> None:
        """Give every slot of a parameter or buffer its label; a second trace finds the same ones."""
        if name not in self._known:
            labels = []
            for dim, size in enumerate(tensor.shape):
                labels.append(np.arange(self._num_labels, self._num_labels + size))
                self.owners.append(Owner(name, dim, size, self._num_labels, is_parameter))
                self._starts.append(self._num_labels)
                self._num_labels += size
            self._known[name] = tuple(labels)
            if is_parameter and tensor.dim() == 0:
                self.scalars.add(name)
        self._labels[tensor] = self._known[name]
        self._names[tensor] = name

    def of(self, tensor: Tensor) -> TensorLabels:
        """Labels of each dimension of a tensor."""
        if tensor in self._names:
            self._read.add(self._names[tensor])
        labels: TensorLabels = self._labels[tensor] if tensor in self._labels else (None,) * tensor.dim()
        return labels

    def put(self, tensor: Tensor, labels: TensorLabels) -> None:
        """Set the labels of an operator's output."""
        assert len(labels) == tensor.dim()
        self._labels[tensor] = labels

    # -- facts that rules state -------------------------------------------------------------------

    def tie(self, left: Labels, right: Labels) -> None:
        """Corresponding slots go together; a dimension without labels freezes its partner."""
        if left is None or right is None:
            self.freeze(left, right)
        else:
            left, right = np.broadcast_arrays(left, right)
            self._left.append(left.ravel())
            self._right.append(right.ravel())

    def freeze(self, *labels: Labels) -> None:
        """These slots must stay."""
        for some in labels:
            if some is not None:
                self._left.append(some.ravel())
                self._right.append(np.zeros(some.size, dtype=np.int64))

    def mark_inexact(self, labels: Labels) -> None:
        """Removing these slots changes the values of the others, as a norm over channels does."""
        if labels is not None:
            self._inexact.append(labels.ravel())

    def give_role(self, labels: Labels, role: Role) -> None:
        """Say what a parameter's slots do; the first word counts: activations carry these labels too."""
        if labels is not None and labels.size and labels.flat[0] != FROZEN:
            owner = int(np.searchsorted(self._starts, labels.flat[0], side="right")) - 1
            self.roles.setdefault(owner, role)

    def count(self, constant: int, sizes: Sequence[NDArray[np.int64] | int]) -> None:
        """Record an operator's multiply-adds: the product of ``constant`` and ``sizes``."""
        if self.counting:
            for size in sizes:
                constant *= size if isinstance(size, int) else 1
            self.terms.append(MacsTerm(constant, tuple(s for s in sizes if not isinstance(s, int))))

    # -- what follows from them -------------------------------------------------------------------

    def roots(self) -> NDArray[np.int64]:
        """``(labels,)`` smallest tied label of each label; 0 where it must stay."""
        return components(self._num_labels, *self._ties())

    def final_roots(self) -> NDArray[np.int64]:
        """As :meth:`roots`, with everything frozen that no operator read."""
        for owner in self.owners:
            if owner.tensor not in self._read:
                self.freeze(np.arange(owner.start, owner.start + owner.size))
        return self.roots()

    def inexact_roots(self, roots: NDArray[np.int64]) -> set[int]:
        """Roots of the slots whose removal changes other values."""
        return set(roots[_joined(self._inexact)].tolist())

    def _ties(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        self._left, self._right = [_joined(self._left)], [_joined(self._right)]
        return self._left[0], self._right[0]


def _joined(arrays: Iterable[NDArray[np.int64]]) -> NDArray[np.int64]:
    return np.concatenate([np.empty(0, dtype=np.int64), *arrays])
