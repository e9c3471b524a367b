r"""Backward elimination: which units can go, one after the other, at the least error of the layers behind.

For a layer :math:`Y = X W` with second moments :math:`G = X'X / n`, the columns :math:`u` of one unit can be
taken out of the fit at the price of

.. math:: \Delta_u = \mathrm{tr}\, W_u^\top \big( [G^{-1}]_{uu} \big)^{-1} W_u

if all remaining weights are fitted anew, bias and other groups' columns among them. Afterwards

.. math:: G^{-1} \leftarrow G^{-1} - C_u C_u^\top, \qquad W \leftarrow W - C_u T_u,
          \qquad L_u L_u^\top = [G^{-1}]_{uu}, \quad C_u = [G^{-1}]_{:u} L_u^{-\top},
          \quad T_u = L_u^{-1} W_u,

so elimination is a pivoted block Cholesky factorisation of the inverse. As in LAPACK's, the columns of
:math:`C` are collected in a panel and the large matrices are updated once per panel; only the small blocks
on the diagonal, which the next choice needs, are kept up to date at every step.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluators.statistics.records import Consumer

#: Columns in a panel, about: wide enough for matrix products, small enough to stay in cache.
PANEL_COLUMNS = 256


@dataclass(frozen=True, slots=True, eq=False)
class Elimination:
    """The order in which units go, and what is lost.

    Attributes:
        order: ``(width,)`` int64 units, first removed first; the last one is never removed by a search.
        errors: ``(width + 1,)`` float64; entry ``k`` is the error of the re-fitted layers when the best
            ``k`` units are kept: 0 at full width, never rising with ``k``.
    """

    order: Tensor
    errors: Tensor

    @property
    def increases(self) -> Tensor:
        """``(width,)`` float64: by how much the error grows when each unit of :attr:`order` goes."""
        return (self.errors[:-1] - self.errors[1:]).flip(0)


def backward_elimination(consumers: Sequence[Consumer], ridge: float = 1e-6) -> Elimination:
    """Remove the unit whose loss raises the summed error of all readers least, re-fit, and so on.

    The ridge pulls towards the inherited weights and not towards zero, so nothing is lost at full width.
    Errors are those of the ridge's fits without its penalty. A layer with ``blocks`` instead of a ``gram``
    adds :func:`own_errors` to every choice: as if its inputs were uncorrelated and nothing compensated.

    Args:
        consumers: All readers of one group, with moments of finite numbers.
        ridge: Times the mean diagonal of the second moments, added to it except for the constant column;
            raised tenfold as often as it takes to make a singular matrix solvable.

    Raises:
        ValueError: If a layer's moments are not finite.

    References:
        Hassibi & Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NeurIPS 1992;
        for blocks: Kurtic et al., The Optimal BERT Surgeon, EMNLP 2022.
    """
    assert consumers
    for moments in (consumer.moments for consumer in consumers):
        second = moments.blocks if moments.gram is None else moments.gram
        assert second is not None
        if not (second.isfinite().all() and moments.weights.isfinite().all()):
            raise ValueError(f"Layer {moments.layer!r}: its second moments are not finite.")
    while True:
        try:
            return _eliminate(consumers, ridge)
        except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
            ridge = 10 * max(ridge, 1e-12)
            assert ridge < 1e6, "no ridge makes finite second moments solvable"


def own_errors(consumer: Consumer) -> Tensor:
    r"""What the reader loses with each unit alone when nothing compensates: ``(width,)`` float64.

    .. math:: \mathrm{tr}\, W_u^\top G_{uu} W_u

    Correlations between the channels of one unit count only where the whole ``gram`` is known.
    """
    moments, columns = consumer.moments, consumer.columns
    weights = moments.weights * moments.importance.sqrt()[:, None, :]
    if moments.gram is None:
        assert moments.blocks is not None
        channels = columns.reshape(len(columns), -1, moments.taps)[:, :, 0] // moments.taps
        columns = columns.reshape(-1, moments.taps)
        second = moments.blocks[:, channels.flatten()]
    else:
        second = moments.gram[:, columns[:, :, None], columns[:, None, :]]
    rows = weights[:, columns]
    return ((rows @ rows.mT) * second).sum(dim=(0, 2, 3)).reshape(len(consumer.columns), -1).sum(dim=1)


def _eliminate(consumers: Sequence[Consumer], ridge: float) -> Elimination:
    width = len(consumers[0].columns)
    fits = [_Fit(consumer, ridge) for consumer in consumers if consumer.moments.gram is not None]
    separate = torch.zeros(width, dtype=torch.float64)
    for consumer in consumers:
        if consumer.moments.gram is None:
            separate += own_errors(consumer)
    panel = max(1, PANEL_COLUMNS // max((fit.block for fit in fits), default=1))

    alive = torch.arange(width)
    order, errors = [], [torch.zeros(1, dtype=torch.float64)]
    while len(alive):
        gone = torch.zeros(len(alive), dtype=torch.bool)
        removed, extra = [], []
        for fit in fits:
            fit.open(min(panel, len(alive)))
        for _ in range(min(panel, len(alive))):
            costs = separate[alive].clone()
            for fit in fits:
                costs += fit.costs()
            choice = int(costs.masked_fill(gone, torch.inf).argmin())
            for fit in fits:
                fit.remove(choice)
            gone[choice] = True
            removed.append(choice)
            extra.append(separate[alive[choice]])
        grown = torch.stack(extra).cumsum(0)
        for fit in fits:
            grown += fit.close()
        errors.append(errors[-1][-1] + grown)
        order.append(alive[removed])
        alive = alive[~gone]
    rising = torch.cat(errors).clamp_min(0).cummax(0).values
    return Elimination(torch.cat(order), rising.flip(0))


class _Fit:
    """The least-squares fit of one reader while units leave; batched over conv groups.

    Columns are ordered by unit, those of other groups and the constant stay behind them. Between
    :meth:`open` and :meth:`close` removed units keep their places.

    Attributes:
        block: Columns per unit, ``n``.
        inverse: ``(g, a n + rest, a n + rest)`` inverse of the second moments, before the panel.
        weights: ``(g, a n + rest, outputs)`` scaled so that all outputs count alike, before the panel.
        dense: The same rows of the inherited weights.
        penalty: ``(g, a n + rest)`` ridge.
        diagonal: ``(g, a, n, n)`` blocks of the inverse, up to date.
        products: ``(g, a, n, n)`` each unit's ``W_u W_u'``, up to date.
    """

    def __init__(self, consumer: Consumer, ridge: float) -> None:
        moments = consumer.moments
        assert moments.gram is not None
        taken, size = consumer.columns.flatten(), moments.gram.shape[-1]
        stays = torch.ones(size, dtype=torch.bool)
        stays[taken] = False
        columns = torch.cat([taken, torch.nonzero(stays).flatten()])
        scale = moments.gram.diagonal(dim1=1, dim2=2)[:, :-1].mean(dim=1, keepdim=True)
        # The constant is the last column, here as there. Silent inputs need a ridge all the same.
        self.penalty = torch.where(scale > 0, ridge * scale, 1.0).repeat(1, size)
        self.penalty[:, -1] = 0
        self.inverse = moments.gram[:, columns[:, None], columns]
        self.inverse.diagonal(dim1=1, dim2=2).add_(self.penalty)
        self.inverse = torch.cholesky_inverse(torch.linalg.cholesky(self.inverse))
        self.weights = (moments.weights * moments.importance.sqrt()[:, None, :])[:, columns]
        self.dense = self.weights
        self.block = consumer.columns.shape[1]
        self._units = len(consumer.columns)

    def open(self, steps: int) -> None:
        """Start a panel of up to ``steps`` removals."""
        groups, rows, outputs = self.weights.shape
        n, a = self.block, self._units
        self._factors = torch.zeros(groups, rows, steps * n, dtype=torch.float64)
        self._tops = torch.zeros(groups, steps * n, outputs, dtype=torch.float64)
        self._costs: list[Tensor] = []
        self._filled = 0
        self._present = torch.ones(rows, 1, dtype=torch.float64)
        units = self.inverse[:, : a * n, : a * n].reshape(groups, a, n, a, n)
        self.diagonal = units.diagonal(dim1=1, dim2=3).movedim(-1, 1).contiguous()
        rows_of_units = self.weights[:, : a * n].reshape(groups, a, n, outputs)
        self.products = rows_of_units @ rows_of_units.mT

    def costs(self) -> Tensor:
        """``(a,)`` growth of the error if each unit went next; of no meaning for those that are gone."""
        self._roots = torch.linalg.cholesky(self.diagonal)
        shares = torch.cholesky_solve(self.products, self._roots).diagonal(dim1=2, dim2=3)
        return shares.sum(dim=(0, 2)).clamp_min(0)

    def remove(self, unit: int) -> None:
        """Take out ``unit``; :meth:`costs` must have been asked since the last removal."""
        n, done = self.block, self._filled
        here, fresh = slice(unit * n, unit * n + n), slice(done, done + n)
        earlier, tops = self._factors[:, :, :done], self._tops[:, :done]
        column = self.inverse[:, :, here] - earlier @ earlier[:, here].mT
        row = self.weights[:, here] - earlier[:, here] @ tops
        root = self._roots[:, unit]
        factor = torch.linalg.solve_triangular(root, column.mT, upper=False).mT * self._present
        top = torch.linalg.solve_triangular(root, row, upper=False)
        self._factors[:, :, fresh], self._tops[:, fresh] = factor, top
        self._costs.append(top.square().sum())
        self._filled = done + n

        groups, a = self.diagonal.shape[:2]
        reach = (self.weights[:, : a * n] @ top.mT - earlier[:, : a * n] @ (tops @ top.mT)).reshape(
            groups, a, n, n
        )
        factor = factor[:, : a * n].reshape(groups, a, n, n)
        inner = (top @ top.mT)[:, None]
        cross = reach @ factor.mT
        self.diagonal -= factor @ factor.mT
        self.products += factor @ inner @ factor.mT - cross - cross.mT
        self._present[here] = 0
        self.diagonal[:, unit] = torch.eye(n, dtype=torch.float64)
        self.products[:, unit] = 0

    def close(self) -> Tensor:
        """Update the matrices and drop what is gone.

        Returns:
            ``(removals,)`` growth of the squared error since the panel was opened.
        """
        factors, tops = self._factors[:, :, : self._filled], self._tops[:, : self._filled]
        weighted = factors * self.penalty[:, :, None]
        moved = self._per_removal((weighted.mT @ (self.dense - self.weights)) * tops).sum(dim=1).cumsum(0)
        spread = self._per_removal((weighted.mT @ factors) * (tops @ tops.mT))
        spread = self._per_removal(spread.mT[None]).cumsum(0).cumsum(1).diagonal()
        # The ridge's own part of the objective: penalty times the squared distance from the dense weights.
        penalised = 2 * moved + spread
        grown = torch.stack(self._costs).cumsum(0) - penalised

        index = torch.nonzero(self._present.flatten()).flatten()
        factors = factors[:, index]
        self.weights = self.weights[:, index] - factors @ tops
        self.inverse = self.inverse[:, index[:, None], index].baddbmm_(factors, factors.mT, alpha=-1)
        self.dense, self.penalty = self.dense[:, index], self.penalty[:, index]
        self._units -= len(self._costs)
        return grown

    def _per_removal(self, values: Tensor) -> Tensor:
        """``(g, removals n, x) -> (removals, x)``: summed over conv groups and a unit's columns."""
        return values.sum(dim=0).reshape(-1, self.block, values.shape[-1]).sum(dim=1)
