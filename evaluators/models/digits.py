"""A residual network for 8x8 images that is small enough to lose accuracy when it is cut."""

from __future__ import annotations

from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.models.block import BasicBlock


class DigitsCnn(nn.Module):
    """Stem, four residual blocks in three stages, average pool, one linear layer.

    Args:
        widths: Planes of the stages at 8x8, 4x4 and 2x2 pixels.
        num_classes: Width of the logits.
    """

    def __init__(self, widths: tuple[int, int, int] = (8, 10, 12), num_classes: int = 10) -> None:
        super().__init__()
        first, second, third = widths
        self.conv1 = nn.Conv2d(1, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.blocks = nn.Sequential(
            BasicBlock(first, first, 1),
            BasicBlock(first, first, 1),
            BasicBlock(first, second, 2, partial(_projection, first, second)),
            BasicBlock(second, third, 2, partial(_projection, second, third)),
        )
        self.linear = nn.Linear(third, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 1, 8, 8)`` normalised images to ``(n, num_classes)`` logits."""
        out = self.blocks(F.relu(self.bn1(self.conv1(x))))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _projection(in_planes: int, planes: int) -> nn.Sequential:
    """A shortcut that halves the resolution and changes the channels."""
    return nn.Sequential(nn.Conv2d(in_planes, planes, 1, stride=2, bias=False), nn.BatchNorm2d(planes))
