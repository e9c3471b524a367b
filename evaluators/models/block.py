"""The residual block of the built-in networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut.

    Args:
        in_planes: Channels that come in.
        planes: Channels that go out.
        stride: Of the first convolution.
        shortcut: Makes the module that the input takes beside the convolutions.

    References:
        He et al., Deep Residual Learning for Image Recognition, CVPR 2016.
    """

    def __init__(
        self, in_planes: int, planes: int, stride: int, shortcut: Callable[[], nn.Module] = nn.Identity
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_planes, planes, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = shortcut()

    def forward(self, x: Tensor) -> Tensor:
        """``(n, in_planes, h, w)`` to ``(n, planes, h / stride, w / stride)``."""
        out = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x))
