"""``imagefolder``: a user's own images in one folder per class, with any torchvision classifier."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Subset
from torchvision import models
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from evaluators.models import load_weights
from evaluators.models.initialise import image_classifier
from evaluators.options import OptionError, choose
from evaluators.task import Loader, Recipe, Task
from evaluators.tasks.holdout import sample, split
from evaluators.tasks.options import TaskOptions, override

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
#: Side of the resized image is that of the crop divided by this: 256 for 224.
CROP_SHARE = 0.875
EVAL_BATCH = 64
CALIBRATION_IMAGES = 2048
#: Below this many images a loader reads in the main process.
WORKERS_FROM = 1000
#: These build auxiliary heads, and warn unless told how to draw their weights.
AUXILIARY_HEADS = ("googlenet", "inception_v3")
RECIPE = Recipe(epochs=90, finetune_epochs=15, brief_epochs=1, lr=0.1, finetune_lr=0.01, weight_decay=1e-4)


def imagefolder_task(options: TaskOptions) -> Task:
    """A torchvision classifier (default ``resnet18``) on a folder with ``train/`` and ``val/`` or ``test/``.

    The number of classes is the number of folders; images are cropped to the size that the model's own
    weights were trained for. Holdout is ``train:0.1`` by default.

    Raises:
        OptionError: If an option does not fit, or the folders are not there.
    """
    recipe = override(RECIPE, options)
    name = choose("model", options.model or "resnet18", models.list_models(module=models))
    size = crop_size(name)
    augmented, plain = (ImageFolderPart(options.data_root, transform) for transform in transforms(size))
    parts = split(
        options.holdout or "train:0.1",
        num_train=len(plain.train),
        num_test=len(plain.test),
        seed=options.seed,
    )
    model = build(name, len(plain.train.classes), options.seed)
    if options.weights is not None:
        load_weights(model, options.weights)
    held = plain.train if parts.part == "train" else plain.test
    train = Subset(augmented.train, parts.train.tolist())
    calibration = parts.train[sample(len(parts.train), CALIBRATION_IMAGES, options.seed)]
    return Task(
        name="imagefolder",
        model=model,
        example_inputs=torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)),
        train=_loader(train, recipe.batch_size, shuffle=True),
        holdout=_loader(Subset(held, parts.holdout.tolist()), EVAL_BATCH),
        test=_loader(Subset(plain.test, parts.test.tolist()), EVAL_BATCH),
        pretrained=options.weights is not None,
        recipe=recipe,
        initialise=image_classifier,
        calibration=_loader(Subset(plain.train, calibration.tolist()), EVAL_BATCH),
    )


class ImageFolderPart:
    """``train/`` and ``val/`` (or ``test/``) of one folder under one transform.

    Raises:
        OptionError: If a folder is missing or empty, or the two have different classes.
    """

    def __init__(self, root: Path, transform: Callable[[Any], Any]) -> None:
        second = "val" if (root / "val").is_dir() or not (root / "test").is_dir() else "test"
        self.train = _folder(root, "train", transform)
        self.test = _folder(root, second, transform)
        if self.train.classes != self.test.classes:
            odd = sorted(set(self.train.classes) ^ set(self.test.classes))[0]
            rule = f"train/ and {second}/ must have the same class folders; {odd} is only in one of them."
            raise OptionError("data-root", root, rule)


def crop_size(name: str) -> int:
    """Side of the images that torchvision's weights of the model were trained for, e.g. 224."""
    preset = next(iter(models.get_model_weights(name))).transforms()
    return int(preset.crop_size[0])


def transforms(size: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
    """For training (random resized crop, mirror) and for scoring (resize, centre crop)."""
    tensor = [v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(MEAN, STD)]
    training = v2.Compose([v2.RandomResizedCrop(size), v2.RandomHorizontalFlip(), *tensor])
    scoring = v2.Compose([v2.Resize(round(size / CROP_SHARE)), v2.CenterCrop(size), *tensor])
    return training, scoring


def build(name: str, num_classes: int, seed: int) -> nn.Module:
    """The torchvision model with torchvision's own initial weights."""
    extra = {"init_weights": True} if name in AUXILIARY_HEADS else {}
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        model: nn.Module = models.get_model(name, weights=None, num_classes=num_classes, **extra)
    return model


def _folder(root: Path, part: str, transform: Callable[[Any], Any]) -> ImageFolder:
    try:
        return ImageFolder(root / part, transform)
    except FileNotFoundError as error:
        rule = "must have the folders train/ and val/ (or test/), each with one folder of images per class"
        raise OptionError("data-root", root, f"{rule}; {part}/ is not so.") from error


def _loader(images: Subset[Any], batch_size: int, *, shuffle: bool = False) -> Loader:
    """Order and augmentation follow torch's global generator, with worker processes too."""
    workers = min(4, os.cpu_count() or 1) if len(images) >= WORKERS_FROM else 0
    # BatchNorm can not train on a single image.
    drop_last = shuffle and len(images) > 1 and len(images) % batch_size == 1
    return DataLoader(images, batch_size, shuffle=shuffle, num_workers=workers, drop_last=drop_last)
