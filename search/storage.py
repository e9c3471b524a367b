"""Where a run keeps its record: the journal in its folder, or a PostgreSQL database."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

from evaluators.options import OptionError
from search.address import Address
from search.config import CONFIG, RunConfig
from search.journal import Journal

if TYPE_CHECKING:
    from contextlib import AbstractContextManager
    from pathlib import Path

    from optuna.storages import BaseStorage


class Storage(Protocol):
    """The record of one run. Every method raises ``OptionError`` where a user can mend what is wrong."""

    def study_name(self, rung: int) -> str:
        """Name of the study that keeps a rung."""

    def exists(self) -> bool:
        """Whether anything of this run is on record. Writes nothing."""

    def prepare(self) -> None:
        """Make what must be there before a run can begin, so that the first write does not fail later."""

    def lock(self) -> AbstractContextManager[None]:
        """Keep drivers with other folders and on other machines off this record; freed when this one dies."""

    def open(self) -> BaseStorage:
        """For the one driver, which holds the lock: what a killed driver left behind is mended."""

    def read(self) -> BaseStorage:
        """For readers. Only where it :meth:`exists`; writes nothing."""


def storage_of(folder: Path, config: RunConfig, address: Address | None = None) -> Storage:
    """The record of the run with these settings.

    Args:
        folder: The run folder; it need not exist yet.
        config: The run's settings.
        address: That of ``config.storage``, with a password; without one, libpq looks for it.

    Raises:
        OptionError: If what the record needs is not installed.
    """
    if config.storage is None:
        return Journal(folder)
    return _postgres(address or Address.parse(config.storage), config.run_name)


def storage_in(folder: Path) -> Storage:
    """The record of the run in ``folder``, for readers, as its ``config.json`` says; a journal without one.

    The folder may be a stranger's: a database that it names is told no password in plain text.

    Raises:
        ValueError: If ``config.json`` is no JSON object.
        OptionError: If what the record needs is not installed.
    """
    path = folder / CONFIG
    raw = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if not isinstance(raw, dict):
        raise ValueError(f"{CONFIG} must hold a JSON object.")
    named = {name: raw[name] for name in ("storage", "run_name") if name in raw}
    config = RunConfig(**named)
    if config.storage is None:
        return Journal(folder)
    return _postgres(Address.parse(config.storage), config.run_name, wary=True)


def _postgres(address: Address, run: str, *, wary: bool = False) -> Storage:
    try:
        from search.postgres import Postgres
    except ImportError:
        raise OptionError(
            "storage", address.url, "needs psycopg: install it with pip install 'espalier-nas[postgres]'."
        ) from None
    return Postgres(address, run, wary=wary)
