"""Plans for workers of a test cluster: the fake evaluator, and what can go wrong with it."""

from __future__ import annotations

import os
import resource
import signal
import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from fake_problem import FakeEvaluator, make_space

from search.ray_cluster.work import EvaluatorWork

if TYPE_CHECKING:
    from pathlib import Path


@dataclass
class FakePlan:
    """Works on the fake problem, and misbehaves on chosen candidates.

    Attributes:
        folder: Every evaluation that begins leaves a line in ``calls.txt``, every end one in ``ends.txt``.
        misdeeds: Candidate id -> name of a function of this module.
        slow: Seconds that an evaluation takes.
        ballast: Travels with the plan.
    """

    folder: Path
    misdeeds: dict[str, str] = field(default_factory=dict)
    slow: float = 0.0
    ballast: np.ndarray | None = None

    def __call__(self, place):
        return _Recorded(EvaluatorWork(FakeEvaluator(make_space(), slow=self.slow), place), self)


@dataclass
class _Recorded:
    work: EvaluatorWork
    plan: FakePlan

    def __call__(self, order):
        note(self.plan.folder / "calls.txt", order.name)
        first = (self.plan.folder / "calls.txt").read_text().split().count(order.name) == 1
        misdeed = self.plan.misdeeds.get(order.candidate)
        found = self.work(order)
        if misdeed:
            found |= MISDEEDS[misdeed](first) or {}
        note(self.plan.folder / "ends.txt", order.name)
        return found


def note(path, line):
    with path.open("a") as file:
        file.write(line + "\n")


def raises(_):
    raise ArithmeticError("told to fail")


def exits(_):
    raise SystemExit("told to exit")


def hangs(_):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


def gives_nan(_):
    return {"score": float("nan")}


def runs_out_of_memory(_):
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (2**36, hard))
    try:
        np.ones(2**37, dtype=np.int8)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))


def dies_once(first):
    if first:
        os.kill(os.getpid(), signal.SIGKILL)


def dies_afterwards(_):
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGKILL)).start()


def dies_always(_):
    os.kill(os.getpid(), signal.SIGKILL)


MISDEEDS = {
    f.__name__: f
    for f in (raises, exits, hangs, gives_nan, runs_out_of_memory, dies_once, dies_afterwards, dies_always)
}
