"""The tasks that come with Espalier, and how a user's own is loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from evaluators.options import choose
from evaluators.tasks.cifar10 import cifar10_task
from evaluators.tasks.digits import digits_task
from evaluators.tasks.imagefolder import imagefolder_task
from evaluators.tasks.options import TaskOptions, override
from evaluators.tasks.user_file import load_user_task

if TYPE_CHECKING:
    from evaluators.task import Task

TaskBuilder = Callable[[TaskOptions], "Task"]

TASKS: dict[str, TaskBuilder] = {
    "digits": digits_task,
    "cifar10": cifar10_task,
    "imagefolder": imagefolder_task,
}

__all__ = ["TASKS", "TaskBuilder", "TaskOptions", "load_task", "override"]


def load_task(name: str, options: TaskOptions) -> Task:
    """A task by name, or from a user's file.

    Args:
        name: A key of :data:`TASKS`, or ``path/to/file.py:function``.
        options: What the user chose.

    Raises:
        OptionError: If the task is unknown, or an option does not fit it.
    """
    if ".py:" in name:
        return load_user_task(name, options)
    return TASKS[choose("task", name, TASKS)](options)
