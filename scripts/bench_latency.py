"""How far measured latencies can be trusted, and what pruning brings: ``python scripts/bench_latency.py``.

Prints three tables: ratios of two identical networks while another process keeps a core busy; latency of
dense networks and of uniform ones with half of the MACs; with ``--widths``, what single widths cost.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import multiprocessing
import os
import platform
import time
from typing import TYPE_CHECKING

import torch
import torchvision
from torch import nn

from evaluators.latency import BACKENDS, Patience, Setting, compare_models, machine_name
from evaluators.models.digits import DigitsCnn
from evaluators.models.resnet_cifar import CifarResNet
from spaces import cut, trace

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: Networks by name: how each is made, and what it takes.
NETWORKS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "digits": (DigitsCnn, (1, 1, 8, 8)),
    "ResNet-20": (lambda: CifarResNet(20), (1, 3, 32, 32)),
    "ResNet-18": (torchvision.models.resnet18, (1, 3, 224, 224)),
    "MobileNetV2": (torchvision.models.mobilenet_v2, (1, 3, 224, 224)),
}
_INNER_WIDTHS = (32, 33, 36, 40, 44, 48, 52, 56, 60, 62)


def main() -> None:
    """Print the tables, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tries", type=int, default=10)
    parser.add_argument("--seconds", type=float, default=5.0, help="for each comparison")
    parser.add_argument("--networks", default="digits,ResNet-20,MobileNetV2", help="of the first table")
    parser.add_argument("--backends", default=",".join(BACKENDS))
    parser.add_argument("--batches", default="1,32", help="of the second table")
    parser.add_argument("--skip-identical", action="store_true")
    parser.add_argument("--skip-halves", action="store_true")
    parser.add_argument("--widths", action="store_true")
    options = parser.parse_args()
    backends = options.backends.split(",")
    print(
        f"{machine_name('cpu')}, {os.cpu_count()} cores, {torch.backends.cpu.get_cpu_capability()}", end=", "
    )
    print(
        f"Python {platform.python_version()}, torch {torch.__version__}, {time.strftime('%Y-%m-%d')}; ",
        end="",
    )
    print(f"load before: {os.getloadavg()[0]:.2f}\n")
    if not options.skip_identical:
        identical(options.networks.split(","), [b for b in backends if b != "compile"], options)
    if not options.skip_halves:
        halves(backends, [int(size) for size in options.batches.split(",")], options.seconds)
    if options.widths:
        widths([b for b in backends if b != "compile"])


def identical(names: list[str], backends: list[str], options: argparse.Namespace) -> None:
    """Ratios of two copies of one network on one thread, while the other core is busy."""
    print(f"Two copies, {options.tries} tries, 1 thread, batch 1, another process computes all the time:\n")
    print("| network | backend | within 3% | ratios | median of a run |\n|---|---|---|---|---|")
    with busy(max(1, (os.cpu_count() or 2) - 1)):
        for name in names:
            make, shape = NETWORKS[name]
            model, inputs = make().eval(), torch.rand(shape)
            for backend in backends:
                setting, patience = Setting(backend), Patience(seconds=options.seconds)
                found = [
                    compare_models(copy.deepcopy(model), model, inputs, setting, patience)
                    for _ in range(options.tries)
                ]
                ratios = [one.ratio for one in found]
                good = sum(abs(ratio - 1) <= 0.03 for ratio in ratios)
                said = ", ".join(f"{ratio:.3f}" for ratio in sorted(ratios))
                took = found[0].reference.median_ms
                print(
                    f"| {name} | {backend} | {good} of {len(ratios)} | {said} | {took:.3g} ms |", flush=True
                )


def halves(backends: list[str], batches: list[int], seconds: float) -> None:
    """Dense networks, and uniform widths with at most half of the MACs, in turns, on all cores."""
    threads = os.cpu_count() or 1
    print(f"\nDense and half of the MACs (uniform widths), {threads} threads:\n")
    print("| network | batch | backend | MACs | dense | half | quartiles | latency ratio | 95% interval |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name, (make, shape) in NETWORKS.items():
        model, inputs = make().eval(), torch.rand(shape)
        space = trace(model, inputs, divisor=1 if name == "digits" else 8)
        widths = space.fit(dict.fromkeys(space.ratios(space.dense), 1.0), macs=0.5)
        kept = {g: torch.arange(k) for g, k in widths.items if k < space.dense.widths[g]}
        half = cut(model, space, kept).eval()
        share = space.macs(widths) / space.macs(space.dense)
        for batch in batches:
            for backend in backends:
                setting = Setting(backend, batch, threads)
                one = compare_models(half, model, inputs, setting, Patience(seconds=seconds))
                print(
                    f"| {name} | {batch} | {backend} | {share:.0%} | {one.reference.median_ms:.3g} ms "
                    f"| {one.candidate.median_ms:.3g} ms | {one.candidate.spread_ms:.2g} ms "
                    f"| {one.ratio:.0%} | {one.low:.0%} to {one.high:.0%} |",
                    flush=True,
                )


def widths(backends: list[str]) -> None:
    """Two 3x3 convolutions of 64 channels whose inner width is cut, on one thread."""
    print("\nInner width of two 3x3 convolutions of 64 channels, 28x28 pixels, batch 1, 1 thread:\n")
    print(f"| backend | {' | '.join(map(str, _INNER_WIDTHS))} |\n|---|{'---|' * len(_INNER_WIDTHS)}")
    dense, inputs = _pair(64), torch.rand(1, 64, 28, 28)
    for backend in backends:
        setting, patience = Setting(backend), Patience(seconds=2.0)
        found = [compare_models(_pair(w), dense, inputs, setting, patience).ratio for w in _INNER_WIDTHS]
        print(f"| {backend} | {' | '.join(f'{ratio:.2f}' for ratio in found)} |", flush=True)


def _pair(inner: int) -> nn.Module:
    def layer(inputs: int, outputs: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]

    return nn.Sequential(*layer(64, inner), *layer(inner, 64)).eval()


@contextlib.contextmanager
def busy(processes: int) -> Iterator[None]:
    """So many processes that compute all the time."""
    started = [
        multiprocessing.get_context("spawn").Process(target=_spin, daemon=True) for _ in range(processes)
    ]
    for process in started:
        process.start()
    try:
        yield
    finally:
        for process in started:
            process.terminate()
            process.join()


def _spin() -> None:
    parent = os.getppid()
    while os.getppid() == parent:  # a bench that is killed leaves nothing spinning
        sum(range(10_000))


if __name__ == "__main__":
    main()
