"""Speed and reach of the search space: ``python scripts/bench_spaces.py [--run RUN] [--zoo]`` prints tables.

Trace with its verification, cut, and costs in closed form; with ``--run``, where a finished run's time went;
with ``--zoo``, how much of one model of each CNN family of torchvision can go.
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
from spaces.trial_cuts import random_kept

if TYPE_CHECKING:
    from collections.abc import Callable

#: Phases of a run that are training or scoring; everything else is the search's own work.
WORK = ("dense", "prepare", "rung-1", "rung-2", "finals", "test")


#: One model of each family, and of ShuffleNet v2 two: its shuffles tie more channels in wide ones.
ZOO = """
alexnet vgg11_bn resnet18 resnext50_32x4d wide_resnet50_2 squeezenet1_1 densenet121 inception_v3 googlenet
shufflenet_v2_x0_5 shufflenet_v2_x1_0 mobilenet_v2 mobilenet_v3_small mnasnet0_5 efficientnet_b0
regnet_x_400mf regnet_y_400mf convnext_tiny
"""


def seconds(function: Callable[[], object], repeats: int) -> float:
    """Median wall clock after one call that warms up."""
    function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def zoo_table(generator: torch.Generator) -> Table:
    """Groups, what half widths remove, and how small each network can become."""
    table = Table("model", "trace", "groups", "units", "half widths remove", "smallest", "frozen because")
    for name in ZOO.split():
        options = {"init_weights": False, "aux_logits": True} if name in ("inception_v3", "googlenet") else {}
        model = torchvision.models.get_model(name, weights=None, **options)
        size = 299 if name == "inception_v3" else 224
        image = torch.randn(1, 3, size, size, generator=generator)
        start = time.perf_counter()
        space = trace(model, image)
        elapsed = time.perf_counter() - start
        dense, half, least = (space.macs(a) for a in (space.dense, space.uniform(0.5), space.smallest))
        table.add_row(
            name,
            f"{elapsed:.1f} s",
            str(len(space.groups)),
            str(sum(group.width for group in space.groups)),
            f"{1 - half / dense:.1%} of MACs",
            f"{least / dense:.2%}",
            " ".join(space.warnings) or "nothing",
        )
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, help="finished run folder")
    parser.add_argument("--zoo", action="store_true", help="trace one model of each CNN family")
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
    if arguments.zoo:
        Console(width=100).print(zoo_table(generator))
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, torch {torch.__version__}")


if __name__ == "__main__":
    main()
