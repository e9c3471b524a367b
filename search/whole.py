"""Files that appear whole or not at all, in folders that strangers may have prepared."""

from __future__ import annotations

import os
import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_whole(path: Path, content: bytes | str) -> None:
    """Write beside the target, under a name that nobody can foresee, and move it there in one step.

    Args:
        path: A link there is replaced, not followed.
        content: Text is written as UTF-8; lone surrogates, which JSON can name, as question marks.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
