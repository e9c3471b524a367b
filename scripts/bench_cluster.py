"""What the driver of a sweep costs, with simulated evaluations: ``python scripts/bench_cluster.py --help``.

Workers are real processes of Ray on this machine that sleep as long as evaluations of a recorded run took,
scaled to a mean of 1, 10 or 100 seconds: the driver, its study, its sampler and Ray Tune are the real ones.
"""

from __future__ import annotations

import contextlib
import json
import resource
import tempfile
import time
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from search.ray_cluster.environment import prepare_environment

prepare_environment("local")

import ray  # noqa: E402 - it reads the environment when it is imported
from ray.tune import Callback  # noqa: E402
from torch import nn  # noqa: E402

from evaluators.checkpoint import CheckpointFolder  # noqa: E402
from search.config import RunConfig  # noqa: E402
from search.encoding import Encoding  # noqa: E402
from search.jobs import Run  # noqa: E402
from search.journal import open_journal  # noqa: E402
from search.limits import Budget, Window  # noqa: E402
from search.problem import Clock, Problem  # noqa: E402
from search.progress import Silent  # noqa: E402
from search.ray_cluster.executor import RayExecutor  # noqa: E402
from search.ray_cluster.resources import Resources  # noqa: E402
from search.record import read_evaluations  # noqa: E402
from search.samplers import population  # noqa: E402
from search.schedule import Schedule  # noqa: E402
from search.seeds import num_targets  # noqa: E402
from search.study import Book  # noqa: E402
from search.weights import Weights  # noqa: E402
from spaces.cost import CostBuilder  # noqa: E402
from spaces.groups import ChannelGroup  # noqa: E402
from spaces.space import Space  # noqa: E402

GROUPS, WIDTH = 24, 64
CRITERIA = ("l1", "taylor", "obs", "thinet")


def chain() -> Space:
    """A chain of 24 layers: each one's cost is the product of its own width and the one before."""
    groups = tuple(ChannelGroup(f"layer{i}", WIDTH, 2, 1, ()) for i in range(GROUPS))
    unit = [tuple(int(i == j) for j in range(GROUPS)) for i in range(GROUPS)]
    macs, params = CostBuilder(GROUPS), CostBuilder(GROUPS)
    for builder in (macs, params):
        builder.add(3, [(0, unit[0])])
        for i in range(1, GROUPS):
            builder.add(1, [(0, unit[i - 1]), (0, unit[i])])
    return Space(groups, macs.build(), params.build())


def sleeping_work(times: list[float], _place: object) -> Any:
    """A plan, see :mod:`search.ray_cluster.worker`: needs no torch, so that many fit into memory."""

    def work(order: Any) -> dict[str, Any]:
        start = time.time()
        seconds = times[int(order.candidate, 16) % len(times)]
        time.sleep(seconds)
        widths = list(json.loads(order.widths).values())
        macs = 3 * widths[0] + sum(a * b for a, b in pairwise(widths))
        loss = sum((1 - width / WIDTH) ** 2 / (1 + i) for i, width in enumerate(widths))
        return {
            "candidate": order.candidate,
            "rung": order.rung,
            "method": order.method,
            "seed": order.seed,
            "score": 1 - loss / GROUPS,
            "macs": macs,
            "params": macs,
            "seconds": seconds,
            "latency_ms": None,
            "began": start,
            "ended": time.time(),
            "worker": ray.get_runtime_context().get_actor_id(),
        }

    return work


@dataclass
class Observed(Callback):
    """When evaluations began and ended, and what the driver had used by then."""

    spans: list[tuple[float, float, str]] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_result(self, *_: Any, result: dict[str, Any], **__: Any) -> None:
        """An evaluation ended."""
        self.spans.append((result["began"], result["ended"], result["worker"]))
        self.cpu.append(driver_cpu())
        self.memory.append(driver_memory())

    def efficiency(self, workers: int) -> float:
        """Useful worker seconds over all, from when every worker worked until the first had nothing left."""
        begins: dict[str, float] = {}
        for began, _, worker in sorted(self.spans):
            begins.setdefault(worker, began)
        last = {worker: ended for _, ended, worker in sorted(self.spans, key=lambda span: span[1])}
        start, end = max(begins.values()), min(last.values())
        useful = sum(max(0.0, min(e, end) - max(b, start)) for b, e, _ in self.spans)
        return useful / (workers * (end - start))


