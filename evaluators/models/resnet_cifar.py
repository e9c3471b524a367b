"""Residual networks for 32x32 images with parameter-free shortcuts."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from evaluators.models.block import BasicBlock

if TYPE_CHECKING:
    from collections.abc import Callable


class PaddedShortcut(nn.Module):
    """Option A: every second pixel, zero channels on both sides; no parameters."""

    def __init__(self, in_planes: int, planes: int) -> None:
        super().__init__()
        self.padding = (planes - in_planes) // 2

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_planes, h, w)`` to ``(n, planes, h / 2, w / 2)``."""
        return F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.padding, self.padding))


class CifarResNet(nn.Module):
    """ResNet of depth ``6 n + 2`` for CIFAR, 16-32-64 planes.

    Parameter names are those of the public checkpoints by Yerlan Idelbayev, so that these load as they are.

    Args:
        depth: 20, 32, 44, 56, 110, ...
        num_classes: Width of the logits.

    References:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016, section 4.2.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2:
            raise ValueError(f"CifarResNet: `depth` must be 6 n + 2 with n at least 1, got {depth=}.")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, 32, 32)`` normalised images to ``(n, num_classes)`` logits."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        logits: Tensor = self.linear(out.mean(dim=(2, 3)))
        return logits


def _stage(in_planes: int, planes: int, blocks: int, stride: int) -> nn.Sequential:
    shortcut = nn.Identity if stride == 1 else partial(PaddedShortcut, in_planes, planes)
    first = BasicBlock(in_planes, planes, stride, shortcut)
    return nn.Sequential(first, *(BasicBlock(planes, planes, 1) for _ in range(blocks - 1)))


RESNETS: dict[str, Callable[[], CifarResNet]] = {
    f"resnet{depth}": partial(CifarResNet, depth) for depth in (20, 32, 44, 56, 110)
}
