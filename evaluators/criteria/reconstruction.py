"""Criteria that look at what the layers behind a unit lose with it: readings of their second moments."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import torch
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import lars_path_gram
from torch import Tensor

from evaluators.criteria.ranking import removal_scores
from evaluators.reconstruct.elimination import own_errors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluators.criteria.context import ScoringContext
    from evaluators.statistics.records import Consumer
    from spaces.groups import ChannelGroup


def thinet(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Greedily grow the removed set :math:`R` whose contribution to the readers has the least energy.

    .. math:: E(R) = \sum_{\text{readers}} \mathrm{tr}\, W_R^\top G_{RR} W_R

    Nothing compensates. A unit's score is the growth of the energy at which it goes.

    References:
        Luo et al., ThiNet, ICCV 2017.
    """
    gram = contribution_gram(context.consumers(group))
    growth = gram.diagonal().clone()
    gone = torch.zeros(len(gram), dtype=torch.bool)
    order, increases = [], []
    for _ in range(len(gram)):
        unit = int(growth.masked_fill(gone, torch.inf).argmin())
        order.append(unit)
        increases.append(growth[unit].clone())
        gone[unit] = True
        growth += 2 * gram[unit]
    return removal_scores(torch.tensor(order), torch.stack(increases))


def lasso(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""When the unit enters the path of a LASSO that rebuilds the readers' outputs from scaled units.

    .. math:: \min_\beta \tfrac{1}{2} \sum_{\text{readers}}
              \Big\lVert Y - \sum_u \beta_u X_u W_u \Big\rVert^2 + \lambda \lVert \beta \rVert_1

    A unit's score is the largest :math:`\lambda` at which its coefficient is not zero: the residual's
    correlation with its contribution at that point, which has the unit of an error. Units that never enter
    go first.

    References:
        He, Zhang, Sun, Channel Pruning for Accelerating Very Deep Neural Networks, ICCV 2017;
        Efron et al., Least Angle Regression, 2004.
    """
    gram = contribution_gram(context.consumers(group))
    scale = float(gram.diagonal().max())
    if scale <= 0:
        return removal_scores(torch.arange(group.width), torch.zeros(group.width, dtype=torch.float64))
    gram = gram / scale  # the solver's tolerances are absolute
    target = gram.sum(dim=1)
    # Copies of a unit would make the solver drop one and lose count of the others (scikit-learn 1.9).
    ridged = gram + 1e-10 * torch.eye(group.width, dtype=torch.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        steps, _, path = lars_path_gram(
            target.numpy(), ridged.numpy(), n_samples=1, max_iter=8 * group.width, method="lasso"
        )
    coefficients = torch.from_numpy(path)
    inside = coefficients != 0
    entered = inside.any(dim=1)
    # Column i holds the coefficients at lambda i; a unit that enters there is not zero from the next one on.
    entry = torch.from_numpy(steps)[(inside.int().argmax(dim=1) - 1).clamp_min(0)]
    left = (target - gram @ coefficients[:, -1]).abs().clamp_max(float(steps[-1]))
    penalties = torch.where(entered, entry, left) * scale
    order = penalties.argsort(stable=True)
    return removal_scores(order, penalties[order])


def obs(context: ScoringContext, group: ChannelGroup) -> Tensor:
    """Backward elimination with all remaining weights fitted anew after every removal.

    A unit's score is the growth of the readers' error at which it goes.

    References:
        Hassibi & Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NeurIPS 1992.
    """
    elimination = context.elimination(group)
    return removal_scores(elimination.order, elimination.increases)


def contribution_gram(consumers: Sequence[Consumer]) -> Tensor:
    r"""Inner products of what the units add to the readers' outputs: ``(width, width)`` float64.

    .. math:: K_{uv} = \sum_{\text{readers}} \sum_o \mathrm{importance}_o \, W_{uo}^\top G_{uv} W_{vo}

    A reader with ``blocks`` instead of a ``gram`` adds to the diagonal only.
    """
    width = len(consumers[0].columns)
    total = torch.zeros(width, width, dtype=torch.float64)
    for consumer in consumers:
        moments, columns = consumer.moments, consumer.columns
        if moments.gram is None:
            total += torch.diag(own_errors(consumer))
            continue
        index, block = columns.flatten(), columns.shape[1]
        for gram, weights, importance in zip(moments.gram, moments.weights, moments.importance, strict=True):
            rows = weights[index] * importance.sqrt()
            products = (rows @ rows.T).mul_(gram[index[:, None], index])
            total += products.reshape(width, block, width, block).sum(dim=(1, 3))
    return total
