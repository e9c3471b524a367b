"""Scores of a network: the mean of the task's per-sample metric over a split."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch

from spaces.trace import as_call

if TYPE_CHECKING:
    from collections.abc import Iterator

    from torch import nn

    from evaluators.precision import Precision
    from evaluators.task import Loader, Task


def call(model: nn.Module, inputs: Any) -> Any:
    """``model`` on a tensor, a tuple of positional or a dict of keyword inputs."""
    args, kwargs = as_call(inputs)
    return model(*args, **kwargs)


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module is in the mode that it was in."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def evaluate(model: nn.Module, task: Task, loader: Loader, precision: Precision) -> float:
    """Mean of ``task.score`` over all samples of ``loader``; higher is better.

    The network is moved to the precision's device and layout; its mode and the caller's random state stay.

    Raises:
        ValueError: If the loader is empty.
        FloatingPointError: If the metric is not finite.
    """
    precision.place(model)
    total = torch.zeros((), dtype=torch.float64, device=precision.device)
    samples = 0
    with eval_mode(model), torch.random.fork_rng(devices=[]), torch.inference_mode(), precision.context():
        for inputs, targets in loader:
            outputs = call(model, precision.place_inputs(inputs))
            values = task.score(outputs, precision.place_inputs(targets))
            total += values.double().sum()
            samples += len(values)
    if not samples:
        raise ValueError(f"Task {task.name!r}: a split without samples can not be scored.")
    if not torch.isfinite(total):
        raise FloatingPointError(f"Task {task.name!r}: `{task.metric}` is {float(total)}.")
    return float(total) / samples
