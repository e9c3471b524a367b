"""Criteria that look at the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import ScoringContext
    from spaces.groups import ChannelGroup


def taylor(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Squared first-order change of the loss when the unit goes: that of a gate in front of its readers.

    .. math:: \Big( \frac{\partial L}{\partial z_u} \Big)^2 \Big|_{z = 1}
              = \Big( \sum_{s \in \text{input slots of } u} w_s \frac{\partial L}{\partial w_s} \Big)^2

    A gate :math:`z_u` that multiplies what the layers behind read of unit ``u`` acts as a factor on their
    input columns, so its derivative needs no hooks. It is the gate of the paper moved past the activation:
    equal for ReLU, and right where several layers write or read the unit.

    References:
        Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019, equations 3 and 8.
    """
    products = context.weights(group, "input") * context.weight_gradients(group, "input")
    return products.sum(dim=1).square()
