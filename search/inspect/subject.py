"""What is inspected: a model by name, or the model of a task."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.models.named import load_model
from evaluators.options import OptionError
from evaluators.tasks import TaskOptions, load_task

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, what it is called with, and the divisor that its task wants.

    Attributes:
        option: The option that named it, for messages.
        name: What was given there.
        model: Left as it is.
        example_inputs: As for :func:`spaces.trace`.
        divisor: Used where the user names none.
    """

    option: str
    name: str
    model: nn.Module
    example_inputs: Any
    divisor: int = 1


def find_subject(
    *, model: str | None, weights: str | None, inputs: str | None, task: str | None, data_root: str | None
) -> Subject:
    """Load what the options name.

    Raises:
        OptionError: If they name nothing, do not go together, or can not be loaded.
    """
    path = None if weights is None else Path(weights)
    if task is None:
        if data_root is not None:
            raise OptionError("data-root", data_root, "is read with --task only.")
        if model is None:
            rule = "name one, such as resnet20 or torchvision:resnet50, or a task with --task."
            raise OptionError("model", "is missing", rule)
        named = load_model(model, weights=path, inputs=inputs)
        return Subject("model", model, named.model, named.example_inputs)
    if inputs is not None:
        raise OptionError("input", repr(inputs), f"is decided by the task, {task}.")
    options = TaskOptions(model=model, weights=path, data_root=Path(data_root or "data"))
    found = load_task(task, options)
    name = f"{task} {model}" if model else task
    return Subject("task", name, found.model, found.example_inputs, found.divisor)
