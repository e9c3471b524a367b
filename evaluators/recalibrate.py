"""BatchNorm statistics of a cut network, estimated anew: most of what a cut breaks is mended by this."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from evaluators.scoring import call, eval_mode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evaluators.precision import Precision
    from evaluators.task import Batch


def recalibrate(model: nn.Module, batches: Iterable[Batch], precision: Precision) -> None:
    """Set every BatchNorm's statistics to the mean and population variance over all batches, in place.

    On the way each batch is normalised by its own statistics, as in training; everything else (dropout)
    is in eval mode. The statistics of a layer that no batch reaches stay as they are, and so does a network
    without BatchNorm. Modes and momenta are restored.

    Args:
        model: The network, moved to the precision's device.
        batches: Calibration batches, on that device.
        precision: Autocast and layout.

    References:
        Li et al., EagleEye, ECCV 2020: adaptive batch normalisation.
    """
    layers = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]
    if not layers:
        return
    precision.place(model)
    with ExitStack() as stack:
        stack.enter_context(eval_mode(model))
        for layer in layers:
            stack.enter_context(_pooled_statistics(layer))
        with torch.inference_mode(), precision.context():
            for inputs, _ in batches:
                call(model, inputs)


@contextmanager
def _pooled_statistics(layer: _BatchNorm) -> Iterator[None]:
    """Pool the statistics of all calls inside; written to the layer on leaving."""
    mean, variance = layer.running_mean, layer.running_var
    assert mean is not None
    assert variance is not None
    momentum, before = layer.momentum, (mean.clone(), variance.clone())
    count = 0
    sums = torch.zeros(2, len(mean), dtype=torch.float64, device=mean.device)

    def add(_: nn.Module, inputs: tuple[Tensor, ...], __: Any) -> None:
        nonlocal count
        samples = inputs[0].numel() // len(mean)
        population_variance = variance.double() * ((samples - 1) / samples)
        sums.add_(torch.stack([mean.double(), population_variance + mean.double() ** 2]), alpha=samples)
        count += samples

    # With momentum 1 the running statistics are those of the batch: no second pass over the activations.
    layer.train().momentum = 1.0
    layer.reset_running_stats()
    hook = layer.register_forward_hook(add)
    try:
        yield
    finally:
        hook.remove()
        layer.momentum = momentum
        if count:
            pooled = sums / count
            before = pooled[0], (pooled[1] - pooled[0] ** 2).clamp_min(0)
        mean.copy_(before[0])
        variance.copy_(before[1])
