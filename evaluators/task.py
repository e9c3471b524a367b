"""A task: one problem with its model, data, loss and metric."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Batch = tuple[Any, Tensor]


class Loader(Protocol):
    """Batches of ``(inputs, targets)``; iterating again starts a new epoch.

    Shuffling and augmentation draw from torch's global generator, which the training loop seeds.
    A ``torch.utils.data.DataLoader`` is one.
    """

    def __iter__(self) -> Iterator[Batch]: ...

    def __len__(self) -> int:
        """Batches per epoch."""
        ...


@dataclass(frozen=True, slots=True)
class Recipe:
    """How networks of a task are trained.

    Attributes:
        epochs: Full training: the dense network and Scratch-E.
        finetune_epochs: Final fine-tune of inherited weights.
        brief_epochs: Brief fine-tune of rung 2; fractions of an epoch are allowed.
        lr: Peak learning rate of full training.
        finetune_lr: Peak learning rate of both fine-tunes.
        batch_size: Images per step; used by the loaders.
        optimizer: ``sgd`` (momentum 0.9, Nesterov) or ``adamw``.
        weight_decay: Decay of weights; norms and biases are not decayed.
        label_smoothing: Only for the default loss.
        final_seeds: Training seeds of each final; more give narrower error bars and cost as much more.
        warmup: Share of the steps in which the rate rises linearly before the cosine.
    """

    epochs: float = 100
    finetune_epochs: float = 20
    brief_epochs: float = 1
    lr: float = 0.1
    finetune_lr: float = 0.01
    batch_size: int = 128
    optimizer: str = "sgd"
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    final_seeds: int = 1
    warmup: float = 0.05


def top1(outputs: Tensor, targets: Tensor) -> Tensor:
    """Per sample: 1 where the largest logit is the target's; higher is better."""
    return (outputs.argmax(dim=1) == targets).float()


def cross_entropy(outputs: Any, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Mean cross-entropy; auxiliary heads that only train (GoogLeNet, Inception) weigh 0.3 each."""
    if isinstance(outputs, tuple):
        main, *auxiliary = (o for o in outputs if o is not None)
        loss = F.cross_entropy(main, targets, label_smoothing=label_smoothing)
        return loss + 0.3 * sum(
            F.cross_entropy(a, targets, label_smoothing=label_smoothing) for a in auxiliary
        )
    return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing)


class SealedLoader:
    """The test split: may be read only after :meth:`unseal`, when the front is final.

    Raises:
        RuntimeError: When it is read earlier. Search never sees the test split.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._sealed = True

    def unseal(self) -> None:
        """Allow reading: the front is final."""
        self._sealed = False

    def __iter__(self) -> Iterator[Batch]:
        if self._sealed:
            raise RuntimeError("The test split was read before the front was final.")
        return iter(self._loader)

    def __len__(self) -> int:
        return len(self._loader)


@dataclass(frozen=True, eq=False)
class Task:
    """Model, data, loss and metric of one problem.

    A user's own: a Python file with a function that returns one, ``--task path/to/file.py:function``.

    Attributes:
        name: Goes into file names and reports.
        model: The dense network, in fp32 on the CPU.
        example_inputs: What ``model`` is called with: a tensor, tuple or dict; a batch of one is enough.
        train: Shuffled, augmented training batches.
        holdout: The only data that search scores on.
        test: Read once, when the front is final. Sealed on construction.
        pretrained: Whether ``model`` comes trained; otherwise a run trains it first.
        recipe: How to train.
        metric: Name of the metric.
        score: ``(outputs, targets) ->`` one value per sample, ``(n,)``; the metric is their mean.
        loss: ``(outputs, targets) ->`` scalar; cross-entropy with label smoothing when ``None``.
        initialise: Draws fresh weights in place for scratch training; every module's
            ``reset_parameters`` when ``None``.
        divisor: Default of ``--divisor``.
        calibration: Training batches in fixed order without augmentation, for scores and BN statistics;
            the first batches of ``train`` when ``None``.
    """

    name: str
    model: nn.Module
    example_inputs: Any
    train: Loader
    holdout: Loader
    test: Loader
    pretrained: bool = True
    recipe: Recipe = field(default_factory=Recipe)
    metric: str = "top1"
    score: Callable[[Any, Tensor], Tensor] = top1
    loss: Callable[[Any, Tensor], Tensor] | None = None
    initialise: Callable[[nn.Module], None] | None = None
    divisor: int = 8
    calibration: Loader | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.test, SealedLoader):
            object.__setattr__(self, "test", SealedLoader(self.test))

    def compute_loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """The task's own loss, or cross-entropy with the recipe's label smoothing."""
        if self.loss is not None:
            return self.loss(outputs, targets)
        return cross_entropy(outputs, targets, self.recipe.label_smoothing)


class TensorLoader:
    """Batches of tensors that lie in memory: no workers, no copies per image.

    Args:
        inputs: ``(n, ...)``; uint8 images stay uint8 until ``transform``.
        targets: ``(n,)``.
        batch_size: Samples per batch; the last one may be shorter, or is dropped when shuffling and it
            would hold a single sample, which BatchNorm can not train on.
        shuffle: Whether each epoch has its own order, drawn from torch's global generator.
        transform: Applied to each batch of inputs: augmentation, normalisation.
    """

    def __init__(
        self,
        inputs: Tensor,
        targets: Tensor,
        batch_size: int,
        *,
        shuffle: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.inputs, self.targets = inputs, targets
        self.batch_size, self.shuffle, self.transform = batch_size, shuffle, transform

    def __len__(self) -> int:
        whole, rest = divmod(len(self.targets), self.batch_size)
        return whole + (rest > 1 if self.shuffle else rest > 0)

    def __iter__(self) -> Iterator[Batch]:
        order = torch.randperm(len(self.targets)) if self.shuffle else torch.arange(len(self.targets))
        for index in torch.split(order, self.batch_size)[: len(self)]:
            inputs = self.inputs[index]
            yield (self.transform(inputs) if self.transform else inputs), self.targets[index]
