"""Criteria that look at the size of a unit's own weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def bn_scale(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Mean absolute gain :math:`|\gamma|` of the norms behind the unit.

    References:
        Liu et al., Network Slimming, ICCV 2017.
    """
    return context.weights(group, "scale").abs().mean(dim=1)
