"""The training loop: every network of a run is trained by it, dense, fine-tuned or from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import nn, optim

from evaluators.scoring import call

if TYPE_CHECKING:
    from evaluators.precision import Precision
    from evaluators.task import Batch, Loader, Recipe, Task

#: Called after each step with the steps done and the steps in all.
OnStep = Callable[[int, int], None]


def train(
    model: nn.Module,
    task: Task,
    *,
    epochs: float,
    lr: float,
    seed: int,
    precision: Precision,
    on_step: OnStep | None = None,
) -> None:
    """Train in place on ``task.train``; the network is left in eval mode on the precision's device.

    Args:
        model: The network.
        task: Data, loss and recipe.
        epochs: Passes over the data; a fraction is rounded to whole steps, at least one.
        lr: Peak learning rate, reached after the recipe's warm-up; a cosine takes it to zero.
        seed: Decides order, augmentation and dropout; the caller's random state is left alone.
        precision: Device, autocast and layout.
        on_step: Progress.

    Raises:
        FloatingPointError: If the loss is not finite; names the step.
    """
    steps = max(1, round(epochs * len(task.train)))
    precision.place(model).train()
    optimizer = make_optimizer(model, task.recipe, lr)
    schedule = optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate(step, steps, task.recipe.warmup))
    with torch.random.fork_rng(devices=precision.rng_devices):
        torch.manual_seed(seed)
        for step, (inputs, targets) in zip(range(steps), _endless(task.train), strict=False):
            with precision.context():
                outputs = call(model, precision.place_inputs(inputs))
                loss = task.compute_loss(outputs, precision.place_inputs(targets))
            if not math.isfinite(loss.item()):
                raise FloatingPointError(f"The loss is {loss.item()} in step {step + 1} of {steps}.")
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            if on_step is not None:
                on_step(step + 1, steps)
    model.eval()


def rate(step: int, steps: int, warmup: float) -> float:
    """Share of the peak learning rate in ``step`` (from 0): linear up, then a cosine down to zero."""
    ramp = round(warmup * steps)
    if step < ramp:
        return (step + 1) / (ramp + 1)
    return 0.5 * (1 + math.cos(math.pi * (step - ramp) / max(1, steps - ramp)))


def make_optimizer(model: nn.Module, recipe: Recipe, lr: float) -> optim.Optimizer:
    """SGD with Nesterov momentum 0.9, or AdamW; vectors and scalars (norms, biases) are not decayed.

    Raises:
        ValueError: If the recipe names another optimizer.
    """
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
    if recipe.optimizer == "sgd":
        return optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    if recipe.optimizer == "adamw":
        return optim.AdamW(groups, lr=lr)
    raise ValueError(f"Recipe: `optimizer` must be sgd or adamw, got {recipe.optimizer!r}.")


def _endless(loader: Loader) -> Iterator[Batch]:
    """Epoch after epoch.

    Raises:
        ValueError: If an epoch has no batch.
    """
    while True:
        empty = True
        for batch in loader:
            empty = False
            yield batch
        if empty:
            raise ValueError("The training split has no batch to train on.")
