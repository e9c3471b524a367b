"""Every classification, segmentation and detection model of torchvision."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import torchvision
from torch import nn
from torchvision.models import detection, segmentation

from modelzoo.entry import Entry, Made, Whole
from modelzoo.weights import drawn_quickly

#: Pixels of a side, where 64 do not do: Inception's auxiliary head and SSD's last layers need large maps,
#: MaxViT is made for one size.
_SIZES = {"inception_v3": 299, "maxvit_t": 224, "ssd300_vgg16": 300}
_USUAL = 64

#: Pixels of a side of vision transformers: a grid of 4 by 4 patches.
_PATCHES = {"vit_b_16": 64, "vit_b_32": 128, "vit_l_16": 64, "vit_l_32": 128, "vit_h_14": 56}


def entries() -> list[Entry]:
    """Classification, then segmentation, then detection, each in torchvision's order."""
    names = torchvision.models.list_models
    return [
        *(
            Entry("torchvision", name, partial(_classifier, name), "torchvision")
            for name in names(module=torchvision.models)
        ),
        *(
            Entry("segmentation", name, partial(_segmenter, name), "segmentation")
            for name in names(module=segmentation)
        ),
        *(
            Entry("detection", name, partial(_detector, name), "detection")
            for name in names(module=detection)
        ),
    ]


def _classifier(name: str) -> Made:
    options: dict[str, Any] = {}
    if name in ("inception_v3", "googlenet"):
        options.update(init_weights=False, aux_logits=True)  # their own initialisation takes a minute
    if name in _PATCHES:
        options.update(image_size=_PATCHES[name])
    size = _PATCHES.get(name) or _SIZES.get(name, _USUAL)
    with drawn_quickly():
        model = torchvision.models.get_model(name, weights=None, **options)
    return Made(model.eval(), _image(size), f"{size} px")


def _segmenter(name: str) -> Made:
    with drawn_quickly():
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    return Made(model.eval(), _image(_USUAL), f"{_USUAL} px", classes=21)


def _detector(name: str) -> Made:
    """The backbone with its neck: what follows selects boxes, and their number depends on the data."""
    size = _SIZES.get(name, _USUAL)
    # The SSDs resize to the size in their name and take no other; the others would resize to 800 pixels.
    options = {} if name.startswith("ssd") else {"min_size": size, "max_size": size}
    with drawn_quickly():
        whole = torchvision.models.get_model(name, weights=None, weights_backbone=None, **options).eval()
    backbone: nn.Module = whole.backbone
    scene = [_image(size)[0]]
    return Made(
        backbone,
        _image(size),
        f"{size} px",
        classes=None,
        last=("fpn.layer_blocks.*", "fpn.extra_blocks.*"),
        whole=Whole(whole, "backbone", (scene,)),
    )


def _image(size: int) -> torch.Tensor:
    return torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
