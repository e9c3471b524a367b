"""Speed of the search space: ``python scripts/bench_spaces.py [--run RUN]`` prints a table.

Trace with its verification, cut, and costs in closed form; with ``--run``, where a finished run's time went.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torchvision
from rich.console import Console
from rich.table import Table

from evaluators.models import CIFAR_MODELS
from search.result import Result
from spaces import cut, trace
from spaces.verify import random_kept

if TYPE_CHECKING:
    from collections.abc import Callable

#: Phases of a run that are training or scoring; everything else is the search's own work.
WORK = ("dense", "prepare", "rung-1", "rung-2", "finals", "test")


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall clock after one call that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="finished run folder")
    arguments = parser.parse_args()
    table = Table("what", "measured", "aim")
    generator = torch.Generator().manual_seed(0)
    image = torch.randn(1, 3, 224, 224, generator=generator)

    densenet = torchvision.models.densenet121(weights=None)
    table.add_row(
        "trace DenseNet-121 at 224, verified", f"{seconds(lambda: trace(densenet, image), 3):.2f} s", "< 5 s"
    )

    resnet56 = CIFAR_MODELS["resnet56"]()
    small = trace(resnet56, image[..., :32, :32])
    kept = random_kept(small.groups, generator)
    table.add_row(
        "cut ResNet-56", f"{1e3 * seconds(lambda: cut(resnet56, small, kept), 20):.1f} ms", "< 50 ms"
    )

    space = trace(torchvision.models.resnet50(weights=None), image)
    full = np.array([group.width for group in space.groups])
    widths = np.random.default_rng(0).integers(1, full + 1, size=(50_000, len(full)))
    rate = len(widths) / seconds(lambda: space.macs(widths), 5)
    table.add_row("architectures costed, ResNet-50", f"{rate:,.0f} / s", "> 50,000 / s")

    if arguments.run:
        spent = Result.load(arguments.run).seconds
        total = sum(spent.values())
        own = total - sum(spent.get(phase, 0.0) for phase in WORK)
        table.add_row(
            f"neither training nor scoring, {arguments.run.name}",
            f"{own / total:.1%} of {total:.0f} s",
            "< 5%",
        )
    Console(width=100).print(table)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
