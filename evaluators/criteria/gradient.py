"""Criteria that look at the loss."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluators.criteria.context import NotApplicable

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import ScoringContext
    from spaces.groups import ChannelGroup


def gradient_norm(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Euclidean norm of the mean loss's gradient by the weights that compute the unit.

    .. math:: \sqrt{ \sum_{s \in \text{output slots of } u} \Big( \frac{\partial L}{\partial w_s} \Big)^2 }

    References:
        The gradient-magnitude criterion of Blalock et al., What is the State of Neural Network Pruning?,
        MLSys 2020, without its factor of the weight.
    """
    return context.weight_gradients(group, "output").square().sum(dim=1).sqrt()


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


def taylor_weights(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Squared first-order changes of the loss when each weight that computes the unit goes by itself.

    .. math:: \sum_{s \in \text{output slots of } u} \Big( w_s \frac{\partial L}{\partial w_s} \Big)^2

    References:
        Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019.
    """
    products = context.weights(group, "output") * context.weight_gradients(group, "output")
    return products.square().sum(dim=1)


def fisher(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Half the gate's Fisher information, :math:`\frac{1}{2} \mathrm{E}_n (\partial L_n / \partial z_u)^2`.

    The gradient of a sample is summed over all places where the unit is read before it is squared.

    References:
        Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018;
        Liu et al., Group Fisher Pruning, ICML 2021.
    """
    return context.units(group).gradient_square.double() / 2


def hessian(context: ScoringContext, group: ChannelGroup) -> Tensor:
    r"""Half the second derivative of the loss by the gate, :math:`\frac{1}{2} \partial^2 L/\partial z_u^2`.

    See :func:`evaluators.statistics.curvature.curvature`. Where the loss is not convex in the outputs it may
    be negative: such a unit goes before one that does nothing.

    Raises:
        NotApplicable: If it was not probed.

    References:
        LeCun et al., Optimal Brain Damage, NeurIPS 1989.
    """
    curvature = context.statistics.curvature.get(group.name)
    if curvature is None:
        raise NotApplicable(f"{group.name!r} has no second derivatives.")
    return curvature.double() / 2
