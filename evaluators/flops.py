"""fvcore's count of a real network, against which the closed form is held."""

from __future__ import annotations

import logging
import math
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evaluators.scoring import call, eval_mode
from spaces.trace import as_call, batch_of_one

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spaces.follow import Arguments

with warnings.catch_warnings():  # fvcore scripts functions with torch.jit, which warns on import
    warnings.simplefilter("ignore")
    from fvcore.nn import FlopCountAnalysis
    from fvcore.nn.jit_handles import (
        addmm_flop_jit,
        bmm_flop_jit,
        conv_flop_jit,
        einsum_flop_jit,
        get_shape,
        linear_flop_jit,
        matmul_flop_jit,
    )


def _attention_macs(inputs: list[Any], outputs: list[Any]) -> int:  # noqa: ARG001
    """``Q K'`` and its product with ``V``: ``(..., L, E)``, ``(..., S, E)``, ``(..., S, Ev)``."""
    query, key, value = (get_shape(tensor) for tensor in inputs[:3])
    macs: int = math.prod(query[:-1]) * key[-2] * (query[-1] + value[-1])
    return macs


#: Operators that count. One multiply-add counts one, as everywhere in fvcore.
COUNTED = {
    "aten::_convolution": conv_flop_jit,
    "aten::linear": linear_flop_jit,
    "aten::addmm": addmm_flop_jit,
    "aten::mm": matmul_flop_jit,
    "aten::matmul": matmul_flop_jit,
    "aten::bmm": bmm_flop_jit,
    "aten::einsum": einsum_flop_jit,
    "aten::scaled_dot_product_attention": _attention_macs,
}

_ELEMENT_WISE = """
abs add addcdiv addcmul alpha_dropout atan bernoulli celu clamp_max clamp_min clone cos cumsum div
dropout elu erf exp feature_alpha_dropout feature_dropout gelu glu hardshrink hardsigmoid hardswish
hardtanh isnan le leaky_relu lerp log log1p log_sigmoid log_softmax logical_and logical_not logical_or lt
masked_fill maximum minimum mish mul nan_to_num ne neg pow prelu rand rand_like reciprocal relu6 round
rrelu rsqrt rsub selu sigmoid sign silu sin softmax softplus softshrink softsign sqrt square sub tanh
threshold where
"""
_NORMS_AND_REDUCTIONS = """
amax amin argmax argsort batch_norm group_norm instance_norm layer_norm linalg_vector_norm logsumexp max
mean min norm prod rms_norm sort std std_mean sum topk var var_mean
"""
_POOLING_AND_RESAMPLING = """
_upsample_nearest_exact2d adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d
adaptive_max_pool2d adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d embedding grid_sampler
max_pool1d max_pool2d max_pool3d pad reflection_pad2d replication_pad2d upsample_bicubic2d
upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d
"""
_SHAPES_AND_CONSTANTS = """
_weight_norm alias broadcast_tensors channel_shuffle expand_as fill flip hstack index_select lift_fresh
meshgrid movedim native_channel_shuffle new_ones numel numpy_T one_hot pixel_shuffle pixel_unshuffle
ravel repeat repeat_interleave reshape_as rot90 scalar_tensor scatter swapaxes swapdims tensor_split tile
tril triu unflatten unfold view_as vstack zero
"""

#: Operators that are free by convention, in-place forms included. fvcore skips some more on its own.
FREE = frozenset(
    f"aten::{name}"
    for names in (_ELEMENT_WISE, _NORMS_AND_REDUCTIONS, _POOLING_AND_RESAMPLING, _SHAPES_AND_CONSTANTS)
    for name in names.split()
)


def count_macs(model: nn.Module, example_inputs: Any) -> int:
    """Multiply-adds of one forward pass in eval mode, for a batch of one, counted by fvcore.

    Convolutions, linear layers and matrix products count (:data:`COUNTED`), everything else is free; fvcore
    calls the unit a flop. The network's modes are restored.

    Args:
        model: The network, on the inputs' device.
        example_inputs: A tensor, tuple or dict; of a larger batch the first sample is taken.

    Raises:
        RuntimeError: If an operator is neither counted nor known to be free; names it.
    """
    whole = as_call(example_inputs)
    args, kwargs = batch_of_one(*whole)
    if not _runs(model, (args, kwargs)):  # inputs without a batch are counted as they are, as in a trace
        args, kwargs = whole
    traced = _Keywords(model, tuple(kwargs)) if kwargs else model
    with eval_mode(model), _quiet(), torch.no_grad():
        analysis = (
            FlopCountAnalysis(traced, args or tuple(kwargs.values()))
            .clear_op_handles()
            .set_op_handle(**COUNTED)
        )
        analysis.unsupported_ops_warnings(False).uncalled_modules_warnings(False).tracer_warnings("none")
        total = analysis.total()
        unknown = sorted(op for op in analysis.unsupported_ops() if op.removesuffix("_") not in FREE)
    if unknown:
        raise RuntimeError(
            f"fvcore can not count {', '.join(unknown)}: neither counted nor known to be free."
        )
    return int(total)


def _runs(model: nn.Module, inputs: Arguments) -> bool:
    args, kwargs = inputs
    with eval_mode(model), torch.random.fork_rng(), torch.no_grad():
        try:
            model(*args, **kwargs)
        except Exception:  # a foreign forward may raise anything
            return False
    return True


class _Keywords(nn.Module):
    """Gives a traced tuple of inputs their keywords back."""

    def __init__(self, model: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(self, *values: Tensor) -> Any:
        return call(self.model, dict(zip(self.names, values, strict=True)))


@contextmanager
def _quiet() -> Iterator[None]:
    """No warnings from the tracer; attention's fast path off, since it hides operators."""
    fastpath = torch.backends.mha.get_fastpath_enabled()
    level = logging.root.manager.disable
    torch.backends.mha.set_fastpath_enabled(False)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        torch.backends.mha.set_fastpath_enabled(fastpath)
