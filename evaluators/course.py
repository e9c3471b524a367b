"""The course of one training: what changes from step to step, kept now and then, and gone on with."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evaluators.checkpoint import State
from evaluators.epochs import random_state

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn, optim

    from evaluators.checkpoint import Checkpoints
    from evaluators.epochs import Epochs
    from evaluators.shards import Shards

logger = logging.getLogger(__name__)


@dataclass(eq=False)
class Course:
    """What a training hands to its checkpoints.

    What a network keeps outside of parameters and buffers, such as a counter in Python, is not part of it.

    Attributes:
        key: Says which training it is; states of others are ignored.
        model: In training, on its device.
        optimizer: Of that model.
        epochs: What the training reads.
        checkpoints: Where states go; nowhere when ``None``.
        shards: Who takes part; the first of them saves.
        seconds_before: Wall clock of earlier attempts, up to the state that this one goes on from.
    """

    key: str
    model: nn.Module
    optimizer: optim.Optimizer
    epochs: Epochs
    checkpoints: Checkpoints | None
    shards: Shards
    seconds_before: float = 0.0
    _start: float = field(default_factory=time.monotonic)

    def resume(self) -> int:
        """Go to the last state that was saved, if there is one that all shards see; the steps done."""
        if self.checkpoints is None:
            return 0
        state = self.checkpoints.load(self.key)
        step = 0 if state is None else state.step
        if not self.shards.agree(step):
            logger.warning("the shards see different checkpoints: the training starts over")
            return 0
        if state is not None:
            self._restore(state)
            logger.info("training goes on after step %d", step)
        return step

    def after(self, step: int) -> None:
        """Save the state if it is time to, ``step`` steps being done."""
        if self.checkpoints is None or self.shards.rank != 0 or not self.checkpoints.due():
            return
        seconds = time.monotonic() - self._start + self.seconds_before
        epochs = self.epochs
        now = random_state(epochs.devices)
        optimizer = _flat(self.optimizer)
        state = State(step, epochs.taken, seconds, _tensors(self.model), optimizer, now, epochs.start)
        self.checkpoints.save(self.key, state)

    def _restore(self, state: State) -> None:
        with torch.no_grad():
            for name, tensor in _tensors(self.model).items():
                tensor.copy_(state.model[name])
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": _nested(state.optimizer), "param_groups": groups})
        self.epochs.go_to(state.epoch_start, state.taken, state.random)
        self.seconds_before = state.seconds


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name, those that ``state_dict`` leaves out too, shared ones once."""
    return {name: t.detach() for name, t in (*model.named_parameters(), *model.named_buffers())}


def _flat(optimizer: optim.Optimizer) -> dict[str, Tensor]:
    return {
        f"{index}|{name}": value
        for index, values in optimizer.state_dict()["state"].items()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }


def _nested(flat: Mapping[str, Tensor]) -> dict[int, dict[str, Tensor]]:
    found: dict[int, dict[str, Tensor]] = {}
    for key, value in flat.items():
        index, _, name = key.partition("|")
        found.setdefault(int(index), {})[name] = value.clone()  # the optimizer writes into its own
    return found