def driver_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def driver_memory() -> int:
    """Bytes that are resident."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def sweep(times: list[float], evaluations: int, sampler: str, max_rung: int) -> Observed:
    """One sweep of so many simulated workers."""
    space = chain()
    budget = Budget.parse(str(evaluations))
    config = RunConfig(
        budget=str(evaluations),
        criteria=CRITERIA,
        sampler=sampler,
        max_rung=max_rung,
        num_targets=num_targets(budget),
        population=population(budget),
    )
    encoding = Encoding(space, Window.parse("20%:90%", space), CRITERIA)
    nothing: Any = None
    problem = Problem("simulated", "top1", space, nothing, nn.Identity(), 1.0, nothing, nothing)
    observed = Observed()
    with tempfile.TemporaryDirectory() as folder:
        book = Book(open_journal(Path(folder)), encoding.distributions)
        weights = Weights(Path(folder) / "finals", problem)
        run = Run(problem, config, encoding, book, weights, Silent(), CheckpointFolder(Path(folder)), Clock())
        executor = RayExecutor(
            partial(sleeping_work, times),
            dict.fromkeys((1, 2, 3), Resources(1)),
            Path(folder) / "cluster",
            callbacks=[observed],
        )
        executor(run, Schedule(run))
    return observed


def recorded(run: Path | None) -> list[float]:
    """Evaluation times of a run, scaled to a mean of one."""
    if run is None:
        seconds = [0.5 + i / 20 for i in range(21)]
    else:
        seconds = [r.evaluation.seconds for r in read_evaluations(run) if r.evaluation.rung == 1]
    mean = sum(seconds) / len(seconds)
    return [s / mean for s in seconds]


@contextlib.contextmanager
def cluster(workers: int) -> Any:
    ray.init(
        address="local",
        num_cpus=workers,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
    )
    try:
        yield
    finally:
        ray.shutdown()


@click.command()
@click.option("--workers", type=int, multiple=True, default=(2, 8, 32), show_default=True)
@click.option("--seconds", type=float, multiple=True, default=(1.0, 10.0), show_default=True)
@click.option("--rounds", type=int, default=8, show_default=True, help="Evaluations of each worker.")
@click.option("--driver", type=int, multiple=True, help="Trials without sleep: CPU and memory of the driver.")
@click.option("--sampler", default="nsga2", show_default=True)
@click.option("--climb/--no-climb", default=True, help="Whether a third of the trials are promotions.")
@click.option("--run", type=click.Path(path_type=Path), help="Run whose evaluation times are replayed.")
def main(
    workers: tuple[int, ...],
    seconds: tuple[float, ...],
    rounds: int,
    driver: tuple[int, ...],
    sampler: str,
    climb: bool,
    run: Path | None,
) -> None:
    """Print tables of efficiency, and of the driver's CPU and memory."""
    # Rung 3 is not reached here; promotions to rung 2 are made where it is not the last one.
    console, times, max_rung = Console(width=110), recorded(run), 3 if climb else 1
    table = Table("workers", "evaluation", "trials", "efficiency", "driver CPU per trial")
    for count in () if driver else workers:
        with cluster(count):
            for mean in seconds:
                seen = sweep([mean * t for t in times], count * rounds, sampler, max_rung)
                cpu = (seen.cpu[-1] - seen.cpu[0]) / (len(seen.cpu) - 1)
                share = f"{seen.efficiency(count):.1%}"
                row = (str(count), f"{mean:g} s", str(len(seen.cpu)), share, f"{1e3 * cpu:.1f} ms")
                table.add_row(*row)
                console.print(*row)
    if not driver:
        console.print(table)
        return
    table = Table("trials", "CPU per trial", "last tenth", "memory per trial", "second half", "trials per s")
    for count in driver:
        with cluster(4):
            seen = sweep([0.0], count, sampler, max_rung)
            n = len(seen.cpu)
            memory = (seen.memory[-1] - seen.memory[200]) / (n - 200)
            later = (seen.memory[-1] - seen.memory[n // 2]) / (n - n // 2)
            table.add_row(
                str(n),
                f"{1e3 * (seen.cpu[-1] - seen.cpu[0]) / n:.1f} ms",
                f"{1e3 * (seen.cpu[-1] - seen.cpu[-n // 10]) / (n // 10):.1f} ms",
                f"{memory / 1e3:.1f} kB",
                f"{later / 1e3:.1f} kB",
                f"{(n - 1) / (seen.spans[-1][1] - seen.spans[0][1]):.1f}",
            )
    console.print(table)


if __name__ == "__main__":
    main()
