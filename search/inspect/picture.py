"""The file that ``--picture`` names: its ending decides the form."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from evaluators.options import OptionError
from search.inspect.layout import draw
from search.inspect.page import page
from search.inspect.png import png
from search.inspect.svg import svg
from search.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.inspect.inspection import Inspection

FORMS: dict[str, Callable[[Inspection], bytes]] = {
    ".svg": lambda found: svg(draw(found)).encode(),
    ".png": lambda found: png(draw(found)),
    ".html": lambda found: page(found).encode(),
}


def check_picture(path: Path) -> None:
    """Find out before the trace that a file can not be written.

    Raises:
        OptionError: If the ending is of no known form, or the folder is missing or closed.
    """
    if path.suffix not in FORMS:
        raise OptionError("picture", path, f"must end in {', '.join(FORMS)}.")
    if path.is_dir():
        raise OptionError("picture", path, "is a folder; name a file.")
    if not path.absolute().parent.is_dir() or not os.access(path.absolute().parent, os.W_OK):
        raise OptionError("picture", path, f"{path.parent} is no folder that can be written to.")


def write_picture(path: Path, found: Inspection) -> None:
    """Write the file, whole or not at all."""
    write_whole(path, FORMS[path.suffix](found))
