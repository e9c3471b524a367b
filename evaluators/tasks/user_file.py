"""A user's own task: ``path/to/file.py:function``, a function without arguments that returns a Task."""

from __future__ import annotations

from dataclasses import replace

from evaluators.options import OptionError
from evaluators.task import Task
from evaluators.tasks.options import TaskOptions, override
from evaluators.user_code import load_function


def load_user_task(name: str, options: TaskOptions) -> Task:
    """Import the file, call the function, and apply ``--epochs`` and ``--lr``.

    Args:
        name: ``path/to/file.py:function``.
        options: Model, weights, data and batches are the file's business, so these must not be set.

    Raises:
        OptionError: If an option is set that the file decides, the file or the function is missing, or the
            function returns something else.
    """
    for option in ("model", "weights", "holdout", "batch_size"):
        value = getattr(options, option)
        if value is not None:
            rule = f"is decided by the task's own file, {name}; change it there."
            raise OptionError(option.replace("_", "-"), value, rule)
    task = load_function("task", name)()
    if not isinstance(task, Task):
        raise OptionError("task", name, f"must return an evaluators.task.Task, got {type(task).__name__}.")
    return replace(task, recipe=override(task.recipe, options))
