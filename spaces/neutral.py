"""Whatever a foreign forward pass does, the caller's process looks as it did before.

It may draw random numbers, flip a flag of a backend, or reach through a copy to what the copy shares with the
original. :func:`neutral` puts all of that back.
"""

from __future__ import annotations

import contextlib
import logging
import random
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from spaces.shared import remember

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

logger = logging.getLogger(__name__)


@contextlib.contextmanager
def neutral(model: nn.Module | None = None) -> Iterator[None]:
    """Leave no mark on the caller's process, and hide no operator from a dispatch mode.

    Inside, gradients are off and attention runs in its unfused form. Afterwards, also after an exception,
    these are as before: random states (torch on every device, NumPy, ``random``), backend flags, precision,
    default dtype and device, autocast, threads; and what copies of ``model`` share with it. Only what
    differs is put back. State that another thread changes meanwhile is put back, too.

    Args:
        model: Its modules' attributes, hooks and modes are guarded, too, and what its code can reach.
    """
    restores = [_remember_random(), *(_remember_flag(get, put) for get, put in _flags())]
    if model is not None:
        restores += remember(model)
    try:
        # Inference mode shows a dispatch mode fewer operators; fused attention hides its matrix products.
        with torch.inference_mode(False), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            torch.backends.mha.set_fastpath_enabled(False)
            yield
    finally:
        with torch.inference_mode(False), torch.no_grad():
            for restore in restores:
                _attempt(restore)


def seed(number: int) -> None:
    """Seed every source of random numbers that a forward pass may draw from.

    ``torch.manual_seed`` would also queue a seed for accelerators that are not in use yet, which no later
    call takes back.

    Args:
        number: At least 0, below ``2**32``.
    """
    torch.default_generator.manual_seed(number)
    for device in _accelerators():
        device.manual_seed_all(number)
    np.random.seed(number)
    random.seed(number)


def _attempt(restore: Callable[[], None]) -> None:
    try:
        restore()
    except Exception:  # one thing that can not be put back must not keep the others from it
        logger.warning("Something that a forward pass changed could not be put back.", exc_info=True)


# -- random numbers -----------------------------------------------------------------------------------


def _accelerators() -> list[Any]:
    """Device modules with random states of their own, those in use only."""
    found = (getattr(torch, name, None) for name in ("cuda", "xpu"))
    return [module for module in found if module is not None and module.is_initialized()]


def _remember_random() -> Callable[[], None]:
    cpu, on_devices = torch.get_rng_state(), [(d, d.get_rng_state_all()) for d in _accelerators()]
    numpy_state, python_state = np.random.get_state(), random.getstate()
    # Where an accelerator is not in use yet, ``torch.manual_seed`` queues a seed for it.
    trackers = [getattr(getattr(torch, name, None), "_lazy_seed_tracker", None) for name in ("cuda", "xpu")]
    queued = [(tracker, dict(vars(tracker))) for tracker in trackers if tracker is not None]

    def restore() -> None:
        torch.set_rng_state(cpu)
        for device, states in on_devices:
            device.set_rng_state_all(states)
        np.random.set_state(numpy_state)
        random.setstate(python_state)
        for tracker, fields in queued:
            vars(tracker).update(fields)

    return restore


# -- flags --------------------------------------------------------------------------------------------


def _flags() -> Iterator[tuple[Callable[[], Any], Callable[[Any], None]]]:
    """How each process-wide setting is read and set; those that others derive from come first."""
    yield torch.get_float32_matmul_precision, torch.set_float32_matmul_precision
    operators = [
        (backend, name) for backend in ("cuda", "mkldnn") for name in ("all", "matmul", "conv", "rnn")
    ]
    for where in (("generic", "all"), *operators):
        get = partial(torch._C._get_fp32_precision_getter, *where)
        yield get, partial(torch._C._set_fp32_precision_setter, *where)  # type: ignore[misc]
    yield _attribute(torch.backends.cuda.matmul, "allow_tf32")
    yield _attribute(torch.backends.cuda.matmul, "allow_fp16_reduced_precision_reduction")
    yield _attribute(torch.backends.cuda.matmul, "allow_bf16_reduced_precision_reduction")
    for name in ("enabled", "benchmark", "benchmark_limit", "deterministic", "allow_tf32"):
        yield _attribute(torch.backends.cudnn, name)
    for name in ("enabled", "deterministic"):
        yield _attribute(torch.backends.mkldnn, name)
    yield _attribute(torch.backends.opt_einsum, "enabled")
    for name in ("flash", "mem_efficient", "math", "cudnn"):
        cuda = torch.backends.cuda
        yield getattr(cuda, f"{name}_sdp_enabled"), getattr(cuda, f"enable_{name}_sdp")
    yield torch._C._get_sdp_priority_order, torch._C._set_sdp_priority_order
    yield torch.backends.mha.get_fastpath_enabled, torch.backends.mha.set_fastpath_enabled
    yield torch.get_deterministic_debug_mode, torch.set_deterministic_debug_mode
    yield _attribute(torch.utils.deterministic, "fill_uninitialized_memory")
    yield torch.is_anomaly_enabled, torch.set_anomaly_enabled
    yield torch.get_default_dtype, torch.set_default_dtype
    yield _default_device, torch.set_default_device
    yield torch.get_num_threads, torch.set_num_threads
    for kind in ("cpu", "cuda"):
        yield partial(torch.is_autocast_enabled, kind), partial(torch.set_autocast_enabled, kind)
        yield partial(torch.get_autocast_dtype, kind), partial(torch.set_autocast_dtype, kind)
    yield torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled


def _attribute(holder: Any, name: str) -> tuple[Callable[[], Any], Callable[[Any], None]]:
    return partial(getattr, holder, name), partial(setattr, holder, name)


def _default_device() -> torch.device | None:
    """What ``torch.set_default_device`` was last given: with ``None`` there is no cost per operator."""
    context = getattr(torch._GLOBAL_DEVICE_CONTEXT, "device_context", None)
    return None if context is None else context.device


def _remember_flag(get: Callable[[], Any], put: Callable[[Any], None]) -> Callable[[], None]:
    def read() -> Any:
        try:
            return get()
        except (RuntimeError, AttributeError):  # the old and the new words for precision do not mix
            return _UNREADABLE

    before = read()

    def restore() -> None:
        if before is not _UNREADABLE and read() != before:
            put(before)

    return restore


_UNREADABLE = object()
