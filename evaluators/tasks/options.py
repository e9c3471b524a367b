"""What the command line may say about a task."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.options import OptionError

if TYPE_CHECKING:
    from evaluators.task import Recipe


@dataclass(frozen=True)
class TaskOptions:
    """Choices of a user; ``None`` leaves the choice to the task.

    Attributes:
        model: Name of a model that the task knows.
        weights: File with trained weights for it.
        data_root: Folder of the data.
        holdout: ``train:F`` or ``test:F``: the part, and the share of it, that search scores on.
        seed: Seed of the initial weights and of a holdout that is cut from train.
        epochs: Full training; the fine-tunes are scaled in proportion.
        lr: Peak learning rate of full training; that of the fine-tunes is scaled in proportion.
        batch_size: Images per step of training.
    """

    model: str | None = None
    weights: Path | None = None
    data_root: Path = Path("data")
    holdout: str | None = None
    seed: int = 0
    epochs: float | None = None
    lr: float | None = None
    batch_size: int | None = None


def override(recipe: Recipe, options: TaskOptions) -> Recipe:
    """The recipe with the user's epochs, learning rate and batch size.

    Raises:
        OptionError: If one of them is not positive, or a batch holds a single image.
    """
    if options.epochs is not None:
        ratio = _positive("epochs", options.epochs) / recipe.epochs
        recipe = replace(
            recipe,
            epochs=options.epochs,
            finetune_epochs=recipe.finetune_epochs * ratio,
            brief_epochs=recipe.brief_epochs * ratio,
        )
    if options.lr is not None:
        ratio = _positive("lr", options.lr) / recipe.lr
        recipe = replace(recipe, lr=options.lr, finetune_lr=recipe.finetune_lr * ratio)
    if options.batch_size is not None:
        if options.batch_size < 2:
            raise OptionError(
                "batch-size", options.batch_size, "must be at least 2, for BatchNorm to train on."
            )
        recipe = replace(recipe, batch_size=options.batch_size)
    return recipe


def _positive(option: str, value: float) -> float:
    if not 0 < value < float("inf"):
        raise OptionError(option, value, "must be a positive number.")
    return value
