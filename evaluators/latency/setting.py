"""In which way a network is run while it is timed."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """Networks are timed in eval mode, in fp32 and the default memory layout: as they are exported.

    Attributes:
        backend: ``eager``, ``compile`` or ``onnxruntime``.
        batch: Examples at a time.
        threads: CPU threads.
        device: ``cpu``, ``cuda`` or ``cuda:N``.
    """

    backend: str = "eager"
    batch: int = 1
    threads: int = 1
    device: str = "cpu"

    @property
    def is_gpu(self) -> bool:
        """Whether kernels run beside the process that starts them."""
        return self.device.startswith("cuda")
