"""Resampling, pads, shuffles and other layers that reach a dispatch mode whole."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from spaces.rules.arrangements import narrowed, widened
from spaces.rules.call import Call, rule
from spaces.rules.elementwise import pointwise, same_shape
from spaces.rules.reductions import pooling

if TYPE_CHECKING:
    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten

# Each channel alone, positions of fixed sizes: as pooling in two dimensions.
rule(
    aten._adaptive_avg_pool3d,
    aten._upsample_bicubic2d_aa,
    aten._upsample_bilinear2d_aa,
    aten._upsample_nearest_exact1d,
    aten._upsample_nearest_exact2d,
    aten._upsample_nearest_exact3d,
    aten.adaptive_avg_pool1d,
    aten.adaptive_avg_pool3d,
    aten.adaptive_max_pool1d,
    aten.adaptive_max_pool2d,
    aten.adaptive_max_pool3d,
    aten.max_pool1d,
    aten.max_pool1d_with_indices,
    aten.max_pool3d,
    aten.upsample_bicubic2d,
    aten.upsample_linear1d,
    aten.upsample_nearest1d,
    aten.upsample_nearest3d,
    aten.upsample_trilinear3d,
)(pooling)

# Element-wise, but not tagged so by ATen.
rule(aten.complex, aten.floor_divide, aten.polar)(pointwise)

rule(
    aten._conj,
    aten._neg_view,
    aten.cauchy_,
    aten.exponential_,
    aten.geometric_,
    aten.log_normal_,
    aten.normal_,
    aten.random_,
    aten.uniform_,
)(same_shape)


@rule(
    aten.reflection_pad1d,
    aten.reflection_pad2d,
    aten.reflection_pad3d,
    aten.replication_pad1d,
    aten.replication_pad2d,
    aten.replication_pad3d,
)
def mirrored_padding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Slots near the border are seen twice, so padded dimensions stay."""
    labels = list(slots.of(call["self"]))
    pads = call["padding"]
    for position in range(len(pads) // 2):
        if any(pads[2 * position : 2 * position + 2]):
            slots.freeze(labels[-1 - position], reason="padded with its own slots")
            labels[-1 - position] = None
    return [tuple(labels)]


@rule(aten.max_unpool2d, aten.max_unpool3d)
def unpooling(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each channel alone goes back to where its maxima were."""
    num_positions = len(call["output_size"])
    data, indices = slots.of(call["self"]), slots.of(call["indices"])
    slots.freeze(*data[-num_positions:], *indices[-num_positions:])
    met = zip(data[:-num_positions], indices[:-num_positions], strict=True)
    return [(*(slots.meet(pair) for pair in met), *(None,) * num_positions)]


@rule(aten.fractional_max_pool2d, aten.fractional_max_pool3d)
def fractional_pooling(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each channel alone, with random numbers ``(batch, channels, dimensions)`` of its own."""
    num_positions = len(call["output_size"])
    data, (*samples, last) = slots.of(call["self"]), slots.of(call["random_samples"])
    slots.freeze(*data[-num_positions:], last)
    # Data without a batch have samples with a batch of one.
    kept = data[:-num_positions]
    met = [slots.meet(pair) for pair in zip(kept, samples[-len(kept) :], strict=True)]
    return [(*met, *(None,) * num_positions) for _ in call.outputs]


@rule(aten.grid_sampler_2d, aten.grid_sampler_3d, aten.cudnn_grid_sampler)
def grid_sampling(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each channel alone is read where the grid, ``(batch, positions ..., dimensions)``, says."""
    data, grid = call.inputs
    batch, channels, *positions = slots.of(data)
    grid_batch, *places, coordinates = slots.of(grid)
    slots.freeze(*positions, coordinates)
    return [(slots.meet([batch, grid_batch]), channels, *places)]


@rule(aten.affine_grid_generator)
def affine_grid(slots: Slots, call: Call) -> list[TensorLabels]:
    """A grid of fixed size for each matrix of the batch."""
    batch, *matrix = slots.of(call["theta"])
    slots.freeze(*matrix)
    return [(batch, *(None,) * (call.outputs[0].dim() - 1))]


@rule(aten.pixel_shuffle)
def pixel_shuffle(slots: Slots, call: Call) -> list[TensorLabels]:
    """``factor x factor`` channels, one after another, become one channel of a larger image."""
    *batch, channels, height, width = slots.of(call["self"])
    slots.freeze(height, width)
    return [(*batch, narrowed(slots, channels, call["upscale_factor"] ** 2), None, None)]


@rule(aten.pixel_unshuffle)
def pixel_unshuffle(slots: Slots, call: Call) -> list[TensorLabels]:
    """Undoes :func:`pixel_shuffle`."""
    *batch, channels, height, width = slots.of(call["self"])
    slots.freeze(height, width)
    return [(*batch, widened(channels, call["downscale_factor"] ** 2), None, None)]


@rule(aten.channel_shuffle, aten.native_channel_shuffle)
def channel_shuffle(slots: Slots, call: Call) -> list[TensorLabels]:
    """``(groups, n)`` channels become ``(n, groups)``: each group loses the same places."""
    batch, channels, *positions = slots.of(call["self"])
    if channels is not None:
        groups = channels.reshape(call["groups"], -1)
        slots.tie(groups, groups[:1])
        channels = groups.T.ravel()
    return [(batch, channels, *positions)]


@rule(aten.glu)
def gated_halves(slots: Slots, call: Call) -> list[TensorLabels]:
    """The second half gates the first, so both lose the same places."""
    labels = list(slots.of(call["self"]))
    dim = call["dim"] % len(labels)
    halved = labels[dim]
    if halved is not None:
        labels[dim] = slots.meet(list(halved.reshape(2, -1)))
    return [tuple(labels)]


@rule(aten._weight_norm_interface)
def weight_norm(slots: Slots, call: Call) -> list[TensorLabels]:
    """Slices of a weight get given norms; a removed slot is zero in them."""
    labels, norms = list(slots.of(call["v"])), list(slots.of(call["g"]))
    dim = call["dim"] % len(labels)
    labels[dim] = norms[dim] = slots.meet([labels[dim], norms[dim]])
    return [tuple(labels), tuple(norms)]


@rule(aten._fft_c2c, aten._fft_c2r, aten._fft_r2c)
def fourier(slots: Slots, call: Call) -> list[TensorLabels]:
    """Transformed dimensions stay; the others act alone."""
    labels: list[Labels] = list(slots.of(call["self"]))
    for dim in call.dims("dim", len(labels)):
        slots.freeze(labels[dim])
        labels[dim] = None
    return [tuple(labels)]


@rule(aten.view_as_complex)
def real_to_complex(slots: Slots, call: Call) -> list[TensorLabels]:
    """The last dimension, real and imaginary part, vanishes."""
    *labels, parts = slots.of(call["self"])
    slots.freeze(parts)
    return [tuple(labels)]


@rule(aten.view_as_real)
def complex_to_real(slots: Slots, call: Call) -> list[TensorLabels]:
    """Real and imaginary part stand in a new last dimension."""
    return [(*slots.of(call["self"]), None)]


@rule(aten._pack_padded_sequence)
def packing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Sequences of several lengths are put one after another; features stay as they are."""
    steps, sequences, *features = slots.of(call["input"])
    slots.freeze(steps, sequences, *slots.of(call["lengths"]))
    return [(None, *features), (None,)]
