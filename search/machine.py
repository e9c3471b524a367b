"""The machine that a run was started on, for its readers."""

from __future__ import annotations

import os
import platform

import torch

from evaluators.latency import machine_name


def this_machine() -> dict[str, str]:
    """Processor, usable cores, memory, GPUs, system and Python; what is not known is left out."""
    found = {
        "processor": machine_name("cpu"),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "gpus": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))),
        "system": f"{platform.system()} {platform.release()}".strip(),
        "python": platform.python_version(),
    }
    return {name: text for name, text in found.items() if text}


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return ""
    return f"{size / 2**30:.1f} GiB"
