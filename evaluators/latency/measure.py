"""Two networks, prepared for a backend and timed in turns."""

from __future__ import annotations

import gc
import platform
import time
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from evaluators.latency.estimate import Patience, compare
from evaluators.latency.runners import BACKENDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from evaluators.latency.estimate import Comparison, Timer
    from evaluators.latency.runners import Run
    from evaluators.latency.setting import Setting


def compare_models(
    model: nn.Module,
    reference: nn.Module,
    example_inputs: Any,
    setting: Setting,
    patience: Patience | None = None,
) -> Comparison:
    """Time ``model`` in turns with ``reference``; both stay as they are.

    Args:
        model: Takes the example inputs.
        reference: Likewise, such as the dense network.
        example_inputs: A tensor, tuple or dict; the first dimension of every tensor is the batch.
        setting: Backend, batch, threads and device.
        patience: When to end.

    Raises:
        Exception: Whatever the backend raises for a network that it can not run.
    """
    inputs = batch_of(example_inputs, setting.batch)
    if setting.backend == "compile":
        torch._dynamo.reset()  # what earlier networks left would have to be looked through at every run
    with ExitStack() as stack:
        backend = BACKENDS[setting.backend]
        stack.enter_context(_in_eval_mode(model, reference))
        fresh, fresh_reference = (
            stack.enter_context(backend(one, inputs, setting)) for one in (model, reference)
        )
        stack.enter_context(_quiet(setting.threads))
        return compare(
            lambda: (_timer(fresh(), setting), _timer(fresh_reference(), setting)), patience or Patience()
        )


def batch_of(example_inputs: Any, size: int) -> Any:
    """The example, repeated until it is a batch of this size."""

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.ndim:
            return tensor
        times = -(-size // len(tensor))
        return tensor.repeat(times, *[1] * (tensor.ndim - 1))[:size].contiguous()

    return pytree.tree_map_only(torch.Tensor, repeated, example_inputs)


def machine_name(device: str) -> str:
    """Name of the GPU, or of the CPU, which Linux alone tells in a file."""
    if device.startswith("cuda"):
        return torch.cuda.get_device_name(device)
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines() if cpuinfo.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()


@contextmanager
def _quiet(threads: int) -> Iterator[None]:
    """Inference with so many threads, in true fp32, and no garbage collection in between."""
    before, collects = torch.get_num_threads(), gc.isenabled()
    tf32 = torch.backends.cudnn.allow_tf32
    torch.set_num_threads(threads)
    torch.backends.cudnn.allow_tf32 = False
    gc.disable()
    try:
        with torch.inference_mode():
            yield
    finally:
        torch.set_num_threads(before)
        torch.backends.cudnn.allow_tf32 = tf32
        if collects:
            gc.enable()


@contextmanager
def _in_eval_mode(*models: nn.Module) -> Iterator[None]:
    modes = [(module, module.training) for model in models for module in model.modules()]
    for model in models:
        model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _timer(run: Run, setting: Setting) -> Timer:
    if setting.is_gpu:
        return _on_gpu(run, setting.device)
    # A single thread has a clock of its own, which stands still while others hold the core.
    return _on_cpu(run, time.thread_time_ns if setting.threads == 1 else time.perf_counter_ns)


def _on_cpu(run: Run, clock: Callable[[], int]) -> Timer:
    def timed(times: int) -> list[float]:
        stamps = [clock()]
        for _ in range(times):
            run()
            stamps.append(clock())
        return [(after - before) / 1e6 for before, after in pairwise(stamps)]

    return timed


def _on_gpu(run: Run, device: str) -> Timer:
    """By events on the GPU's own clock; each run begins when the one before is over, as for a single user."""

    def timed(times: int) -> list[float]:
        found = []
        with torch.cuda.device(device):
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
            for _ in range(times):
                start.record()
                run()
                end.record()
                end.synchronize()
                found.append(start.elapsed_time(end))
        return found

    return timed
