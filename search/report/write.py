"""Writes the report's files, each whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import tempfile
from typing import TYPE_CHECKING

from search.report.data import CSV_FIELDS, csv_rows, load_run
from search.report.page import render_page
from search.report.picture import front_png

if TYPE_CHECKING:
    from pathlib import Path

    from search.report.data import Run
    from search.storage import Storage

#: What :func:`write_report` writes.
FILES = ("front.csv", "front.png", "report.html")


def write_report(folder: Path, storage: Storage | None = None) -> None:
    """Write ``front.csv``, ``front.png`` and ``report.html`` from the other files of a run folder.

    Args:
        folder: The run folder.
        storage: The run's record; found by ``config.json`` when ``None``.

    Raises:
        ValueError: If ``front.json`` is missing, or a file is not what it should be.
    """
    run = load_run(folder, storage)
    contents = (front_csv(run).encode(), front_png(run), render_page(run).encode())
    for name, content in zip(FILES, contents, strict=True):
        _replace(folder / name, content)


def front_csv(run: Run) -> str:
    """The front, then dominated finals, then controls, as comma-separated values."""
    rows = csv_rows(run)
    buffer = io.StringIO(newline="")
    columns = list(rows[0]) if rows else ["kind", *CSV_FIELDS]
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()


def _replace(path: Path, content: bytes) -> None:
    """Write beside the target and move it there in one step."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
