"""In which way a network is run while it is timed."""

from __future__ import annotations

from dataclasses import dataclass

from evaluators.options import OptionError
from evaluators.precision import usable_cpus


@dataclass(frozen=True, slots=True)
class Setting:
    """Networks are timed in eval mode, in fp32 and the default memory layout: as they are exported.

    On one thread of a CPU its own time counts, without what it waits for a core. Several threads are timed by
    the clock on the wall, so that they need a machine on which not much else runs.

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


def check_threads(option: str, threads: int) -> None:
    """Whether so many can run at a time: more of them measure how they wait, and a great many crash PyTorch.

    Args:
        option: To be named in what is raised.
        threads: Of this machine's CPUs.

    Raises:
        OptionError: If not.
    """
    if not 1 <= threads <= usable_cpus():
        raise OptionError(option, threads, f"must be from 1 to {usable_cpus()}, the CPUs that are here.")
