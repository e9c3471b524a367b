"""A function in a user's own Python file, named ``path/to/file.py:function``."""

from __future__ import annotations

import difflib
import hashlib
import importlib.util
import inspect
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType


def load_function(option: str, name: str) -> Callable[[], Any]:
    """Import the file and find the function.

    Args:
        option: The option that names it, for messages.
        name: ``path/to/file.py:function``.

    Raises:
        OptionError: If the file or the function is missing, or the file can not be imported.
    """
    path, _, function = name.rpartition(":")
    module = _import(option, Path(path), name)
    found = getattr(module, function, None)
    if callable(found):
        return found  # type: ignore[no-any-return]
    own = [
        other
        for other, f in inspect.getmembers(module, inspect.isfunction)
        if f.__module__ == module.__name__
    ]
    near = difflib.get_close_matches(function, own, cutoff=0.5) or own
    hint = f"did you mean {' or '.join(near)}?" if near else "it has none."
    raise OptionError(option, name, f"{path} has no function {function!r}; {hint}")


def _import(option: str, path: Path, name: str) -> ModuleType:
    if not path.is_file():
        raise OptionError(option, name, f"there is no file {path}.")
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
        raise OptionError(option, name, f"can not be imported: {error}.") from error
    finally:
        sys.path.remove(str(path.resolve().parent))
    return module
