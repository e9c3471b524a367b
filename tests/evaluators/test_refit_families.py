"""The careful re-fit on small members of torchvision's families."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torchvision import models
from torchvision.models.densenet import DenseNet
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet
from toys import PLAIN, first_units, randomised

from evaluators.recalibrate import recalibrate
from evaluators.reconstruct.careful import Lesson, refit_carefully
from evaluators.statistics.layers import find_layers
from spaces import cut, trace
from spaces.surgery import kept_slots

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn


def narrow(model: nn.Module) -> nn.Module:
    """An eighth of every width: the same operators for less."""
    space = trace(model.eval(), torch.zeros(1, 3, 32, 32))
    return cut(model, space, first_units(space, **{g.name: max(2, g.width // 8) for g in space.groups}))


RESIDUALS = [[1, 8, 1, 1], [2, 8, 2, 2], [2, 16, 2, 2]]
ZOO: dict[str, Callable[[], nn.Module]] = {
    "resnet": lambda: narrow(ResNet(BasicBlock, [2, 1, 1, 1], num_classes=3)),
    "resnext": lambda: narrow(ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, groups=16, width_per_group=4)),
    "wide groups": lambda: narrow(
        ResNet(Bottleneck, [1, 1, 1, 1], num_classes=3, groups=2, width_per_group=64)
    ),
    "mobilenet": lambda: models.mobilenet_v2(
        num_classes=3, width_mult=0.1, inverted_residual_setting=RESIDUALS
    ),
    "densenet": lambda: DenseNet(4, (2, 2), 8, 2, num_classes=3),
    "shufflenet": lambda: models.ShuffleNetV2([2, 2, 1], [8, 16, 32, 32, 32], num_classes=3),
}


@pytest.mark.parametrize("name", ZOO)
@torch.no_grad()
def test_families_of_torchvision_come_nearer_to_their_dense_outputs(name: str) -> None:
    torch.manual_seed(0)
    inputs, model = torch.randn(16, 3, 32, 32), ZOO[name]().eval()
    # As after training: with torchvision's own start, signals fade from layer to layer.
    recalibrate(randomised(model), [(inputs, torch.zeros(16))], PLAIN)
    space = trace(model, inputs[:1])
    kept = first_units(space)
    raw, small = cut(model, space, kept), cut(model, space, kept)
    lesson = Lesson.of(model, find_layers(model, inputs), inputs, seed=0)
    assert refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN) == []
    shapes = {key: tensor.shape for key, tensor in raw.state_dict().items()}
    assert {key: tensor.shape for key, tensor in small.state_dict().items()} == shapes
    assert all(tensor.isfinite().all() for tensor in small.state_dict().values())
    wanted, before, after = (m(inputs) for m in (model, raw, small))
    assert (after - wanted).square().mean() < 0.9 * (before - wanted).square().mean()
