"""Writes the report's files, each whole or not at all."""

from __future__ import annotations

import dataclasses
import os
import tempfile
from typing import TYPE_CHECKING

from search.report.data import load_run
from search.report.page import render_page
from search.report.picture import front_png
from search.report.tables import front_csv

if TYPE_CHECKING:
    from pathlib import Path

    from search.report.data import Run
    from search.storage import Storage

#: What :func:`write_report` writes.
FILES = ("front.csv", "front.png", "report.html")


def write_report(folder: Path, storage: Storage | None = None, *, ends_run: bool = False) -> None:
    """Write ``front.csv``, ``front.png`` and ``report.html`` from the other files of a run folder.

    Args:
        folder: The run folder.
        storage: The run's record; found by ``config.json`` when ``None``.
        ends_run: Whether a driver writes it as its last deed, which the record does not say yet.

    Raises:
        ValueError: If ``front.json`` is missing, or a file is not what it should be.
    """
    run = load_run(folder, storage)
    write_run(dataclasses.replace(run, is_finished=True) if ends_run else run)


def write_run(run: Run) -> None:
    """Write the report of a run that was read."""
    contents = (front_csv(run).encode(), front_png(run), render_page(run).encode())
    for name, content in zip(FILES, contents, strict=True):
        replace(run.folder / name, content)


def replace(path: Path, content: bytes) -> None:
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
