"""``cifar10``: 50,000 training and 10,000 test images of 32x32 pixels in ten classes."""

from __future__ import annotations

import contextlib
import io
import socket
from http.client import HTTPException
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torchvision.datasets import CIFAR10

from evaluators.models import CIFAR_MODELS, load_weights
from evaluators.models.initialise import kaiming
from evaluators.options import OptionError, choose
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.tasks.augmentation import Normalise, RandomCrop
from evaluators.tasks.holdout import sample, split
from evaluators.tasks.options import TaskOptions, override

if TYPE_CHECKING:
    from pathlib import Path

#: uint8 images ``(n, 3, 32, 32)`` and int64 targets ``(n,)``.
Images = tuple[Tensor, Tensor]

EVAL_BATCH = 250
CALIBRATION_IMAGES, CALIBRATION_BATCH = 2048, 128
#: Seconds without an answer after which a download is given up.
DOWNLOAD_TIMEOUT = 20.0
#: The constants (ImageNet's) with which the public checkpoints were trained.
NORMALISE = Normalise(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
RECIPE = Recipe(epochs=160, finetune_epochs=20, brief_epochs=1, lr=0.1, finetune_lr=0.01, weight_decay=5e-4)


def cifar10_task(options: TaskOptions) -> Task:
    """One of :data:`CIFAR_MODELS` (default ``resnet20``) on CIFAR-10; holdout is ``train:0.1`` by default.

    The images stay uint8 in memory; batches are cropped, mirrored and normalised as they are read.

    Raises:
        OptionError: If an option does not fit, or the data is neither there nor to be had.
    """
    recipe = override(RECIPE, options)
    name = choose("model", options.model or "resnet20", CIFAR_MODELS)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.seed)
        model = CIFAR_MODELS[name]()
        kaiming(model)
    if options.weights is not None:
        load_weights(model, options.weights)
    parts = split(options.holdout or "train:0.1", num_train=50_000, num_test=10_000, seed=options.seed)
    data = load_images(options.data_root)
    train = _take(data["train"], parts.train)
    calibration = _take(train, sample(len(parts.train), CALIBRATION_IMAGES, options.seed))
    augmented = RandomCrop(NORMALISE, padding=4)
    return Task(
        name="cifar10",
        model=model,
        example_inputs=NORMALISE(train[0][:1]),
        train=TensorLoader(*train, recipe.batch_size, shuffle=True, transform=augmented),
        holdout=TensorLoader(*_take(data[parts.part], parts.holdout), EVAL_BATCH, transform=NORMALISE),
        test=TensorLoader(*_take(data["test"], parts.test), EVAL_BATCH, transform=NORMALISE),
        pretrained=options.weights is not None,
        recipe=recipe,
        initialise=kaiming,
        calibration=TensorLoader(*calibration, CALIBRATION_BATCH, transform=NORMALISE),
    )


def load_images(root: Path) -> dict[str, Images]:
    """``train`` and ``test``, downloaded when they are missing.

    Raises:
        OptionError: If the data is not under ``root`` and can not be downloaded.
    """
    try:
        train = CIFAR10(root, train=True)
    except RuntimeError:
        _download(root)
        train = CIFAR10(root, train=True)
    parts = {"train": train, "test": CIFAR10(root, train=False)}
    return {
        name: (torch.from_numpy(part.data).permute(0, 3, 1, 2).contiguous(), torch.tensor(part.targets))
        for name, part in parts.items()
    }


def _download(root: Path) -> None:
    """Fetch and unpack; a failure leaves nothing behind.

    Raises:
        OptionError: If that fails.
    """
    created = [folder for folder in (root, *root.parents) if not folder.exists()]
    archive = root / CIFAR10.filename
    kept = archive.exists()
    timeout = socket.getdefaulttimeout()
    socket.setdefaulttimeout(DOWNLOAD_TIMEOUT)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            CIFAR10(root, train=True, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        if not kept:
            archive.unlink(missing_ok=True)
        for folder in created:
            with contextlib.suppress(OSError):
                folder.rmdir()
        reason = " ".join(str(error).split())
        rule = f"has no {CIFAR10.base_folder} folder with CIFAR-10, and the download failed: {reason}"
        raise OptionError("data-root", root, rule) from error
    finally:
        socket.setdefaulttimeout(timeout)


def _take(images: Images, index: Tensor) -> Images:
    return images[0][index], images[1][index]
