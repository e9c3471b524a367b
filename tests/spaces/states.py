"""Everything that a trace must leave as it was, as plain values that can be compared."""

from __future__ import annotations

import random
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable


def state_of(model: nn.Module) -> dict[str, object]:
    """A snapshot of a model and of the process around it.

    It lists what it looks at by itself rather than through the code under test.
    """
    return {**_of_tensors(model), **_of_modules(model), **_of_random_numbers(), **_of_flags()}


def _of_tensors(model: nn.Module) -> dict[str, object]:
    # Duplicates stay in: which names share a tensor is part of the state.
    named = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return {f"tensor {name}": shown(tensor) for name, tensor in named}


def _of_modules(model: nn.Module) -> dict[str, object]:
    state: dict[str, object] = {"model": (id(model), list(model.state_dict()))}
    for name, module in model.named_modules(remove_duplicate=False):
        state[f"module {name}"] = (id(module), type(module), module.training)
        for key, value in vars(module).items():
            state[f"attribute {name}.{key}"] = shown(value)
    return state


def shown(value: Any) -> object:
    """Identity and content."""
    if isinstance(value, Tensor):
        if nn.parameter.is_lazy(value):
            return (id(value), "lazy")
        facts = (id(value), type(value), value.dtype, value.device, tuple(value.shape), value.requires_grad)
        if value.is_meta:
            return facts
        gradient = None if not value.is_leaf or value.grad is None else shown(value.grad)
        return (*facts, value.stride(), value._version, value.data_ptr(), numbers(value), gradient)
    if isinstance(value, np.ndarray):
        return (id(value), value.tobytes())
    if isinstance(value, dict):
        return (id(value), tuple((key, shown(some)) for key, some in value.items()))
    if isinstance(value, (list, tuple, deque)):
        return (id(value), tuple(shown(some) for some in value))
    if isinstance(value, (bool, int, float, str, type(None))):
        return value
    if isinstance(value, torch.Generator):
        return (id(value), numbers(value.get_state()))
    return id(value)


def numbers(tensor: Tensor) -> bytes:
    """Bits, so that NaN equals itself."""
    return tensor.detach().cpu().contiguous().clone().flatten().view(torch.uint8).numpy().tobytes()


def _of_random_numbers() -> dict[str, object]:
    kind, keys, *rest = np.random.get_state()
    tracker = torch.cuda._lazy_seed_tracker
    return {
        "random torch": numbers(torch.get_rng_state()),
        "random numpy": (kind, keys.tobytes(), *rest),  # type: ignore[union-attr]
        "random python": random.getstate(),
        "random cuda": None if not torch.cuda.is_initialized() else numbers(torch.cuda.get_rng_state()),
        "random cuda, later": (id(tracker.manual_seed_all_cb), id(tracker.manual_seed_cb)),
    }


def _of_flags() -> dict[str, object]:
    return {f"flag {name}": _read(get) for name, get in _FLAGS.items()}


def _read(get: Callable[[], object]) -> object:
    try:
        return get()
    except RuntimeError:  # the old and the new words for precision do not mix
        return "unreadable"


_CUDA, _CUDNN, _MKLDNN = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn

_FLAGS: dict[str, Callable[[], object]] = {
    "sdp": lambda: (
        _CUDA.flash_sdp_enabled(),
        _CUDA.mem_efficient_sdp_enabled(),
        _CUDA.math_sdp_enabled(),
        _CUDA.cudnn_sdp_enabled(),
    ),
    "sdp priority": lambda: tuple(torch._C._get_sdp_priority_order()),
    "mha fastpath": torch.backends.mha.get_fastpath_enabled,
    "cudnn": lambda: (_CUDNN.enabled, _CUDNN.benchmark, _CUDNN.deterministic, _CUDNN.benchmark_limit),
    "cudnn tf32": lambda: _CUDNN.allow_tf32,
    "cublas tf32": lambda: _CUDA.matmul.allow_tf32,
    "cublas reductions": lambda: (
        _CUDA.matmul.allow_fp16_reduced_precision_reduction,
        _CUDA.matmul.allow_bf16_reduced_precision_reduction,
    ),
    "mkldnn": lambda: (_MKLDNN.enabled, _MKLDNN.deterministic),
    "einsum": lambda: torch.backends.opt_einsum.enabled,
    "matmul precision": torch.get_float32_matmul_precision,
    "precision": lambda: (
        torch.backends.fp32_precision,
        _CUDA.matmul.fp32_precision,
        _CUDNN.fp32_precision,
        _CUDNN.conv.fp32_precision,
        _CUDNN.rnn.fp32_precision,
        _MKLDNN.fp32_precision,
        _MKLDNN.matmul.fp32_precision,
        _MKLDNN.conv.fp32_precision,
    ),
    "deterministic": lambda: (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
    ),
    "gradients": lambda: (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    "anomaly": lambda: (torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()),
    "default dtype": torch.get_default_dtype,
    "default device": torch.get_default_device,
    "threads": torch.get_num_threads,
    "autocast": lambda: tuple(
        (torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)) for kind in ("cpu", "cuda")
    ),
    "autocast cache": torch.is_autocast_cache_enabled,
    "modes": lambda: (torch._C._len_torch_dispatch_stack(), torch._C._len_torch_function_stack()),
    "global hooks": lambda: len(torch.nn.modules.module._global_forward_hooks),
}
