"""The CNNs of torchvision's classification zoo, made quickly and with small inputs."""

from __future__ import annotations

from unittest.mock import patch

import torch
import torchvision
from torch import Tensor, nn

ATTENTION = ("vit_", "swin_", "maxvit")

#: Initialisers that draw numbers, which nothing here reads.
SLOW = ("kaiming_uniform_", "kaiming_normal_", "normal_", "trunc_normal_", "uniform_", "xavier_uniform_")

#: One model of each family, the smallest.
FAMILIES = {
    "AlexNet": "alexnet",
    "VGG": "vgg11_bn",
    "ResNet": "resnet18",
    "ResNeXt": "resnext50_32x4d",
    "Wide ResNet": "wide_resnet50_2",
    "SqueezeNet": "squeezenet1_1",
    "DenseNet": "densenet121",
    "Inception": "inception_v3",
    "GoogLeNet": "googlenet",
    "ShuffleNet v2": "shufflenet_v2_x0_5",
    "MobileNet v2": "mobilenet_v2",
    "MobileNet v3": "mobilenet_v3_small",
    "MNASNet": "mnasnet0_5",
    "EfficientNet": "efficientnet_b0",
    "RegNet": "regnet_y_400mf",
    "ConvNeXt": "convnext_tiny",
}

ALL = [
    name
    for name in torchvision.models.list_models(module=torchvision.models)
    if not name.startswith(ATTENTION)
]


def make(name: str, *, num_classes: int = 1000) -> nn.Module:
    """The model without its slow initialisation; weights are whatever :func:`fill` gives them."""
    options: dict[str, object] = {"num_classes": num_classes}
    if name in ("inception_v3", "googlenet"):
        options.update(init_weights=False, aux_logits=True)
    with patch.multiple(torch.nn.init, **dict.fromkeys(SLOW, lambda tensor, *_args, **_kwargs: tensor)):
        return fill(torchvision.models.get_model(name, weights=None, **options))


def fill(model: nn.Module) -> nn.Module:
    """Cheap deterministic numbers; exactness tests draw their own random ones."""
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(0.01 if tensor.is_floating_point() else 0)
    return model


def example(name: str, batch: int = 1) -> Tensor:
    size = 299 if name == "inception_v3" else 64  # Inception's auxiliary head needs its full size
    return torch.randn(batch, 3, size, size, generator=torch.Generator().manual_seed(1))
