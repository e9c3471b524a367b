"""What single questions to the dense network tell: curvature, measured removals."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from evaluators.scoring import call, eval_mode
from evaluators.statistics.curvature import curvature

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from evaluators.precision import Precision
    from evaluators.task import Batch, Task
    from spaces import Space
    from spaces.groups import ChannelGroup

__all__ = ["curvature", "removals"]


def removals(
    task: Task,
    space: Space,
    names: Collection[str] | None,
    batches: Sequence[Batch],
    precision: Precision,
    seed: int,
    num_units: int = 64,
) -> dict[str, Tensor]:
    """How much the mean loss rises when a unit alone is removed, measured for a sample of units.

    A unit is removed by zeroing what the layers behind read of it; nothing is recalibrated or re-fitted.
    Units are spread evenly over the groups (over some of them, if there are more groups than units).

    Args:
        task: ``task.model`` keeps its weights, bit by bit, and its modes; it is moved to the device.
        space: Its groups; those that no weight reads are passed over.
        names: Groups to sample from; all when ``None``.
        batches: A few, on the precision's device; each unit costs one forward pass over all of them.
        precision: Device and layout; losses are computed in fp32.
        seed: Of the sample.
        num_units: Units to measure.

    Returns:
        ``(n, 2)`` float64 by group name: a unit, and the rise of the loss.
    """
    model = replace(precision, dtype="float32").place(task.model)
    parameters = dict(model.named_parameters())
    groups = [
        group
        for group in space.groups
        if (names is None or group.name in names) and _readers(group, parameters)
    ]
    found: dict[str, Tensor] = {}
    with eval_mode(model), torch.no_grad():
        dense = _mean_loss(task, model, batches)
        for group, units in _spread(groups, num_units, seed):
            rises = []
            for unit in units:
                with _without(group, unit, parameters):
                    rises.append((unit, _mean_loss(task, model, batches) - dense))
            found[group.name] = torch.tensor(rises, dtype=torch.float64)
    return found


def _readers(group: ChannelGroup, parameters: Mapping[str, Tensor]) -> list[tuple[str, int, Tensor]]:
    """``(parameter, dim, (width, n) slots)`` of the weights that read the group."""
    return [
        (member.tensor, member.dim, torch.from_numpy(np.ascontiguousarray(member.slots)))
        for member in group.members
        if member.role == "input" and member.tensor in parameters
    ]


def _spread(
    groups: Sequence[ChannelGroup], num_units: int, seed: int
) -> Iterator[tuple[ChannelGroup, list[int]]]:
    """As even as widths allow: one unit of each group in turn, until there are enough."""
    generator = torch.Generator().manual_seed(seed)
    turns = torch.randperm(len(groups), generator=generator).tolist()
    shares = [0] * len(groups)
    left = min(num_units, sum(group.width for group in groups))
    while left:
        for turn in turns:
            if left and shares[turn] < groups[turn].width:
                shares[turn] += 1
                left -= 1
    for group, share in zip(groups, shares, strict=True):
        units = torch.randperm(group.width, generator=generator)[:share]
        if share:
            yield group, units.sort().values.tolist()


def _mean_loss(task: Task, model: nn.Module, batches: Iterable[Batch]) -> float:
    total, samples = 0.0, 0
    for inputs, targets in batches:
        total += float(task.compute_loss(call(model, inputs), targets)) * len(targets)
        samples += len(targets)
    return total / max(1, samples)


@contextmanager
def _without(group: ChannelGroup, unit: int, parameters: Mapping[str, Tensor]) -> Iterator[None]:
    """The unit's input columns are zero inside, and afterwards what they were."""
    taken = []
    try:
        for name, dim, slots in _readers(group, parameters):
            tensor, index = parameters[name].data, slots[unit].to(parameters[name].device)
            taken.append((tensor, dim, index, tensor.index_select(dim, index)))
            tensor.index_fill_(dim, index, 0)
        yield
    finally:
        for tensor, dim, index, values in reversed(taken):
            tensor.index_copy_(dim, index, values)
