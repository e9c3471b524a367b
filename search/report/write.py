"""Writes the report's files, each whole or not at all."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from search.report.data import load_run
from search.report.draw import draw
from search.report.page import render_page
from search.report.picture import front_png
from search.report.sections import sections
from search.report.tables import front_csv, table_csv
from search.whole import write_whole

if TYPE_CHECKING:
    from pathlib import Path

    from search.report.data import Run
    from search.report.section import Section
    from search.storage import Storage

#: What :func:`write_run` always writes, and the folders beside it.
FILES = ("front.csv", "front.png", "report.html")
TABLES = "tables"
FIGURES = "figures"


def write_report(folder: Path, storage: Storage | None = None, *, ends_run: bool = False) -> None:
    """Write :data:`FILES` and tables from the other files of a run folder.

    Args:
        folder: The run folder.
        storage: The run's record; found by ``config.json`` when ``None``.
        ends_run: Whether a driver writes it as its last deed, which the record does not say yet.

    Raises:
        ValueError: If a file or the record is missing, or not what it should be.
    """
    run = load_run(folder, storage)
    write_run(dataclasses.replace(run, is_finished=True) if ends_run else run)


def write_run(run: Run, *, figures: bool = False) -> None:
    """Write the report of a run that was read.

    Args:
        run: The run.
        figures: Whether to draw every chart as PNG and SVG too, which takes longer than all the rest: some
            two seconds for ten charts.
    """
    contents = sections(run)
    page: tuple[str | bytes, ...] = (front_csv(run), front_png(run), render_page(run, contents))
    for name, content in zip(FILES, page, strict=True):
        write_whole(run.folder / name, content)
    _write_tables(run.folder / TABLES, contents)
    if figures:
        _write_figures(run.folder / FIGURES, contents)


def _write_tables(folder: Path, contents: tuple[Section, ...]) -> None:
    folder.mkdir(exist_ok=True)
    for table in (table for section in contents for table in section.tables):
        write_whole(folder / f"{table.name}.csv", table_csv(table))


def _write_figures(folder: Path, contents: tuple[Section, ...]) -> None:
    folder.mkdir(exist_ok=True)
    for chart in (chart for section in contents for chart in section.charts):
        for name, content in draw(chart).items():
            write_whole(folder / f"{chart.name}.{name}", content)
