"""Epoch after epoch of a loader, and the random state that it draws from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from torch import Tensor

    from evaluators.task import Batch, Loader

#: State of torch's global generators: ``cpu``, and ``cuda`` where a training runs there.
RandomState = dict[str, "Tensor"]


def random_state(devices: Sequence[torch.device]) -> RandomState:
    """Of the CPU's generator, and of the one device's."""
    return {"cpu": torch.get_rng_state(), **{d.type: torch.cuda.get_rng_state(d) for d in devices}}


def set_random_state(state: RandomState, devices: Sequence[torch.device]) -> None:
    """The inverse of :func:`random_state`."""
    torch.set_rng_state(state["cpu"])
    for device in devices:
        torch.cuda.set_rng_state(state[device.type], device)


class Epochs:
    """Batches without end; knows where it stands, and another one can go on from there.

    To go on, the running epoch starts with the random state that it had started with, the batches taken are
    read again and thrown away, and what follows draws as if nothing had happened. So what a loader remembers
    from batch to batch (its order) must be drawn before the first batch, as samplers of torch do, or by a
    ``DataLoader``'s workers; those may not be persistent, or their augmentations differ after the epoch.

    Args:
        loader: What is read.
        devices: Devices whose random state counts, beside the CPU.

    Attributes:
        start: Random state before the running epoch.
        taken: Batches of it that were handed out.
    """

    def __init__(self, loader: Loader, devices: Sequence[torch.device]) -> None:
        self.loader, self.devices = loader, devices
        self.start, self.taken = random_state(devices), 0
        self._after_taken: RandomState | None = None

    def go_to(self, start: RandomState, taken: int, now: RandomState) -> None:
        """Before the first batch: stand where another one stood, ``now`` being its random state there."""
        self.start, self.taken, self._after_taken = start, taken, now

    def __iter__(self) -> Iterator[Batch]:
        """Epoch after epoch.

        Raises:
            ValueError: If an epoch has no batch.
        """
        skipped, after = self.taken, self._after_taken
        if after is not None:
            set_random_state(self.start, self.devices)
        while True:
            self.start, self.taken = random_state(self.devices), 0
            for batch in self.loader:
                self.taken += 1
                if self.taken > skipped:
                    yield batch
                elif self.taken == skipped and after is not None:
                    set_random_state(after, self.devices)
            if not self.taken:
                raise ValueError("The training split has no batch to train on.")
            skipped = 0
