"""``python -m search.run`` on real digits in a process of its own, which kills itself at a chosen point."""

from __future__ import annotations

import os
import signal
import sys
from typing import TYPE_CHECKING

import optuna
import torch

import evaluators.ladder
import search.drive
import search.finish
import search.report.write
from search.command import run_command
from search.run import run
from search.study import Book
from search.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Where a kill can strike: object, attribute, and whether the call is finished first.
POINTS = {
    "in-a-training-step": (torch.optim.SGD, "step", True),
    "between-parameters": (optuna.trial.Trial, "_suggest", True),
    "in-recalibration": (evaluators.ladder, "recalibrate", False),
    "after-tell": (Book, "tell", True),
    "at-promotion": (Book, "add", False),
    "after-promotion": (Book, "add", True),
    "between-weights-and-record": (Weights, "keep", True),
    "saving-the-front": (search.finish, "write_architecture", True),
    "before-report": (search.drive, "write_report", False),
    "in-report": (search.report.write, "_replace", True),
}


def start(arguments: Sequence[str], kill: tuple[str, int] | None) -> None:
    """Entry point of the process; exits with the command's code."""
    if kill:
        owner, name, finished_first = POINTS[kill[0]]
        original, calls = getattr(owner, name), iter(range(1, sys.maxsize))

        def deadly(*args, **kwargs):
            number = next(calls)
            result = original(*args, **kwargs) if number < kill[1] or finished_first else None
            if number == kill[1]:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        setattr(owner, name, deadly)
    with open(os.devnull, "w") as sink:
        sys.stdout = sink
        code = run_command(run, "search.run", list(arguments))
    os._exit(code)
