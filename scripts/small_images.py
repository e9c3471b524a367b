"""Two torchvision networks as a user's own tasks: a few images of CIFAR-10, trained from nothing.

    python -m search.run --task scripts/small_images.py:resnet18 --budget 5 --max-rung 1

The folder that holds CIFAR-10 is named by ``ESPALIER_DATA``. Scores are low, since the training is brief.
"""

import os
from pathlib import Path

import torch
from torch import nn
from torchvision import models

from evaluators.task import Recipe, Task, TensorLoader
from evaluators.tasks.cifar10 import NORMALISE, load_images

TRAIN, HOLDOUT, TEST = 1000, 500, 1000


def resnet18() -> Task:
    return _task("resnet18")


def mobilenet_v2() -> Task:
    return _task("mobilenet_v2")


def _task(name: str) -> Task:
    images = load_images(Path(os.environ["ESPALIER_DATA"]))

    def part(split: str, first: int, last: int, batch: int, *, shuffle: bool = False) -> TensorLoader:
        inputs, targets = (tensor[first:last] for tensor in images[split])
        return TensorLoader(inputs, targets, batch, shuffle=shuffle, transform=NORMALISE)

    return Task(
        name=name,
        model=_network(name),
        example_inputs=torch.zeros(1, 3, 32, 32),
        train=part("train", 0, TRAIN, 32, shuffle=True),
        holdout=part("train", TRAIN, TRAIN + HOLDOUT, 100),
        test=part("test", 0, TEST, 100),
        calibration=part("train", 0, TRAIN, 100),
        pretrained=False,
        recipe=Recipe(epochs=2, lr=0.05, batch_size=32),
    )


def _network(name: str) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return models.get_model(name, num_classes=10)
