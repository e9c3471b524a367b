"""Checkpoints of a training: what it needs to go on in another process, as tensors and numbers only."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
from safetensors import SafetensorError

from evaluators import cache

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor

    from evaluators.epochs import RandomState

logger = logging.getLogger(__name__)

#: A kill costs at most about as much training time.
EVERY_SECONDS = 60.0

#: Folder for checkpoints of trainings; removed when the run is finished.
TRAININGS = "trainings"

_PARTS = ("model", "optimizer", "random", "epoch_start")


@dataclass(frozen=True, slots=True)
class State:
    """A training between two steps.

    Attributes:
        step: Steps done.
        taken: Batches taken from the running epoch.
        seconds: Wall clock of the training so far, earlier attempts included.
        model: Parameters and buffers by name.
        optimizer: ``index of the parameter|name`` -> momentum, moments, steps.
        random: Random state now.
        epoch_start: Random state before the running epoch.
    """

    step: int
    taken: int
    seconds: float
    model: Mapping[str, Tensor]
    optimizer: Mapping[str, Tensor]
    random: RandomState
    epoch_start: RandomState


class Checkpoints(Protocol):
    """Where one training leaves its state, and at which pace."""

    def load(self, key: str) -> State | None:
        """The last state that was saved under the key; ``None`` where there is none that can be read."""
        ...

    def due(self) -> bool:
        """Whether it is time to save. Asked after every step, so it may cost nothing."""
        ...

    def save(self, key: str, state: State) -> None:
        """Replace what was saved before."""
        ...

    def delete(self) -> None:
        """Remove what was saved: the training is finished."""
        ...


class FileCheckpoints:
    """Implements :class:`Checkpoints` in one safetensors file, which appears whole or not at all.

    A file that is torn, or belongs to another training, is ignored; one that can not be written costs a
    warning, not the training.

    Args:
        path: The file, ``*.safetensors``; its folder is made where it is missing.
        every_seconds: Time until the first state is saved, and from each to the next.
    """

    def __init__(self, path: Path, every_seconds: float = EVERY_SECONDS) -> None:
        self.path, self.every_seconds = path, every_seconds
        self._due = time.monotonic() + every_seconds

    def load(self, key: str) -> State | None:
        """The last state that was saved under the key; ``None`` where there is none that can be read."""
        if not self.path.exists():
            return None
        try:
            stored = cache.load(self.path, key)
            if stored is None:
                logger.info("%s belongs to another training and is ignored", self.path.name)
                return None
            return _state(*stored)
        except (SafetensorError, OSError, ValueError, KeyError) as error:
            logger.warning("%s can not be read and is ignored: %s", self.path.name, error)
            return None

    def due(self) -> bool:
        """Whether it is time to save."""
        return time.monotonic() >= self._due

    def save(self, key: str, state: State) -> None:
        """Replace what was saved before."""
        parts = {f"{part}|{n}": t.cpu() for part in _PARTS for n, t in getattr(state, part).items()}
        texts = {
            "numbers": json.dumps({"step": state.step, "taken": state.taken, "seconds": state.seconds}),
            # Files hold contiguous tensors. In another layout an optimizer may round otherwise.
            "strides": json.dumps({n: t.stride() for n, t in state.optimizer.items()}),
        }
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            cache.save(self.path, key, parts, texts)
        except (SafetensorError, OSError) as error:
            logger.warning("%s could not be written: %s", self.path.name, error)
        self._due = time.monotonic() + self.every_seconds

    def delete(self) -> None:
        """Remove what was saved: the training is finished."""
        self.path.unlink(missing_ok=True)
        self.path.with_suffix(".partial").unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class CheckpointFolder:
    """Checkpoints by the name of their training, a file each.

    Attributes:
        folder: Made when the first state is saved.
        every_seconds: See :class:`FileCheckpoints`.
    """

    folder: Path
    every_seconds: float = EVERY_SECONDS

    def __call__(self, name: str) -> Checkpoints:
        """Of the training of that name, which must do as a file name."""
        return FileCheckpoints(self.folder / f"{name}.safetensors", self.every_seconds)


def _state(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> State:
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in _PARTS}
    for name, tensor in tensors.items():
        part, _, rest = name.partition("|")
        parts[part][rest] = tensor
    for name, stride in json.loads(texts["strides"]).items():
        plain = parts["optimizer"][name]
        parts["optimizer"][name] = torch.empty_strided(plain.shape, stride, dtype=plain.dtype).copy_(plain)
    numbers = json.loads(texts["numbers"])
    return State(
        int(numbers["step"]),
        int(numbers["taken"]),
        float(numbers["seconds"]),
        parts["model"],
        parts["optimizer"],
        parts["random"],
        parts["epoch_start"],
    )
