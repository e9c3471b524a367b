"""The files of a run folder that outlive a killed driver: the journal, its lock, the driver's own lock."""

from __future__ import annotations

import contextlib
import logging
import time
from typing import TYPE_CHECKING

import filelock
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from evaluators.options import OptionError
from search.interrupt import held_back

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

logger = logging.getLogger(__name__)

RUNGS = (1, 2, 3)

JOURNAL = "study.journal"
DRIVER_LOCK = "driver.lock"

#: An append holds the journal's lock for milliseconds; after this long its owner is dead.
_STALE_SECONDS = 1.0


@contextlib.contextmanager
def driver_lock(folder: Path) -> Iterator[None]:
    """Keep a second driver off the folder; the operating system frees it when this process dies.

    Raises:
        OptionError: If another process drives a run there.
    """
    lock = filelock.FileLock(folder / DRIVER_LOCK)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        raise OptionError(
            "out", folder, "another process is running there; wait for it or stop it first."
        ) from None
    try:
        yield
    finally:
        lock.release()


def study_name(rung: int) -> str:
    """Name of the study that keeps a rung."""
    return f"rung-{rung}"


class Journal:
    """Implements :class:`search.storage.Storage`: the journal in a run folder, under its :func:`driver_lock`.

    Args:
        folder: The run folder.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def study_name(self, rung: int) -> str:
        """As :meth:`search.storage.Storage.study_name`."""
        return study_name(rung)

    def exists(self) -> bool:
        """As :meth:`search.storage.Storage.exists`."""
        return (self._folder / JOURNAL).exists()

    def prepare(self) -> None:
        """As :meth:`search.storage.Storage.prepare`: nothing, the journal comes with the folder."""

    def lock(self) -> contextlib.AbstractContextManager[None]:
        """As :meth:`search.storage.Storage.lock`: nothing, the folder's lock is enough."""
        return contextlib.nullcontext()

    def open(self) -> JournalStorage:
        """As :meth:`search.storage.Storage.open`."""
        mend_journal(self._folder)
        return open_journal(self._folder)

    def read(self) -> JournalStorage:
        """As :meth:`search.storage.Storage.read`."""
        return open_journal(self._folder)


def open_journal(folder: Path) -> JournalStorage:
    """The run's record; a torn last line is left out. Mend the journal before the first write."""
    return JournalStorage(_Backend(str(folder / JOURNAL)))


class _Backend(JournalFileBackend):
    """Optuna's, where Ctrl-C neither tears a line nor meets the lock half released."""

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        with held_back():
            super().append_logs(logs)


def mend_journal(folder: Path) -> None:
    """Remove what a killed driver left behind. Call it under :func:`driver_lock` only.

    Optuna's lock is a symbolic link that stays for 30 s after its owner's death, and an append that
    was cut short leaves half a line, to which the next append would be glued.
    """
    journal = folder / JOURNAL
    _remove_stale_lock(journal.with_name(JOURNAL + ".lock"))
    if journal.exists():
        _truncate_torn_line(journal)


def _remove_stale_lock(link: Path) -> None:
    """Remove the link if the very same one is still there after a while: dashboards write too."""
    try:
        first = link.lstat()
        deadline = time.monotonic() + _STALE_SECONDS
        while time.monotonic() < deadline:
            time.sleep(0.02)
            now = link.lstat()
            if (now.st_ino, now.st_ctime_ns) != (first.st_ino, first.st_ctime_ns):
                return
        link.unlink()
    except FileNotFoundError:
        return
    logger.info("removed the journal's lock, which a killed driver had left")


def _truncate_torn_line(journal: Path) -> None:
    content = journal.read_bytes()
    whole = content.rfind(b"\n") + 1
    if whole < len(content):
        logger.info("dropped %d bytes of an unfinished last line of the journal", len(content) - whole)
        with journal.open("r+b") as file:
            file.truncate(whole)
