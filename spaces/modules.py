"""Sizes that PyTorch's own modules keep as Python integers: what they must be for their tensors."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from spaces.attention import HeadwiseAttention

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIZED = (
    _ConvNd,
    _NormBase,
    nn.Bilinear,
    nn.Embedding,
    nn.EmbeddingBag,
    nn.LayerNorm,
    nn.Linear,
    nn.MultiheadAttention,
    nn.RMSNorm,
    nn.RNNBase,
)


def keeps_own_sizes(module: nn.Module) -> bool:
    """Whether :func:`mend_sizes` sets everything that the module knows of its widths."""
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.weight is None:
        return False
    return isinstance(module, _SIZED)


def mend_sizes(module: nn.Module, kept_rows: NDArray[np.int64] | None) -> None:
    """Sizes that a module keeps follow its tensors, which were cut.

    Args:
        module: Its tensors are cut; its sizes are those of the dense model.
        kept_rows: Indices that stay of the first dimension of its weight; ``None`` when all do.
    """
    if isinstance(module, _ConvNd):
        _mend_convolution(module, kept_rows)
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = module.weight.shape
    elif isinstance(module, _NormBase):
        tensor = module.weight if module.weight is not None else module.running_mean
        if tensor is not None:
            module.num_features = len(tensor)
    elif isinstance(module, (nn.LayerNorm, nn.RMSNorm)) and module.weight is not None:
        module.normalized_shape = tuple(module.weight.shape)
    elif isinstance(module, nn.GroupNorm) and module.weight is not None:
        module.num_channels = len(module.weight)
    elif isinstance(module, (nn.Embedding, nn.EmbeddingBag)):
        module.num_embeddings, module.embedding_dim = module.weight.shape
    elif isinstance(module, nn.Bilinear):
        module.out_features, module.in1_features, module.in2_features = module.weight.shape
    elif isinstance(module, nn.RNNBase):
        _mend_recurrence(module)
    elif isinstance(module, nn.MultiheadAttention):
        HeadwiseAttention.adopt(module)


def _mend_convolution(module: _ConvNd, kept_rows: NDArray[np.int64] | None) -> None:
    rows, columns = module.weight.shape[:2]
    if module.groups > 1 and kept_rows is not None:
        # Either groups went whole, or each became narrower.
        dense_rows = module.in_channels if module.transposed else module.out_channels
        module.groups = len(np.unique(kept_rows // (dense_rows // module.groups)))
    if module.transposed:
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        module.in_channels, module.out_channels = columns * module.groups, rows


def _mend_recurrence(module: nn.RNNBase) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
    module.input_size = shapes["weight_ih_l0"][1]
    module.hidden_size = shapes["weight_hh_l0"][0] // gates
    if module.proj_size:
        module.proj_size = shapes["weight_hr_l0"][0]
