"""Operators that real models run, gathered from timm, torchvision, transformers and torch.nn, have rules."""

from __future__ import annotations

import pytest
import torch

from spaces.rules import _rule_for

#: Overloads beyond convolution, matrix products, norms, views and what ATen tags as pointwise.
SEEN = """
_adaptive_avg_pool2d.default _adaptive_avg_pool3d.default _cdist_forward.default _embedding_bag.default
_euclidean_dist.default _fft_c2r.default _fft_r2c.default _grouped_mm.default _local_scalar_dense.default
_log_softmax.default _pack_padded_sequence.default _pdist_forward.default _safe_softmax.default
_softmax.default _to_copy.default _trilinear.default _upsample_bicubic2d_aa.default
_upsample_bilinear2d_aa.default _upsample_nearest_exact1d.default _upsample_nearest_exact2d.default
_upsample_nearest_exact3d.default _weight_norm_interface.default adaptive_max_pool2d.default
adaptive_max_pool3d.default addbmm.default addmv.default addr.default affine_grid_generator.default
all.default all.dim amax.default aminmax.default any.default any.dim argmax.default argmin.default
avg_pool2d.default avg_pool3d.default baddbmm.default bincount.default bucketize.Tensor
channel_shuffle.default col2im.default complex.default count_nonzero.default cummax.default
cumprod.default cumsum.default diag_embed.default diagonal.default diagonal_scatter.default dot.default
embedding.default embedding_renorm_.default exponential_.default flip.default floor_divide.default
fractional_max_pool2d.default fractional_max_pool3d.default gather.default glu.default
grid_sampler_2d.default grid_sampler_3d.default histc.default im2col.default index.Tensor
index_add.default index_copy.default index_fill.int_Scalar index_put.default index_put_.default
index_select.default kthvalue.default linalg_vector_norm.default logcumsumexp.default logsumexp.default
masked_scatter.default max.default max.dim max_pool2d_with_indices.default max_pool3d_with_indices.default
max_unpool2d.default max_unpool3d.default mean.dim median.dim min.dim mode.default multinomial.default
mv.default nansum.default native_batch_norm.default native_channel_shuffle.default
native_group_norm.default native_layer_norm.default nonzero.default norm.ScalarOpt_dim
pixel_shuffle.default pixel_unshuffle.default polar.default prod.dim_int reflection_pad1d.default
reflection_pad2d.default reflection_pad3d.default repeat.default replication_pad1d.default
replication_pad2d.default replication_pad3d.default roll.default rot90.default scatter.value
scatter_.value scatter_add.default scatter_reduce.two select_scatter.default slice_scatter.default
sort.default sort.stable stack.default std.correction std_mean.correction topk.default take.default
tril.default triu.default unbind.int unfold.default unsafe_split.Tensor upsample_bicubic2d.default
upsample_bilinear2d.default upsample_linear1d.default upsample_nearest1d.default
upsample_nearest2d.default upsample_nearest3d.default upsample_trilinear3d.default var_mean.correction
vdot.default view_as_complex.default view_as_real.default
"""


@pytest.mark.parametrize("name", SEEN.split())
def test_an_operator_that_models_run_has_a_rule(name: str) -> None:
    packet, _, overload = name.partition(".")
    assert _rule_for(getattr(getattr(torch.ops.aten, packet), overload)) is not None


def test_what_has_no_rule_is_known_to_have_none() -> None:
    """Matrix decompositions mix everything; if one gets a rule, it belongs into the list above."""
    assert _rule_for(torch.ops.aten.linalg_qr.default) is None
