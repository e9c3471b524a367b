"""The training loop: every network of a run is trained by it, dense, fine-tuned or from scratch."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn, optim

from evaluators.cache import fingerprint
from evaluators.course import Course
from evaluators.epochs import Epochs
from evaluators.scoring import call
from evaluators.shards import ALONE, Shards

if TYPE_CHECKING:
    from evaluators.checkpoint import Checkpoints
    from evaluators.precision import Precision
    from evaluators.task import Recipe, Task

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
    checkpoints: Checkpoints | None = None,
    origin: str = "",
    shards: Shards = ALONE,
) -> float:
    """Train in place on ``task.train``; the network is left in eval mode on the precision's device.

    Args:
        model: The network.
        task: Data, loss and recipe.
        epochs: Passes over the data; a fraction is rounded to whole steps, at least one.
        lr: Peak learning rate, reached after the recipe's warm-up; a cosine takes it to zero.
        seed: Decides order, augmentation and dropout; the caller's random state is left alone.
        precision: Device, autocast and layout.
        on_step: Progress.
        checkpoints: An interrupted training goes on from its last state, and ends as if undisturbed.
        origin: Says where the initial weights come from: a state of other origin or settings is ignored.
        shards: Who takes part, see :class:`evaluators.shards.Shards`.

    Returns:
        Wall clock of earlier attempts up to the state that this one went on from; 0 where there was none.

    Raises:
        FloatingPointError: If the loss is not finite; names the step.
    """
    steps = max(1, round(epochs * len(task.train)))
    precision.place(model).train()
    optimizer = make_optimizer(model, task.recipe, lr)
    key = _key(model, task, precision, origin, steps, lr, seed)
    devices = precision.rng_devices
    with torch.random.fork_rng(devices=devices), shards.joined(Objective(model, task)) as objective:
        torch.manual_seed(seed)
        batches = Epochs(task.train, devices)
        course = Course(key, model, optimizer, batches, checkpoints, shards)
        for step, batch in zip(range(course.resume(), steps), batches, strict=False):
            inputs, targets, weight = shards.part(batch)
            with shards.randomness(seed, step, devices), precision.context():
                loss = weight * objective(precision.place_inputs(inputs), precision.place_inputs(targets))
            if not math.isfinite(value := shards.mean(loss)):
                raise FloatingPointError(f"The loss is {value} in step {step + 1} of {steps}.")
            for group in optimizer.param_groups:
                group["lr"] = lr * rate(step, steps, task.recipe.warmup)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            course.after(step + 1)
            if on_step is not None:
                on_step(step + 1, steps)
    model.eval()
    return course.seconds_before


class Objective(nn.Module):
    """A network and its loss as one module: batches in, loss out."""

    def __init__(self, model: nn.Module, task: Task) -> None:
        super().__init__()
        self.model, self.task = model, task

    def forward(self, inputs: Any, targets: Tensor) -> Tensor:
        """Loss of a batch."""
        return self.task.compute_loss(call(self.model, inputs), targets)


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


def _key(
    model: nn.Module, task: Task, precision: Precision, origin: str, steps: int, lr: float, seed: int
) -> str:
    """Of a training's settings. Neither its weights, which another machine may round otherwise, nor a GPU."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    shapes = {name: list(tensor.shape) for name, tensor in tensors}
    kind = precision.to_dict() | {"device": torch.device(precision.device).type}
    settings = (asdict(task.recipe), len(task.train), steps, lr, seed)
    return fingerprint(origin, task.name, settings, kind, shapes)
