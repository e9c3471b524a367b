"""Criteria that look at what the layers behind a unit read of it, on calibration data."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from evaluators.criteria.context import NotApplicable

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import ScoringContext
    from spaces.groups import ChannelGroup


def activation_mean(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Mean absolute activation :math:`\mathrm{E}|a_u|`.

    References:
        Molchanov et al., Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017.
    """
    return context.units(group).absolute.double()


def apoz(context: ScoringContext, group: ChannelGroup) -> Tensor:
    """Share of activations that are not zero, in [0, 1]: one minus the Average Percentage of Zeros.

    It is 1 for all units that no rectifier follows.

    References:
        Hu et al., Network Trimming, 2016.
    """
    return 1 - context.units(group).zeros.double()


def entropy(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Entropy in nats, :math:`-\sum_b p_b \log p_b`, of the unit's mean activation over the samples.

    A unit whose mean activation is nearly the same for every input tells little.

    References:
        Luo & Wu, An Entropy-based Pruning Method for CNN Compression, 2017.
    """
    counts = context.units(group).histogram.double()
    shares = counts / counts.sum(dim=1, keepdim=True)
    # Not `-xlogy(...)`: a single full bin would score -0.0.
    bins: Tensor = torch.special.entr(shares)
    return bins.sum(dim=1)


def hrank(context: ScoringContext, group: ChannelGroup) -> Tensor:
    """Mean rank of the unit's feature maps.

    Raises:
        NotApplicable: If what is read of the unit are no maps.

    References:
        Lin et al., HRank: Filter Pruning using High-Rank Feature Map, CVPR 2020.
    """
    rank = context.units(group).rank
    if rank is None:
        raise NotApplicable(f"{group.name!r} has no feature maps.")
    return rank.double()
