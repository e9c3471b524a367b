"""The control: a criterion that knows nothing."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import ScoringContext
    from spaces.groups import ChannelGroup


def random(context: ScoringContext, group: ChannelGroup) -> Tensor:
    """Uniform in [0, 1), the same in every process for equal seed and group name."""
    digest = hashlib.sha256(f"{context.seed}/{group.name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
    return torch.rand(group.width, generator=generator, dtype=torch.float64)
