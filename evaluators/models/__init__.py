"""Models of the built-in tasks, their initialisation, and weights from files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evaluators.models.digits import DigitsCnn
from evaluators.models.resnet_cifar import RESNETS, CifarResNet
from evaluators.models.vgg_cifar import CifarVgg16Bn
from evaluators.models.weights import load_weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

#: ``--model`` of the task ``cifar10``.
CIFAR_MODELS: dict[str, Callable[[], nn.Module]] = {**RESNETS, "vgg16_bn": CifarVgg16Bn}

__all__ = ["CIFAR_MODELS", "CifarResNet", "CifarVgg16Bn", "DigitsCnn", "load_weights"]
