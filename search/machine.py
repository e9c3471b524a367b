"""The machine that a run was started on, for its readers."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch


def this_machine() -> dict[str, str]:
    """Processor, usable cores, memory, GPUs, system and Python; what is not known is left out."""
    found = {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "gpus": ", ".join(map(torch.cuda.get_device_name, range(torch.cuda.device_count()))),
        "system": f"{platform.system()} {platform.release()}".strip(),
        "python": platform.python_version(),
    }
    return {name: text for name, text in found.items() if text}


def _processor() -> str:
    """Name of the CPU; Linux alone tells it in a file."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _memory() -> str:
    try:
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return ""
    return f"{size / 2**30:.1f} GiB"
