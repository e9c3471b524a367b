"""Operators that are free by convention: no convolution, no linear layer, no matrix product."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch._ops import OpOverload

_ACTIVATIONS_AND_NORMS = """
_safe_softmax _thnn_fused_gru_cell _thnn_fused_lstm_cell _weight_norm alpha_dropout batch_norm dropout
feature_alpha_dropout feature_dropout glu group_norm hardswish instance_norm layer_norm log_sigmoid
log_softmax native_dropout norm_except_dim prelu renorm rms_norm softmax
"""
_REDUCTIONS_AND_ORDER = """
_unique _unique2 all allclose amax amin aminmax any argmax argmin argsort bincount bucketize
cosine_similarity count_nonzero cross cummax cummin cumprod cumsum diff dist histc isclose isin kthvalue
linalg_cross linalg_vector_norm logcumsumexp logsumexp mean median mode msort nanmean nanmedian nanquantile
nansum norm pairwise_distance prod quantile searchsorted sort std std_mean sum topk trace unique_consecutive
unique_dim var var_mean
"""
_LOSSES = """
binary_cross_entropy binary_cross_entropy_with_logits cross_entropy_loss huber_loss kl_div l1_loss mse_loss
nll_loss nll_loss_nd smooth_l1_loss
"""
_POOLING_AND_RESAMPLING = """
_pad_circular _pad_enum _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
_upsample_nearest_exact2d _upsample_nearest_exact3d adaptive_avg_pool1d adaptive_avg_pool2d
adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d adaptive_max_pool3d affine_grid_generator
avg_pool1d avg_pool2d avg_pool3d channel_shuffle col2im embedding embedding_bag fractional_max_pool2d
fractional_max_pool3d grid_sampler im2col max_pool1d max_pool1d_with_indices max_pool2d
max_pool2d_with_indices max_pool3d max_pool3d_with_indices max_unpool2d max_unpool3d native_channel_shuffle
pad pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d
replication_pad2d replication_pad3d upsample_bicubic2d upsample_bilinear2d upsample_linear1d
upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
"""
_ARRANGEMENTS = """
_pack_padded_sequence _pad_packed_sequence atleast_1d atleast_2d atleast_3d block_diag broadcast_tensors cat
column_stack concat concatenate constant_pad_nd copy diag diag_embed diagflat dstack fill fill_diagonal flip
fliplr flipud gather ger hstack index index_add index_copy index_fill index_put index_reduce index_select
masked_scatter masked_select meshgrid nonzero nonzero_numpy one_hot outer pad_sequence put repeat
repeat_interleave roll rot90 row_stack scatter scatter_add scatter_reduce select_scatter slice_scatter stack
take take_along_dim tile tril triu unsafe_chunk unsafe_split unsafe_split_with_sizes vstack zero
"""
_NUMBERS_AND_LOGIC = """
Int ScalarImplicit __and__ __iand__ __ior__ __irshift__ __or__ _shape_as_tensor bernoulli complex dim
empty_like exponential floor_divide full_like is_floating_point item len linspace multinomial new_empty
new_full new_ones new_zeros normal numel ones_like polar rand_like randint_like randn_like random size
type_as uniform zeros_like
"""
_FOURIER = """
fft_fft fft_fft2 fft_fftn fft_fftshift fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_irfft fft_irfft2
fft_irfftn fft_rfft fft_rfft2 fft_rfftn istft stft
"""

_NAMES = frozenset(
    name
    for names in (
        _ACTIVATIONS_AND_NORMS,
        _REDUCTIONS_AND_ORDER,
        _LOSSES,
        _POOLING_AND_RESAMPLING,
        _ARRANGEMENTS,
        _NUMBERS_AND_LOGIC,
        _FOURIER,
    )
    for name in names.split()
)


@cache
def is_free(operator: str) -> bool:
    """Whether an operator, such as ``aten::relu_``, makes no multiply-adds that count.

    So do those on our list, and those that torch itself says are element-wise, return a view of their input,
    or make numbers from none. In-place forms are as free as their functional twins.
    """
    namespace, _, name = operator.partition("::")
    if namespace != "aten":
        return False
    return any(one in _NAMES or _is_free_by_nature(one) for one in (name, name.removesuffix("_")))


def _is_free_by_nature(name: str) -> bool:
    try:
        packet = getattr(torch.ops.aten, name)
    except AttributeError:
        return False
    overloads = [getattr(packet, overload) for overload in packet.overloads()]
    return (
        any(torch.Tag.pointwise in overload.tags for overload in overloads)
        or any(_is_view(overload) for overload in overloads)
        or not any(_reads_tensors(overload) for overload in overloads)
    )


def _is_view(overload: OpOverload) -> bool:
    aliases = [made.alias_info for made in overload._schema.returns]
    return any(alias is not None and not alias.is_write for alias in aliases)


def _reads_tensors(overload: OpOverload) -> bool:
    return any(
        "Tensor" in str(argument.type) for argument in overload._schema.arguments if not argument.is_out
    )
