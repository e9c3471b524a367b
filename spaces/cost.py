"""Cost in closed form: a sum of products of tensor sizes, each size linear in the kept widths."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

#: Architectures costed at once; keeps the intermediate products inside the CPU's cache.
_CHUNK = 2048


@dataclass(frozen=True, slots=True, eq=False)
class Cost:
    r"""Multiply-adds or parameters of every architecture of a space.

    .. math:: \mathrm{cost}(k) = \sum_t c_t \prod_{d \in t} (a_d + B_d \cdot k)

    Attributes:
        fixed: ``(sizes,)`` int64, slots of each size that always stay; size 0 is the constant 1.
        per_unit: ``(sizes, groups)`` int64, slots that one unit of each group adds to it.
        factors: ``(terms, order)`` int64, the sizes that each term multiplies, padded with 0.
        constants: ``(terms,)`` int64, everything in a term that no choice changes.
    """

    fixed: NDArray[np.int64]
    per_unit: NDArray[np.int64]
    factors: NDArray[np.int64]
    constants: NDArray[np.int64]

    def __call__(self, widths: NDArray[np.int64]) -> NDArray[np.int64]:
        """Costs of ``(n, groups)`` kept widths: ``(n,)`` int64, exact."""
        costs = np.empty(len(widths), dtype=np.int64)
        # float64 because NumPy multiplies integer matrices without BLAS; sizes are far below 2**53.
        per_unit = self.per_unit.T.astype(np.float64)
        for start in range(0, len(widths), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            sizes = self.fixed + np.rint(widths[chunk] @ per_unit).astype(np.int64)
            products = self.constants * sizes[:, self.factors[:, 0]]
            for column in range(1, self.factors.shape[1]):
                products *= sizes[:, self.factors[:, column]]
            costs[chunk] = products.sum(axis=1)
        return costs


class CostBuilder:
    """Collects terms; equal sizes are stored once."""

    def __init__(self, num_groups: int) -> None:
        self._num_groups = num_groups
        self._sizes: dict[tuple[int, tuple[int, ...]], int] = {(1, (0,) * num_groups): 0}
        self._terms: dict[tuple[int, ...], int] = {}

    def add(self, constant: int, sizes: list[tuple[int, tuple[int, ...]]]) -> None:
        """Add ``constant`` times the product of ``(fixed, per unit of each group)`` sizes."""
        factors = []
        for fixed, per_unit in sizes:
            if any(per_unit):
                factors.append(self._sizes.setdefault((fixed, per_unit), len(self._sizes)))
            else:
                constant *= fixed
        key = tuple(sorted(factors))
        self._terms[key] = self._terms.get(key, 0) + constant

    def build(self) -> Cost:
        """The cost of all terms so far."""
        order = max((len(key) for key in self._terms), default=1) or 1
        factors = [list(key) + [0] * (order - len(key)) for key in self._terms]
        return Cost(
            fixed=np.array([fixed for fixed, _ in self._sizes], dtype=np.int64),
            per_unit=np.array([per_unit for _, per_unit in self._sizes], dtype=np.int64).reshape(
                len(self._sizes), self._num_groups
            ),
            factors=np.array(factors, dtype=np.int64).reshape(len(factors), order),
            constants=np.array(list(self._terms.values()), dtype=np.int64),
        )
