"""What one sweep over the calibration data leaves behind: moments of layers, statistics of units."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    r"""Second moments of what one convolution or linear layer reads: :math:`G = X'X / n`.

    A row of ``X`` is one output position's unfolded inputs with a constant one behind them, so that
    ``X @ weights`` are the layer's outputs. Columns are in the order of ``weight.flatten(1)``: all taps of
    the first input channel, then those of the second; the last column is the one. With ``weights`` known,
    ``X'Y / n`` is ``gram @ weights`` and the mean of ``Y'Y`` is ``weights' @ gram @ weights``: nothing else
    has to be kept for a least-squares fit on any subset of the columns.

    Attributes:
        layer: Name of the module; its weights are the parameter ``<layer>.weight``.
        weights: ``(conv groups, d, outputs)`` float64, the bias in the last row (zero without one).
        gram: ``(conv groups, d, d)`` float64, over the positions to fit on. Where memory did not allow it
            only what channels have among themselves is kept, everything else is zero: see :attr:`blocks`.
        held: The same over held-out positions, on which ridges are chosen.
        blocks: ``(conv groups, channels, taps, taps)`` instead of ``gram`` and ``held`` where these would
            not fit into memory; ``None`` otherwise.
        importance: ``(conv groups, outputs)`` float64: how much a squared error of 1 in each output counts.
            Errors of all layers are comparable: removing all that a layer adds to its sum costs its share
            of the sum's variance.
        taps: Columns of one input channel: kernel positions; 1 for a linear layer.
    """

    layer: str
    weights: Tensor
    gram: Tensor | None
    held: Tensor | None
    blocks: Tensor | None
    importance: Tensor
    taps: int


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """A layer that reads a group.

    Attributes:
        moments: The layer's.
        columns: ``(width, n)`` int64; row ``u`` lists the columns of ``X`` that read unit ``u``, the same in
            every conv group.
    """

    moments: Moments
    columns: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class UnitStatistics:
    """What the units of one group do on calibration data, where the layers behind read them.

    With several slots per unit or several readers, means are over all of them. A *gate* is a factor on
    everything that is read of the unit; its gradient is summed over slots, positions and readers.

    Attributes:
        mean: ``(width,)`` mean activation.
        absolute: ``(width,)`` mean absolute activation.
        square: ``(width,)`` mean squared activation.
        zeros: ``(width,)`` share of activations that are exactly zero.
        histogram: ``(width, bins)`` counts of the per-sample mean activation, over equal bins between the
            least and the largest of the unit.
        rank: ``(width,)`` mean rank of the feature maps of a subsample; ``None`` where there are no maps.
        gradient: ``(width,)`` mean over samples of the gate's gradient of the loss.
        gradient_square: ``(width,)`` mean over samples of its square.
    """

    mean: Tensor
    absolute: Tensor
    square: Tensor
    zeros: Tensor
    histogram: Tensor
    rank: Tensor | None
    gradient: Tensor
    gradient_square: Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Statistics:
    """Everything that criteria and the re-fit know of the dense network on calibration data.

    Attributes:
        moments: Of each layer that reads a group, by module name.
        units: Of each group, by its name; a group that no layer reads is missing.
        gradients: Gradient of the mean loss, by parameter name.
        curvature: ``(width,)`` second derivative of the mean loss by each unit's gate, by group name;
            empty when no criterion asked.
        removals: ``(n, 2)`` by group name: a unit, and how much the mean loss rose when it alone was
            removed; empty when no criterion asked.
        warnings: What was approximated.
    """

    moments: Mapping[str, Moments] = field(default_factory=dict)
    units: Mapping[str, UnitStatistics] = field(default_factory=dict)
    gradients: Mapping[str, Tensor] = field(default_factory=dict)
    curvature: Mapping[str, Tensor] = field(default_factory=dict)
    removals: Mapping[str, Tensor] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
