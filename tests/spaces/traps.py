"""A network with a place for a trap, and inputs in float64."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

Function = Callable[["Trap", Tensor], Tensor]

VECTOR = torch.randn(3, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
TOKENS = torch.randn(2, 5, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Trap(nn.Module):
    """Eight channels go through a trap; a layer beside it must stay free."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.side, self.side_head = nn.Linear(6, 10), nn.Linear(10, 3)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        beside = self.side_head(self.side(x).relu())
        return self.head(self.function(self, self.enter(x))) + beside
