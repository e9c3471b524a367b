"""Ridge regression from moments: the smallest problem that every re-fit comes down to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Ridges that are tried, as shares of the mean diagonal of the moments, mildest first.
RIDGES = (1e-4, 1e-2, 1e-1)


def ridge_solution(gram: Tensor, cross: Tensor, ridge: float, *, constant: bool) -> Tensor | None:
    r"""Minimise :math:`\|X W - Y\|^2 / n + \lambda \|W\|^2` with :math:`\lambda` relative to :math:`G`.

    Args:
        gram: ``(b, d, d)`` float64, :math:`X'X / n`.
        cross: ``(b, d, outputs)`` float64, :math:`X'Y / n`.
        ridge: Share of the mean diagonal of each ``gram`` that is added to its diagonal.
        constant: Whether the last column of ``X`` is the constant one, which carries no ridge.

    Returns:
        ``(b, d, outputs)``; ``None`` where the problem is singular or not finite.
    """
    columns = gram.shape[-1] - constant
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    added = torch.zeros_like(diagonal)
    added[:, :columns] = ridge * diagonal[:, :columns].mean(1, keepdim=True)
    # A column that is always zero gets the weight zero instead of making the problem singular.
    added[diagonal <= 0] = 1.0
    factor, failed = torch.linalg.cholesky_ex(gram + torch.diag_embed(added))
    if failed.any() or not gram.isfinite().all():
        return None
    solution = torch.cholesky_solve(cross, factor)
    return solution if solution.isfinite().all() else None


def squared_error(gram: Tensor, cross: Tensor, energy: Tensor, weights: Tensor) -> Tensor:
    r"""Mean squared error of each output, :math:`\mathrm{diag}(Y'Y - 2 W'X'Y + W'GW) / n`.

    Args:
        gram: ``(b, d, d)``.
        cross: ``(b, d, outputs)``.
        energy: ``(b, outputs)`` mean square of the targets.
        weights: ``(b, d, outputs)``.

    Returns:
        ``(b, outputs)``, not below zero.
    """
    return (energy - 2 * (weights * cross).sum(1) + (weights * (gram @ weights)).sum(1)).clamp_min(0)


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """A fit and what it is worth.

    Attributes:
        weights: ``(b, d, outputs)``.
        errors: ``(b, outputs)`` mean squared errors on the held-out positions.
        ridge: The ridge that did best there.
    """

    weights: Tensor
    errors: Tensor
    ridge: float


def best_solution(
    fit: tuple[Tensor, Tensor],
    held: tuple[Tensor, Tensor, Tensor],
    importance: Tensor,
    *,
    constant: bool,
    ridges: Sequence[float] = RIDGES,
) -> Solution | None:
    """The solution whose ridge does best on held-out positions.

    Ridges are tried from the mildest on, for as long as a stronger one does better.

    Args:
        fit: ``gram`` and ``cross`` of the positions to fit on.
        held: ``gram``, ``cross`` and ``energy`` of the held-out ones.
        importance: ``(b, outputs)`` weights of the outputs' errors.
        constant: See :func:`ridge_solution`.
        ridges: Ascending.

    Returns:
        ``None`` when every ridge left the problem singular or not finite.
    """
    best: Solution | None = None
    least = torch.inf
    for ridge in ridges:
        weights = ridge_solution(*fit, ridge, constant=constant)
        if weights is None:
            continue
        errors = squared_error(*held, weights)
        total = float((errors * importance).sum())
        if not total < least:
            break
        best, least = Solution(weights, errors, ridge), total
    return best
