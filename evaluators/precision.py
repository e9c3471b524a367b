"""How a run computes: device, number format, memory layout and threads. Decided once, stored, reused."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from evaluators.options import OptionError

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

#: Dense multiply-adds from which bfloat16 and channels_last pay on a CPU. Images per second at batch 128,
#: fp32 -> fp32 channels_last -> bf16 channels_last, on 2 Zen 4 cores (AVX512-bf16, no AMX), torch 2.15:
#:
#:   ResNet-20, 41 M    inference  1,021 ->  2,272 ->  3,932    training    529 ->    643 ->    957
#:   ResNet-8,  12 M    inference  5,483 ->  6,675 -> 11,404    training  1,465 ->  1,794 ->  2,140
#:   ResNet-8,   3 M    inference 23,717 -> 25,100 -> 34,204    training  5,160 ->  6,039 ->  5,995
#:   8x8 images, 0.5 M  inference 84,989 -> 88,648 -> 92,043    training 19,739 -> 20,492 -> 18,748
#:
#: Below it the casts eat the gain, and fp32 is the plainer choice.
PAYS_FROM_MACS = 5_000_000
#: Dense multiply-adds from which threads pay. On the 0.5 M network above, 2 threads score as fast as 1 and
#: train 1.1 times as fast on an idle machine, but at half its speed where another process takes a core.
THREADS_FROM_MACS = 1_000_000


@dataclass(frozen=True, slots=True)
class Precision:
    """How networks are trained and scored in one run.

    1 and 2 threads, or bf16 and fp32, differ in bits, so a resumed run reuses what it was started with.

    Attributes:
        device: ``cpu``, ``cuda`` or ``cuda:N``.
        dtype: Of autocast; the weights stay fp32. ``float32`` switches autocast off.
        channels_last: Memory layout of convolution networks.
        threads: CPU threads.
    """

    device: str = "cpu"
    dtype: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = False
    threads: int = 1

    @classmethod
    def detect(cls, device: str | None, dense_macs: int, has_convolutions: bool) -> Precision:
        """What suits this machine and network: from the hardware's features and the size, never from timing.

        Args:
            device: Wanted device; a GPU where there is one when ``None``.
            dense_macs: Multiply-adds of the dense network.
            has_convolutions: Whether it has convolutions; others stay in fp32 on a CPU.

        Raises:
            OptionError: If there is no such device.
        """
        chosen = checked_device(device)
        large = dense_macs >= PAYS_FROM_MACS
        if chosen.startswith("cuda"):
            fast = large and torch.cuda.is_bf16_supported(including_emulation=False)
        else:
            fast = large and has_convolutions and cpu_multiplies_bfloat16()
        threads = usable_cpus() if dense_macs >= THREADS_FROM_MACS else 1
        return cls(chosen, "bfloat16" if fast else "float32", large and has_convolutions, threads)

    @classmethod
    def from_dict(cls, raw: dict[str, Any]) -> Precision:
        """The inverse of :meth:`to_dict`.

        Raises:
            OptionError: If this machine has no such device.
        """
        return replace(cls(**raw), device=checked_device(raw["device"]))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    def here(self) -> Precision:
        """For a process without the GPU that others compute on: its CPU, in plain fp32."""
        if self.device == "cpu" or torch.cuda.is_available():
            return self
        return replace(self, device="cpu", dtype="float32", channels_last=False)

    @property
    def exact(self) -> Precision:
        """The same device in plain fp32: reported scores, equal to what a rebuilt network gives."""
        return replace(self, dtype="float32", channels_last=False)

    @property
    def rng_devices(self) -> list[torch.device]:
        """Devices whose random state ``torch.random.fork_rng`` has to keep."""
        return [torch.device(self.device)] if self.device.startswith("cuda") else []

    def apply(self) -> None:
        """Set the process-wide switches: threads, and fp32 convolutions that are fp32 (no TF32) on a GPU."""
        torch.set_num_threads(self.threads)
        torch.backends.cudnn.allow_tf32 = False

    def context(self, *, weights_change: bool = False) -> AbstractContextManager[object]:
        """Autocast to :attr:`dtype`.

        Args:
            weights_change: Whether weights are written inside. Autocast keeps the rounded weights that it
                has made, and would go on with stale ones.
        """
        device_type = torch.device(self.device).type
        enabled = self.dtype == "bfloat16"
        return torch.autocast(
            device_type, dtype=torch.bfloat16, enabled=enabled, cache_enabled=not weights_change
        )

    def place(self, model: nn.Module) -> nn.Module:
        """Move to the device and layout, in place."""
        layout = torch.channels_last if self.channels_last else torch.contiguous_format
        return model.to(device=self.device).to(memory_format=layout)

    def place_inputs(self, inputs: Any) -> Any:
        """Tensors of a batch, in tuples, lists or dicts, on the device; images in the layout."""
        if isinstance(inputs, Tensor):
            if self.channels_last and inputs.ndim == 4:
                return inputs.to(self.device, memory_format=torch.channels_last, non_blocking=True)
            return inputs.to(self.device, non_blocking=True)
        if isinstance(inputs, dict):
            return {key: self.place_inputs(value) for key, value in inputs.items()}
        if isinstance(inputs, list | tuple):
            return type(inputs)(self.place_inputs(value) for value in inputs)
        return inputs


def at_rest(model: nn.Module) -> nn.Module:
    """Back on the CPU, in the default layout and eval mode, in place: how networks are handed over."""
    return Precision().place(model).eval()


def usable_cpus() -> int:
    """CPUs that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_multiplies_bfloat16() -> bool:
    """Whether the CPU has bf16 matrix instructions: AMX or AVX512-bf16."""
    probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    return any(getattr(torch.cpu, probe, lambda: False)() for probe in probes)


def checked_device(device: str | None) -> str:
    """``device``, or the best there is when ``None``.

    Raises:
        OptionError: If it is neither ``cpu`` nor a CUDA device of this machine.
    """
    available = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if device is None:
        return "cuda" if available else "cpu"
    if device == "cpu":
        return device
    kind, _, index = device.partition(":")
    if kind != "cuda" or (device != "cuda" and not index.isdecimal()):
        raise OptionError("device", repr(device), "must be cpu, cuda or cuda:N.")
    if int(index or 0) >= available:
        raise OptionError("device", repr(device), f"this machine has {available} CUDA devices.")
    return device
