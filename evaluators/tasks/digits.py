"""``digits``: scikit-learn's 1,797 handwritten digits of 8x8 pixels; needs no network and no file."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor

from evaluators.models import DigitsCnn, load_weights
from evaluators.options import choose
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.tasks.augmentation import Normalise, RandomCrop
from evaluators.tasks.holdout import Split, split
from evaluators.tasks.options import TaskOptions, override

NUM_TEST, NUM_HOLDOUT = 600, 400
EVAL_BATCH = 256
#: Of the 1,197 images that are not test, pixels from 0 to 16.
NORMALISE = Normalise(mean=(0.305,), std=(0.376,), maximum=16.0)
RECIPE = Recipe(
    epochs=16,
    finetune_epochs=4,
    brief_epochs=1,
    lr=0.15,
    finetune_lr=0.05,
    batch_size=64,
    final_seeds=3,
)


def digits_task(options: TaskOptions) -> Task:
    """A small residual network on 797 train, 400 holdout and 600 test images.

    Test is the same for every seed. ``--holdout train:F`` cuts the other 1,197 images anew;
    ``--holdout test:F`` takes from test and trains on all 1,197.

    Raises:
        OptionError: If an option does not fit.
    """
    choose("model", options.model or "cnn", ["cnn"])
    recipe = override(RECIPE, options)
    images, targets, parts = _data(options)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(options.seed)
        model = DigitsCnn()
    if options.weights is not None:
        load_weights(model, options.weights)

    def fixed(index: Tensor) -> TensorLoader:
        return TensorLoader(images[index], targets[index], EVAL_BATCH, transform=NORMALISE)

    train, holdout, test = parts
    return Task(
        name="digits",
        model=model,
        example_inputs=NORMALISE(images[train[:1]]),
        train=TensorLoader(
            images[train],
            targets[train],
            recipe.batch_size,
            shuffle=True,
            transform=RandomCrop(NORMALISE, padding=1, flip=False),
        ),
        holdout=fixed(holdout),
        test=fixed(test),
        pretrained=options.weights is not None,
        recipe=recipe,
        divisor=1,
        calibration=fixed(train),
    )


def _data(options: TaskOptions) -> tuple[Tensor, Tensor, tuple[Tensor, Tensor, Tensor]]:
    """Images ``(1797, 1, 8, 8)``, targets, and the indices of train, holdout and test."""
    data = load_digits()
    images = torch.from_numpy(data.images).to(torch.uint8)[:, None]
    targets = torch.from_numpy(data.target).long()
    order = torch.randperm(len(targets), generator=torch.Generator().manual_seed(0))
    rest, test = order[:-NUM_TEST], order[-NUM_TEST:]
    if options.holdout is None:
        return images, targets, (rest[:-NUM_HOLDOUT], rest[-NUM_HOLDOUT:], test)
    cut: Split = split(options.holdout, num_train=len(rest), num_test=len(test), seed=options.seed)
    source = rest if cut.part == "train" else test
    return images, targets, (rest[cut.train], source[cut.holdout], test[cut.test])
