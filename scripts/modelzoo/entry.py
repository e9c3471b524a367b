"""A model of the zoo: how to make it, and what it runs on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

Family = Literal["torchvision", "segmentation", "detection", "timm", "transformers"]


@dataclass(frozen=True, slots=True)
class Whole:
    """What a traced part belongs to, for a look at the outputs that a user sees.

    Attributes:
        model: For instance a detector, which holds the traced part under ``path``.
        path: Name of the traced part.
        inputs: What the whole model runs on.
    """

    model: nn.Module
    path: str
    inputs: Any


@dataclass(frozen=True, slots=True)
class Made:
    """A model and its example inputs.

    Attributes:
        model: In eval mode, with random weights.
        inputs: Tensor or dict of keyword arguments, a batch of one.
        size: What the inputs look like, for the reader: ``64 px``.
        classes: Width of the final classifier; ``None`` where there is none.
        last: Shell patterns of the layers that make the outputs, where ``classes`` does not tell them.
        whole: Where the model is a part of something larger.
    """

    model: nn.Module
    inputs: Any
    size: str
    classes: int | None = 1000
    last: tuple[str, ...] = ()
    whole: Whole | None = None


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the report.

    Attributes:
        family: Which table it belongs to.
        name: As its library calls it.
        make: Makes it; never downloads anything.
        kind: Where in its library it comes from: timm's module, otherwise the family.
    """

    family: Family
    name: str
    make: Callable[[], Made]
    kind: str

    @property
    def label(self) -> str:
        """What ``--filter`` looks at."""
        return f"{self.family}:{self.name}"
