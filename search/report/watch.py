"""Writes the report of a run again and again while the run goes on."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING

from search.config import CONFIG
from search.finish import FRONT
from search.journal import JOURNAL
from search.latencies import FILE as LATENCY
from search.report.data import NothingYetError, load_run
from search.report.words import significant
from search.report.write import write_run

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from search.report.data import Run

_WATCHED = (CONFIG, JOURNAL, FRONT, LATENCY)


def watch(
    folder: Path,
    every_seconds: float,
    say: Callable[[str], None],
    *,
    figures: bool = False,
    wait: Callable[[float], None] = time.sleep,
) -> None:
    """Write the report whenever the folder has changed, until the run is finished or Ctrl-C.

    Nothing is locked: the run may begin, die and be resumed meanwhile. The page loads itself again while this
    goes on.

    Args:
        folder: The run folder.
        every_seconds: Time between two looks.
        say: Is told a line each time.
        figures: As :func:`search.report.write.write_run`.
        wait: Sleeps.

    Raises:
        ValueError: If the folder holds no run, or a file of it is not what it should be.
    """
    run: Run | None = None
    seen: object = None
    try:
        while run is None or not run.is_finished:
            stamp = _stamp(folder)
            if stamp != seen or not (folder / JOURNAL).exists():  # a database has no time of its last change
                seen, run = stamp, _step(folder, run, every_seconds, say, figures=figures)
                if run is not None and run.is_finished:
                    return
            wait(every_seconds)
    except KeyboardInterrupt:
        if run is not None:
            write_run(replace(run, refresh_seconds=None))


def _step(
    folder: Path, before: Run | None, every_seconds: float, say: Callable[[str], None], *, figures: bool
) -> Run | None:
    """Read, and write unless nothing was added."""
    try:
        run = load_run(folder)
    except NothingYetError:
        say(f"{_now()}  nothing was evaluated yet")
        return None
    if before is not None and _extent(run) == _extent(before):
        return before
    run = replace(run, refresh_seconds=None if run.is_finished else every_seconds)
    write_run(run, figures=figures)
    counts = ", ".join(f"{name} {number}" for name, number in run.result.counts.items())
    state = "finished" if run.is_finished else f"looking again every {every_seconds:g} s"
    say(f"{_now()}  {counts}  {_reached(run)}  {state}")
    return run


def _reached(run: Run) -> str:
    """The hypervolume, which falls where a dearer rung begins."""
    rungs = {point.rung for point in run.result.points}
    where = f" on rung {max(rungs)}" if rungs else ""
    return f"hypervolume {significant(run.result.hypervolume.value)}{where}"


def _extent(run: Run) -> tuple[object, ...]:
    """What a report shows more of when it has grown."""
    history = run.history
    return (
        len(history.entries),
        len(history.failures),
        run.latencies,
        run.is_provisional,
        run.is_finished,
    )


def _stamp(folder: Path) -> tuple[tuple[int, int] | None, ...]:
    """Time and size of each file that a report is made of."""
    return tuple(map(_state, (folder / name for name in _WATCHED)))


def _state(path: Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_size


def _now() -> str:
    return datetime.now().astimezone().strftime("%H:%M:%S")
