"""Training a cut architecture from scratch: fresh weights, and how long to train."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, runtime_checkable

import torch

if TYPE_CHECKING:
    from torch import nn

    from evaluators.task import Task


@runtime_checkable
class _Resettable(Protocol):
    def reset_parameters(self) -> None: ...


def fresh(model: nn.Module, task: Task, seed: int) -> None:
    """Draw new weights in place; nothing of the old parameters is left. Buffers outside norms stay.

    Every floating parameter is first filled with NaN, so that one which nothing draws anew is found. Then
    every module's ``reset_parameters`` runs (it also resets BatchNorm statistics), then ``task.initialise``.

    Args:
        model: On the CPU; only its shapes are used.
        task: Its ``initialise`` has the last word.
        seed: Decides the weights; the caller's random state is left alone.

    Raises:
        ValueError: If a parameter was not drawn anew.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.default_generator.manual_seed(seed)
        for parameter in model.parameters():
            if parameter.is_floating_point():
                parameter.fill_(torch.nan)
        for module in reversed(list(model.modules())):  # what a parent sets in its children has the last word
            if isinstance(module, _Resettable):
                module.reset_parameters()
        if task.initialise is not None:
            task.initialise(model)
    left = [name for name, parameter in model.named_parameters() if parameter.isnan().any()]
    if left:
        raise ValueError(
            f"Task {task.name!r}: no `reset_parameters` draws {', '.join(left)} anew; give `Task.initialise`."
        )


def scratch_b_epochs(epochs: float, *, dense_macs: int, pruned_macs: int, cap: float = 2.0) -> float:
    """Epochs that cost as many training MACs as ``epochs`` of the dense network, at most ``cap`` times more.

    References:
        Liu et al., Rethinking the Value of Network Pruning, ICLR 2019, arXiv 1810.05270: Scratch-B.
    """
    return epochs * min(cap, dense_macs / pruned_macs)
