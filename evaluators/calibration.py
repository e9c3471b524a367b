"""Calibration batches: training data in fixed order, for gradients and BatchNorm statistics."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from evaluators.precision import Precision
    from evaluators.task import Batch, Loader, Task

#: Training samples that calibrate when the task does not bring a calibration loader.
SAMPLES = 2048
#: Batches up to this many bytes are read, normalised and placed once per study.
MEMORY_BYTES = 256 * 2**20


def calibration_batches(task: Task, precision: Precision) -> Iterable[Batch]:
    """The same batches at every iteration, on the precision's device.

    They are ``task.calibration``, held in memory if that takes at most :data:`MEMORY_BYTES` and else read
    anew each time; or the first batches of ``task.train``, up to :data:`SAMPLES` samples and that memory.
    A batch with a single sample after larger ones is left out: BatchNorm would see no variance in it.

    Raises:
        ValueError: If there is no batch.
    """
    held: list[Batch] = []
    samples = occupied = 0
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        for batch in _placed(task.train if task.calibration is None else task.calibration, precision):
            samples += len(batch[1])
            occupied += num_bytes(batch)
            if held and occupied > MEMORY_BYTES:
                if task.calibration is not None:
                    return _Streamed(task.calibration, precision)
                break
            held.append(batch)
            if task.calibration is None and samples >= SAMPLES:
                break
    if not held:
        raise ValueError(f"Task {task.name!r}: there is no batch to calibrate on.")
    return held


def part_of(batch: Batch, samples: int) -> Any:
    """The inputs of a batch's first samples; what does not go along with the samples stays whole."""
    inputs, targets = batch
    size = len(targets)
    return pytree.tree_map_only(Tensor, lambda x: x[:samples] if is_per_sample(x, size) else x, inputs)


def is_per_sample(value: Any, size: int) -> bool:
    """Whether the first dimension of ``value`` is a batch of ``size`` samples."""
    return isinstance(value, Tensor) and value.dim() > 0 and len(value) == size


def first_samples(batches: Iterable[Batch], samples: int) -> Iterator[Batch]:
    """Whole batches until there are ``samples``."""
    found = 0
    for batch in batches:
        if found >= samples:
            return
        found += len(batch[1])
        yield batch


def joined(batches: Iterable[Batch], samples: int) -> Any:
    """The inputs of the first ``samples`` samples as one batch.

    As far as batches have one shape: others, such as texts padded to another length, are left out. What does
    not go along with the samples is taken from the first batch.
    """
    parts: list[list[Any]] = []
    structure, shapes, per_sample = None, None, []
    for inputs, targets in first_samples(batches, samples):
        leaves, found = pytree.tree_flatten(inputs)
        own = [is_per_sample(leaf, len(targets)) for leaf in leaves]
        trailing = [leaf.shape[1:] for leaf, one in zip(leaves, own, strict=True) if one]
        if structure is None:
            structure, shapes, per_sample = found, trailing, own
        if (found, trailing, own) == (structure, shapes, per_sample):
            parts.append(leaves)
    assert structure is not None
    whole = [
        torch.cat(list(column))[:samples] if one else column[0]
        for column, one in zip(zip(*parts, strict=True), per_sample, strict=True)
    ]
    return pytree.tree_unflatten(whole, structure)


def num_bytes(value: Any) -> int:
    """Bytes of all tensors in nested tuples, lists and dicts."""
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if isinstance(value, dict):
        return sum(num_bytes(v) for v in value.values())
    return sum(num_bytes(v) for v in value) if isinstance(value, list | tuple) else 0


class _Streamed:
    """Reads the same batches anew at every iteration; the caller's random state is left alone."""

    def __init__(self, loader: Loader, precision: Precision) -> None:
        self._loader, self._precision = loader, precision

    def __iter__(self) -> Iterator[Batch]:
        batches = _placed(self._loader, self._precision)
        state = torch.Generator().manual_seed(0).get_state()
        while True:
            # The loader may draw with every batch; between batches the caller's state is in place.
            with torch.random.fork_rng(devices=[]):
                torch.set_rng_state(state)
                batch = next(batches, None)
                state = torch.get_rng_state()
            if batch is None:
                return
            yield batch


def _placed(loader: Loader, precision: Precision) -> Iterator[Batch]:
    largest = 0
    for inputs, targets in loader:
        if len(targets) == 1 < largest:
            continue
        largest = max(largest, len(targets))
        yield precision.place_inputs(inputs), precision.place_inputs(targets)
