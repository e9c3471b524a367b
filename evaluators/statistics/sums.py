"""Running sums of a sweep: second moments of one layer's inputs, and what its channels do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evaluators.statistics.records import Moments
from evaluators.statistics.sites import (
    channels_last,
    draw_sites,
    inputs_at,
    num_groups,
    num_taps,
    output_sizes,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Positions per layer: enough rows for the widest layers, not more than the narrow ones need.
_LEAST_ROWS, _ROWS_PER_COLUMN = 16_384, 16
#: Every fourth position is held out: ridges are chosen there.
_HELD_OUT = 4
#: Samples whose feature maps are decomposed: the paper finds that ranks hardly depend on the images.
_RANK_SAMPLES = 32


def num_columns(layer: nn.Module) -> int:
    """Columns of one conv group's unfolded inputs, the constant one included."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return weight[0].numel() + 1


def moments_bytes(layer: nn.Module) -> int:
    """Memory of a layer's second moments: two matrices of float64."""
    return 2 * num_groups(layer) * num_columns(layer) ** 2 * 8


class MomentSums:
    """Second moments of what a layer reads, at sampled positions.

    Args:
        name: Of the layer.
        layer: The module.
        num_batches: Calls of :meth:`add` to expect; each brings its part of the positions.
        whole: Whether the full matrices fit into memory; else only those of each channel are kept.
    """

    def __init__(self, name: str, layer: nn.Module, num_batches: int, *, whole: bool) -> None:
        self.name, self.layer, self.whole = name, layer, whole
        self.num_rows = 0
        self._num_held = 0
        self._quota = -(-max(_LEAST_ROWS, _ROWS_PER_COLUMN * num_columns(layer)) // num_batches)
        groups, columns, taps = num_groups(layer), num_columns(layer), num_taps(layer)
        shape = (columns, columns) if whole else ((columns - 1) // taps, taps, taps)
        self._fit = torch.zeros(groups, *shape, dtype=torch.float64)
        self._held = torch.zeros(groups, *shape, dtype=torch.float64)

    def add(self, inputs: Tensor, outputs: Tensor, generator: torch.Generator) -> None:
        """Positions of one batch."""
        drawn = draw_sites(output_sizes(self.layer, outputs), self._quota, generator)
        rows = inputs_at(self.layer, inputs, tuple(index.to(inputs.device) for index in drawn)).double()
        # Counted over batches, which may be small.
        number = self.num_rows + torch.arange(rows.shape[1], device=rows.device)
        held = number % _HELD_OUT == _HELD_OUT - 1
        for total, part in ((self._fit, rows[:, ~held]), (self._held, rows[:, held])):
            total += self._moments(part).cpu()
        self.num_rows += rows.shape[1]
        self._num_held += int(held.sum())

    def _moments(self, rows: Tensor) -> Tensor:
        if not self.whole:
            channels = rows.unflatten(2, (-1, num_taps(self.layer)))  # type: ignore[no-untyped-call]
            return torch.einsum("gnct,gncs->gcts", channels, channels)
        rows = torch.cat([rows, rows.new_ones(*rows.shape[:2], 1)], dim=-1)
        return rows.transpose(1, 2) @ rows

    def moments(self, importance: Tensor) -> Moments:
        """The means; ``importance`` as in :class:`Moments`."""
        weight, bias = self.layer.weight, self.layer.bias
        assert isinstance(weight, Tensor)
        by_group = (
            weight.detach().double().cpu().reshape(num_groups(self.layer), -1, num_columns(self.layer) - 1)
        )
        last = torch.zeros_like(by_group[..., :1])
        if isinstance(bias, Tensor):
            last = bias.detach().double().cpu().view_as(last)
        # In place: these are the largest tensors of a study. Called once.
        fit, held = self._fit.div_(self.num_rows - self._num_held), self._held.div_(max(1, self._num_held))
        return Moments(
            layer=self.name,
            weights=torch.cat([by_group, last], dim=-1).transpose(1, 2).contiguous(),
            gram=fit if self.whole else None,
            held=held if self.whole else None,
            blocks=None if self.whole else fit,
            importance=importance,
            taps=num_taps(self.layer),
        )


@dataclass(slots=True)
class ChannelSums:
    """What the input channels of one layer do; each ``(channels,)`` a mean once it is divided by ``count``.

    Attributes:
        mean: Sum of activations.
        absolute: Sum of absolute activations.
        square: Sum of squared activations.
        zeros: Number of activations that are exactly zero.
        count: Activations per channel so far.
        samples: Per batch, ``(samples, channels)`` mean activations.
        ranks: Per batch, ``(samples, channels)`` ranks of feature maps; none where there are no maps.
    """

    mean: Tensor
    absolute: Tensor
    square: Tensor
    zeros: Tensor
    count: int
    samples: list[Tensor]
    ranks: list[Tensor]

    @classmethod
    def of(cls, channels: int) -> ChannelSums:
        """Nothing yet."""
        mean, absolute, square, zeros = torch.zeros(4, channels, dtype=torch.float64)
        return cls(mean, absolute, square, zeros, count=0, samples=[], ranks=[])

    def add(self, layer: nn.Module, inputs: Tensor) -> None:
        """One batch of a layer's inputs."""
        values = channels_last(layer, inputs)
        rows = values.flatten(0, -2)
        for total, part in (
            (self.mean, rows),
            (self.absolute, rows.abs()),
            (self.square, rows.square()),
            (self.zeros, rows == 0),
        ):
            total += part.sum(0, dtype=torch.float64).cpu()
        self.count += len(rows)
        self.samples.append(values.flatten(1, -2).mean(1).cpu() if values.dim() > 2 else values.cpu())
        if values.dim() == 4 and len(self.ranks) * len(inputs) < _RANK_SAMPLES:
            maps = values.movedim(-1, 1)[:_RANK_SAMPLES].float()
            self.ranks.append(torch.linalg.matrix_rank(maps).double().cpu())

    @property
    def rank(self) -> Tensor | None:
        """``(channels,)`` mean rank."""
        return torch.cat(self.ranks)[:_RANK_SAMPLES].mean(0) if self.ranks else None


def joint_histogram(samples: Sequence[Tensor], num_bins: int) -> Tensor:
    """Counts of each column's values over equal bins between its least and its largest.

    Args:
        samples: ``(n, width)`` each; counted together, every one over the range of all of them.
        num_bins: Bins.

    Returns:
        ``(width, num_bins)`` float64.
    """
    values = torch.cat(list(samples)).double().T.contiguous()
    low, high = values.amin(1, keepdim=True), values.amax(1, keepdim=True)
    extent = torch.where(high > low, high - low, torch.ones_like(high))
    bins = ((values - low) / extent * num_bins).long().clamp_max(num_bins - 1)
    counts = torch.zeros(len(values), num_bins, dtype=torch.float64)
    return counts.scatter_add_(1, bins, torch.ones_like(values))
