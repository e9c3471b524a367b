"""``python -m search.run`` on real digits in a process of its own, which kills itself at a chosen point."""

from __future__ import annotations

import functools
import os
import sys
from typing import TYPE_CHECKING

import optuna
import torch
from deadly import kill_at

import evaluators.reconstruct.refit
import search.conduct
import search.drive
import search.finish
import search.report.write
from evaluators.checkpoint import CheckpointFolder
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
    "in-sweep": (sys.modules["evaluators.prepare"], "gather", False),
    "in-refit": (evaluators.reconstruct.refit, "refit_carefully", False),
    "after-tell": (Book, "tell", True),
    "at-promotion": (Book, "add", False),
    "after-promotion": (Book, "add", True),
    "between-weights-and-record": (Weights, "keep", True),
    "between-training-and-record": (Weights, "keep", False),
    "saving-the-front": (search.finish, "write_architecture", True),
    "before-report": (search.drive, "write_report", False),
    "in-report": (search.report.write, "write_whole", True),
}


#: Where a training has left a checkpoint that is not on record yet.
TRAINING = ("in-a-training-step", "between-training-and-record")


def start(arguments: Sequence[str], kill: tuple[str, int] | None) -> None:
    """Entry point of the process; exits with the command's code."""
    if kill:
        owner, name, finished_first = POINTS[kill[0]]
        if kill[0] in TRAINING:  # these trainings are shorter than the pace of checkpoints
            search.conduct.CheckpointFolder = functools.partial(CheckpointFolder, every_seconds=0)
        kill_at(owner, name, kill[1], finished_first=finished_first)
    with open(os.devnull, "w") as sink:
        sys.stdout = sink
        code = run_command(run, "search.run", list(arguments))
    os._exit(code)
