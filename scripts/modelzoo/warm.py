"""Imported once by the process from which those of the models are forked.

The first trace of a process imports much that every later one finds there.
"""

import contextlib

import torch
from torch import nn

import modelzoo.job  # noqa: F401
from spaces import trace

torch.set_num_threads(1)
with contextlib.suppress(Exception):
    trace(
        nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten()),
        torch.randn(1, 3, 8, 8),
    )
