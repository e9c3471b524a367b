"""Files in folders that strangers may have prepared: written whole or not at all, and read with care."""

from __future__ import annotations

import json
import os
import tempfile
from typing import TYPE_CHECKING, TypeVar

from search.interrupt import held_back

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Row = TypeVar("Row")


def read_rows(path: Path, schema: int, key: str, make: Callable[..., Row]) -> tuple[Row, ...]:
    """What a JSON file ``{"schema": ..., key: [{...}, ...]}`` lists; nothing where there is no such file.

    Args:
        path: The file.
        schema: Its version.
        key: Of the list.
        make: Takes an object's members as keyword arguments; may raise ``ValueError``.

    Raises:
        ValueError: If the file is not what it should be; names the file.
    """
    if not path.is_file():
        return ()
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        if raw["schema"] != schema:
            raise ValueError(f"`schema` must be {schema}")
        return tuple(make(**row) for row in raw[key])
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path.name} can not be read ({error})") from error


def write_whole(path: Path, content: bytes | str) -> None:
    """Write beside the target, under a name that nobody can foresee, and move it there in one step.

    Args:
        path: A link there is replaced, not followed.
        content: Text is written as UTF-8; lone surrogates, which JSON can name, as question marks.
    """
    if isinstance(content, str):
        content = content.encode("utf-8", errors="replace")
    with held_back():
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            os.unlink(temporary)
            raise
