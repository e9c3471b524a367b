"""A network of four layers whose space can be worked out by hand, and its inspection."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from search.inspect.inspection import Inspection, inspect_space
from search.space_options import trace_arguments
from spaces import Frozen, trace

IMAGE = torch.zeros(1, 3, 8, 8)

SETTINGS = trace_arguments(
    divisor=1, smallest=0.2, include=(), exclude=(), ignore=(), divisor_of=(), smallest_of=()
)

HEAD = Frozen("head", 10, "output of the model")

#: Multiply-adds by hand: 64 positions of 3x3 kernels, then one linear layer.
STEM, CONV1, CONV2, LINEAR = 64 * 8 * 27, 64 * 4 * 72, 64 * 8 * 36, 8 * 10
MACS = STEM + CONV1 + CONV2 + LINEAR
PARAMS = 8 * 27 + 4 * 72 + 8 * 36 + 80 + 10


class Residual(nn.Module):
    """A stem, one residual block whose second layer is registered first, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(4, 8, 3, padding=1, bias=False)
        self.conv1 = nn.Conv2d(8, 4, 3, padding=1, bias=False)
        self.head = nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        out = self.stem(x).relu()
        out = (out + self.conv2(self.conv1(out).relu())).relu()
        return self.head(out.mean((2, 3)))


@cache
def inspection() -> Inspection:
    model = Residual()
    space = replace(trace(model, IMAGE, **SETTINGS), frozen=(HEAD,), warnings=())
    return inspect_space("residual", model, IMAGE, space, seconds=1.5, settings=SETTINGS)
