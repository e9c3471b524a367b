"""Criteria that look at the size of a unit's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evaluators.criteria.context import per_unit

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import ScoringContext
    from spaces.groups import ChannelGroup


def l1(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Sum of the absolute weights that compute the unit, :math:`\sum_s |w_s|`, over all its layers.

    Biases do not count.

    References:
        Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017.
    """
    return context.weights(group, "output").abs().sum(dim=1)


def l2(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Euclidean norm of the weights that compute the unit, :math:`\sqrt{\sum_s w_s^2}`, over all layers.

    Biases do not count.

    References:
        He et al., Soft Filter Pruning, IJCAI 2018.
    """
    return context.weights(group, "output").square().sum(dim=1).sqrt()


def consumer_l2(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Euclidean norm of the weights that read the unit, :math:`\sqrt{\sum_s w_s^2}`, over all readers.

    References:
        The order of FastNAS in NVIDIA's Model Optimizer.
    """
    return context.weights(group, "input").square().sum(dim=1).sqrt()


def fpgm(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""How far the unit's filter is from all others, :math:`\sum_v \lVert w_u - w_v \rVert_2`.

    A filter near the geometric median of its group can be replaced by the others; filters of several
    layers are laid behind one another before distances are taken. Small weights do not matter here.

    References:
        He et al., Filter Pruning via Geometric Median, CVPR 2019.
    """
    filters = context.weights(group, "output")
    # The faster way through products cancels digits, and a filter's distance to itself would not be zero.
    return torch.cdist(filters, filters, compute_mode="donot_use_mm_for_euclid_dist").sum(dim=1)


def lamp(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Share that the unit's weights have among all weights of the layer that are no smaller than they.

    .. math:: \sum_{s} w_s^2 \Big/ \sum_{t:\, |w_t| \ge |w_s|} w_t^2

    The inner sum runs over the whole tensor that ``s`` is in, the outer one over all weights that compute
    the unit. Unlike a norm it is comparable between layers as it stands, and large weights count for more.

    References:
        Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021.
    """
    shares = {
        member.tensor: _share_of_survivors(context.parameters[member.tensor].detach())
        for member in group.members
        if member.role == "output" and member.tensor in context.parameters
    }
    return per_unit(shares, group, ("output",)).sum(dim=1)


def bn_scale(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Mean absolute gain :math:`|\gamma|` of the norms behind the unit.

    References:
        Liu et al., Network Slimming, ICCV 2017.
    """
    return context.weights(group, "scale").abs().mean(dim=1)


def _share_of_survivors(weights: Tensor) -> Tensor:
    """Of each weight; equal weights share a denominator, and zeros have no share."""
    squares = weights.double().square().flatten()
    rising = squares.sort().values
    at_least = rising.flip(0).cumsum(0).flip(0)
    denominators = at_least[torch.searchsorted(rising, squares).clamp_max(len(rising) - 1)]
    return torch.where(squares > 0, squares / denominators, 0.0).reshape(weights.shape)
