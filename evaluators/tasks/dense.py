"""Lines of Python that make the dense network of a task, for those who take a pruned one home."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch

from evaluators.scoring import eval_mode

if TYPE_CHECKING:
    from evaluators.task import Task


def dense_code(name: str, model: str | None, task: Task) -> str:
    """Code after which ``dense`` is the network before it was pruned, with whatever weights.

    Args:
        name: The task's, or ``path/to/file.py:function``.
        model: The task's network where it has a choice; its default when ``None``.
        task: The task itself.
    """
    if ".py:" in name:
        path, _, function = name.rpartition(":")
        folder, module = str(Path(path).parent), Path(path).stem
        if function.isidentifier() and module.isidentifier():
            lines = ["import sys", f"sys.path.insert(0, {folder!r})", f"from {module} import {function}"]
            return "\n".join([*lines, f"dense = {function}().model"])
        lines = ["import runpy", f"dense = runpy.run_path({path!r})[{function!r}]().model"]
        return "\n".join(lines)
    if name == "digits":
        return "from evaluators.models import DigitsCnn\ndense = DigitsCnn()"
    if name == "cifar10":
        return f"from evaluators.models import CIFAR_MODELS\ndense = CIFAR_MODELS[{model or 'resnet20'!r}]()"
    with eval_mode(task.model), torch.inference_mode():
        classes = task.model(task.example_inputs).shape[1]
    named = f"{model or 'resnet18'!r}, num_classes={classes}"
    return f"from torchvision.models import get_model\ndense = get_model({named})"
