"""VGG with batch normalisation for 32x32 images."""

from __future__ import annotations

from torch import Tensor, nn

#: Widths of VGG-16's convolutions; ``None`` halves the resolution.
VGG16: tuple[int | None, ...] = (
    *(64, 64, None),
    *(128, 128, None),
    *(256, 256, 256, None),
    *(512, 512, 512, None),
    *(512, 512, 512, None),
)


class CifarVgg16Bn(nn.Module):
    """VGG-16 for CIFAR: thirteen 3x3 convolutions with BatchNorm, then one linear layer.

    Args:
        num_classes: Width of the logits.

    References:
        Simonyan & Zisserman, ICLR 2015; the single classifier is that of Liu et al., Network Slimming,
        ICCV 2017.
    """

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        in_planes = 3
        for planes in VGG16:
            if planes is None:
                layers.append(nn.MaxPool2d(2))
                continue
            convolution = nn.Conv2d(in_planes, planes, 3, padding=1, bias=False)
            layers += [convolution, nn.BatchNorm2d(planes), nn.ReLU(inplace=True)]
            in_planes = planes
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(in_planes, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, 3, 32, 32)`` normalised images to ``(n, num_classes)`` logits."""
        logits: Tensor = self.classifier(self.features(x).flatten(1))
        return logits
