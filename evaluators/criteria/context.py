"""What a criterion is and what it may look at."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.scoring import call, eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from evaluators.precision import Precision
    from evaluators.task import Batch, Task
    from spaces.groups import ChannelGroup, Role


class NotApplicable(ValueError):  # noqa: N818 - a fact about a group, not a fault
    """The criterion needs slots that the group does not have."""


@dataclass(frozen=True, slots=True)
class ScoringContext:
    """The dense network as criteria see it; every criterion reads the same one.

    Attributes:
        parameters: Parameters and buffers by name.
        gradients: Gradient of the mean loss over the calibration batches, by parameter name.
        seed: For criteria that draw.
    """

    parameters: Mapping[str, Tensor]
    gradients: Mapping[str, Tensor]
    seed: int

    def weights(self, group: ChannelGroup, *roles: Role) -> Tensor:
        """All numbers in the slots of the members with one of ``roles``: ``(width, n)`` float64.

        Raises:
            NotApplicable: If the group has no such member.
        """
        return _per_unit(self.parameters, group, roles)

    def weight_gradients(self, group: ChannelGroup, *roles: Role) -> Tensor:
        """The gradients of what :meth:`weights` returns, in the same order: ``(width, n)`` float64.

        Raises:
            NotApplicable: If the group has no such member.
        """
        return _per_unit(self.gradients, group, roles)


class Criterion(Protocol):
    """Scores the units of a group: ``(group.width,)`` float64; **higher means keep**.

    Raises:
        NotApplicable: If the group lacks what the criterion looks at.
    """

    def __call__(self, context: ScoringContext, group: ChannelGroup) -> Tensor:
        """Score every unit of ``group``."""
        ...


def _per_unit(tensors: Mapping[str, Tensor], group: ChannelGroup, roles: tuple[Role, ...]) -> Tensor:
    members = [member for member in group.members if member.role in roles and member.tensor in tensors]
    if not members:
        raise NotApplicable(f"{group.name!r} has no {' or '.join(roles)} slots.")
    rows = []
    for member in members:
        slots = torch.from_numpy(np.ascontiguousarray(member.slots))
        tensor = tensors[member.tensor].detach().movedim(member.dim, 0)
        rows.append(tensor[slots.flatten()].double().reshape(group.width, -1))
    return torch.cat(rows, dim=1)


def gather_gradients(task: Task, batches: Iterable[Batch], precision: Precision) -> dict[str, Tensor]:
    """Gradient of the mean loss over all samples of ``batches``, in one sweep, in eval mode and fp32.

    ``task.model`` keeps its weights, modes and ``requires_grad``; it is moved to the precision's device.

    Returns:
        Floating parameters' gradients by name, on the CPU; zero for a parameter that the loss does not reach.
    """
    model = precision.exact.place(task.model)
    parameters = {name: p for name, p in model.named_parameters() if p.is_floating_point()}
    total = {name: torch.zeros_like(p) for name, p in parameters.items()}
    samples = 0
    with eval_mode(model), _differentiable(parameters.values()):
        for inputs, targets in batches:
            loss = task.compute_loss(call(model, inputs), targets)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    total[name].add_(gradient, alpha=len(targets))
            samples += len(targets)
    return {name: (gradient / samples).cpu() for name, gradient in total.items()}


@contextmanager
def _differentiable(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    required = [(parameter, parameter.requires_grad) for parameter in parameters]
    try:
        for parameter, _ in required:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)
