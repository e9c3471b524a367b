"""A user's own task: ``path/to/file.py:function``, a function without arguments that returns a Task."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluators.options import OptionError
from evaluators.task import Task
from evaluators.tasks.options import TaskOptions, override

if TYPE_CHECKING:
    from types import ModuleType


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
    path, _, function = name.rpartition(":")
    module = _import(Path(path), name)
    if not callable(getattr(module, function, None)):
        own = [
            name
            for name, f in inspect.getmembers(module, inspect.isfunction)
            if f.__module__ == module.__name__
        ]
        near = difflib.get_close_matches(function, own, cutoff=0.5) or own
        hint = f"did you mean {' or '.join(near)}?" if near else "it has none."
        raise OptionError("task", name, f"{path} has no function {function!r}; {hint}")
    task = getattr(module, function)()
    if not isinstance(task, Task):
        raise OptionError("task", name, f"must return an evaluators.task.Task, got {type(task).__name__}.")
    return replace(task, recipe=override(task.recipe, options))


def _import(path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise OptionError("task", name, f"there is no file {path}.")
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"espalier_task_{digest}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Dataclasses and pickle look the module up by its name.
    sys.modules[spec.name] = module
    # Its neighbours can be imported, as when it is run as a script.
    sys.path.insert(0, str(path.resolve().parent))
    try:
        spec.loader.exec_module(module)
    except (ImportError, SyntaxError) as error:
        raise OptionError("task", name, f"can not be imported: {error}.") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
