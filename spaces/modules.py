"""Sizes that PyTorch's own modules keep as Python integers: what they must be for their tensors."""

from __future__ import annotations

from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd

from spaces.attention import HeadwiseAttention

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


def mend_sizes(module: nn.Module) -> None:
    """Sizes that a module keeps follow its tensors, which were cut."""
    if isinstance(module, _ConvNd):
        _mend_convolution(module)
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


def _mend_convolution(module: _ConvNd) -> None:
    rows, columns = module.weight.shape[:2]
    if module.transposed:
        # (in, out per group): the inputs of each group are as many as before.
        if module.groups > 1:
            module.groups = rows // (module.in_channels // module.groups)
        module.in_channels, module.out_channels = rows, columns * module.groups
    else:
        # Either groups go whole, and the rows of each are as many as before, or all become narrower.
        if module.groups > 1 and columns == module.in_channels // module.groups:
            module.groups = rows // (module.out_channels // module.groups)
        module.in_channels, module.out_channels = columns * module.groups, rows


def _mend_recurrence(module: nn.RNNBase) -> None:
    gates = {"LSTM": 4, "GRU": 3}.get(module.mode, 1)
    shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters(recurse=False)}
    module.input_size = shapes["weight_ih_l0"][1]
    module.hidden_size = shapes["weight_hh_l0"][0] // gates
    if module.proj_size:
        module.proj_size = shapes["weight_hr_l0"][0]
