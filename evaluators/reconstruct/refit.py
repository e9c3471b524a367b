"""Mending a cut network without training: re-fit, then BatchNorm statistics where they help."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils import _pytree as pytree

from evaluators.calibration import first_samples, joined, part_of
from evaluators.recalibrate import recalibrate
from evaluators.reconstruct.cached import refit_from_moments
from evaluators.reconstruct.careful import Lesson, refit_carefully
from evaluators.scoring import call, eval_mode
from evaluators.statistics.layers import find_layers, watched
from spaces.duplicate import duplicate
from spaces.surgery import kept_slots

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from evaluators.precision import Precision
    from evaluators.statistics.layers import Layer
    from evaluators.statistics.records import Moments
    from evaluators.task import Batch, Task
    from spaces import Space

#: Samples of the quick form, which every candidate of rung 1 gets, and of the thorough one.
QUICK_SAMPLES, THOROUGH_SAMPLES = 256, 2048
#: A lesson passes through the network in one batch: so many bytes for its largest activation, at most.
_LARGEST_ACTIVATION = 192 * 2**20
#: Samples that decide whether new BatchNorm statistics help, and that these are first taken from.
_CHECK_SAMPLES, _TRIAL_SAMPLES = 256, 512


class Refit:
    """Mends networks that were cut from one dense network.

    Args:
        task: Its ``model`` is the dense network, at rest; it stays as it is.
        space: Traced from it.
        moments: Of its layers, for the cached form.
        batches: Calibration batches, on the precision's device.
        precision: Device, layout, and the number format of what needs no exact numbers.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        moments: Mapping[str, Moments],
        batches: Iterable[Batch],
        precision: Precision,
    ) -> None:
        self._task, self._space, self._moments = task, space, moments
        self._batches, self._precision = batches, precision
        # Targets come from the dense network in fp32; only the cut network's own pass is rounded.
        self._fp32 = replace(precision, dtype="float32")
        self._lessons: dict[int, Lesson] = {}

    def cached(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        """From the dense network's moments alone, see :mod:`evaluators.reconstruct.cached`; in place.

        Args:
            model: Cut to ``kept``, on the CPU.
            kept: As in :func:`spaces.cut`.
        """
        if self.from_moments(model, kept):
            self._recalibrate_if_better(model, THOROUGH_SAMPLES)

    def from_moments(self, model: nn.Module, kept: Mapping[str, Tensor]) -> bool:
        """As :meth:`cached`, and BatchNorm statistics stay as they are; whether anything was cut."""
        slots = kept_slots(self._task.model, self._space, kept)
        refit_from_moments(model, self._task.model, slots, self._moments, self.layers)
        return bool(slots)

    def quick(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        """Carefully, from few samples; arguments as in :meth:`cached`."""
        self._carefully(model, kept, QUICK_SAMPLES)

    def thorough(self, model: nn.Module, kept: Mapping[str, Tensor]) -> None:
        """Carefully, from all calibration samples that fit into memory; arguments as in :meth:`cached`."""
        self._carefully(model, kept, THOROUGH_SAMPLES)

    def _carefully(self, model: nn.Module, kept: Mapping[str, Tensor], samples: int) -> None:
        slots = kept_slots(self._task.model, self._space, kept)
        if not slots:
            return
        self._fp32.place(model)
        refit_carefully(model, self._task.model, slots, self._lesson(samples), self._precision)
        fitted = {layer.norm for layer in self.layers.values()}
        if any(_has_statistics(module) and name not in fitted for name, module in model.named_modules()):
            # A norm behind a fitted layer was part of the fit: new statistics would undo it (on ResNet-20 at
            # half the MACs they cost 3 to 5 points). Others may be off.
            self._recalibrate_if_better(model, samples)

    @cached_property
    def layers(self) -> dict[str, Layer]:
        """Of the dense network."""
        # Two samples: with one, a tensor of a batch could not be told from a parameter of its shape.
        pair = part_of(next(iter(self._batches)), 2)
        return find_layers(self._task.model, pytree.tree_map_only(Tensor, Tensor.cpu, pair))

    def _lesson(self, samples: int) -> Lesson:
        samples = min(samples, self._most_samples)
        if samples not in self._lessons:
            dense = self._fp32.place(duplicate(self._task.model)).eval()
            inputs = self._fp32.place_inputs(joined(self._batches, samples))
            self._lessons[samples] = Lesson.of(dense, self.layers, inputs, seed=0)
        return self._lessons[samples]

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user should know of the re-fit's limits."""
        most = self._most_samples
        if most >= THOROUGH_SAMPLES:
            return ()
        return (
            f"Activations are large: the re-fit learns from {most} calibration samples at most, "
            f"not from {THOROUGH_SAMPLES}.",
        )

    @cached_property
    def _most_samples(self) -> int:
        """Samples of one batch whose largest activation stays within bounds."""
        largest = 1

        def ran(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
            nonlocal largest
            del name, module
            largest = max(largest, *(x.numel() * x.element_size() // len(x) for x in (inputs, output)))

        model = self._task.model
        with eval_mode(model), torch.no_grad(), watched(model, ran, ran):
            call(model, self._task.example_inputs)
        return max(1, _LARGEST_ACTIVATION // largest)

    def _recalibrate_if_better(self, model: nn.Module, samples: int) -> None:
        """New BatchNorm statistics, unless the loss on calibration data is lower with the old ones."""
        if not any(map(_has_statistics, model.modules())):
            return
        before = {name: buffer.clone() for name, buffer in model.named_buffers()}
        old = self.loss(model)
        # From few samples first: after a careful re-fit new statistics seldom help.
        recalibrate(model, first_samples(self._batches, _TRIAL_SAMPLES), self._precision)
        new = self.loss(model)
        if new < old or not math.isfinite(old):
            if samples > _TRIAL_SAMPLES:
                recalibrate(model, first_samples(self._batches, samples), self._precision)
            return
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])

    def loss(self, model: nn.Module) -> float:
        """Mean loss on the last calibration samples, which a quick re-fit has not seen; lower is better."""
        self._precision.place(model)
        total, samples = 0.0, 0
        with eval_mode(model), torch.inference_mode(), self._precision.context():
            for inputs, targets in self._check:
                outputs = call(model, self._precision.place_inputs(inputs))
                total += float(self._task.compute_loss(outputs, targets)) * len(targets)
                samples += len(targets)
        return total / samples

    @cached_property
    def _check(self) -> list[Batch]:
        kept: deque[Batch] = deque()
        samples = 0
        for batch in self._batches:
            kept.append(batch)
            samples += len(batch[1])
            while samples - len(kept[0][1]) >= _CHECK_SAMPLES:
                samples -= len(kept.popleft()[1])
        return list(kept)


def _has_statistics(module: nn.Module) -> bool:
    return isinstance(module, _BatchNorm) and module.track_running_stats
