"""Latency of candidates during a search: a ratio to the dense network, told in the run's own milliseconds."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from evaluators.latency.estimate import Patience
from evaluators.latency.measure import compare_models

if TYPE_CHECKING:
    from torch import nn

    from evaluators.latency.setting import Setting
    from spaces.architecture import Architecture

#: A candidate is measured for at most so long.
CANDIDATE = Patience(tolerance=0.02, seconds=0.5)


@dataclass(frozen=True, eq=False)
class LatencyMeter:
    """Measures each architecture once; criteria and weights do not matter.

    What is told is the ratio to the dense network, which runs in turns with the candidate wherever that is
    measured, times what the dense network took once for the whole run: days and workers that are slower or
    faster cancel.

    Attributes:
        dense: The dense network.
        example_inputs: What it is called with.
        setting: How networks are run.
        dense_ms: Median of the dense network, fixed for the run.
        patience: When the measurement of one candidate ends.
    """

    dense: nn.Module
    example_inputs: Any
    setting: Setting
    dense_ms: float
    patience: Patience = CANDIDATE
    _known: dict[Architecture, float] = field(default_factory=dict, init=False, repr=False)

    def latency_ms(self, architecture: Architecture, model: nn.Module) -> float:
        """Of a network with these widths; lower is better."""
        if architecture not in self._known:
            found = compare_models(model, self.dense, self.example_inputs, self.setting, self.patience)
            self._known[architecture] = found.ratio * self.dense_ms
        return self._known[architecture]
