"""The record of a run in a PostgreSQL database, which runs of many folders and machines may share."""

from __future__ import annotations

import contextlib
import hashlib
import os
from typing import TYPE_CHECKING, Any

import psycopg
import sqlalchemy
from optuna.exceptions import StorageInternalError
from optuna.storages import RDBStorage
from psycopg.conninfo import conninfo_to_dict

from evaluators.options import OptionError
from search.command import CutOffError
from search.journal import RUNGS, study_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    from optuna.storages import BaseStorage
    from sqlalchemy.engine import ExceptionContext

    from search.address import Address

#: Parameters of libpq where the address names none. A driver that trains for hours is idle meanwhile.
_DEFAULTS = {
    "connect_timeout": 5,
    "keepalives_idle": 30,
    "keepalives_interval": 10,
    "keepalives_count": 3,
    "fallback_application_name": "espalier",
}

#: What a stranger may say of a database. Other parameters write files, name those that hold secrets, or pass
#: credentials on.
_HARMLESS = frozenset(
    {
        *("host", "hostaddr", "port", "user", "dbname", "connect_timeout", "application_name"),
        *("sslmode", "sslrootcert", "channel_binding", "target_session_attrs"),
    }
)

#: The server's half of the same: it frees the lock of a machine that lost its power within a minute.
_SESSION = "SELECT " + ", ".join(
    f"set_config('tcp_keepalives_{name}', '{value}', false)"
    for name, value in (("idle", 30), ("interval", 10), ("count", 3))
)

#: The server needs moments to see that a driver was killed.
_LOCK_TIMEOUT = "SET lock_timeout = '3s'"

#: From this version on, a server may end idle sessions, and with them a lock.
_ENDS_IDLE_SESSIONS = 14_00_00

_CUT_OFF = "the record can not be written; what is done is kept, continue with --resume"


class Postgres:
    """Implements :class:`search.storage.Storage`.

    Args:
        address: The database. Nothing secret of it is kept in a URL, so none can be in a message.
        run: Name of the run, the same wherever its folder is.
        wary: Whether somebody else may have chosen the address. Of its parameters only those that say where
            the database is count then, and nothing that asks for a password in plain text is told one, unless
            ``PGREQUIREAUTH`` allows it.
    """

    def __init__(self, address: Address, run: str, *, wary: bool = False) -> None:
        self._address, self._run, self._wary = address, run, wary
        self._lock: psycopg.Connection[Any] | None = None
        self._opened: list[RDBStorage] = []
        self._is_lost = False

    def study_name(self, rung: int) -> str:
        """As :meth:`search.storage.Storage.study_name`."""
        return f"{self._run}:{study_name(rung)}"

    def exists(self) -> bool:
        """As :meth:`search.storage.Storage.exists`."""
        with self._refusing(), self._connect() as connection:
            if connection.execute("SELECT to_regclass('studies')").fetchone() == (None,):
                return False
            names = [self.study_name(rung) for rung in RUNGS]
            found = connection.execute("SELECT 1 FROM studies WHERE study_name = ANY(%s)", (names,))
            return found.fetchone() is not None

    def prepare(self) -> None:
        """As :meth:`search.storage.Storage.prepare`: Optuna's tables are made."""
        self._with_tables().engine.dispose()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """As :meth:`search.storage.Storage.lock`.

        It belongs to a session of the server, so a pooler in between must not share sessions.
        """
        with contextlib.ExitStack() as stack:
            with self._refusing():
                self._lock = stack.enter_context(self._connect())
                self._take(self._lock)
            stack.callback(self._let_go)
            with self._refusing(_CUT_OFF, CutOffError):
                yield

    def open(self) -> BaseStorage:
        """As :meth:`search.storage.Storage.open`."""
        assert self._lock is not None
        storage = self._with_tables()
        self._opened.append(storage)
        sqlalchemy.event.listen(storage.engine, "handle_error", self._note_loss)
        sqlalchemy.event.listen(storage.engine, "checkout", self._check_lock)
        return storage

    def read(self) -> BaseStorage:
        """As :meth:`search.storage.Storage.read`."""
        return self._rdb(skip_table_creation=True, poolclass=sqlalchemy.pool.NullPool)

    def _with_tables(self) -> RDBStorage:
        with self._refusing(), self._connect() as connection:
            # Drivers of other runs may find the same database empty.
            connection.execute("SELECT pg_advisory_lock(%s)", (_key("tables"),))
            return self._rdb(skip_table_creation=False, pool_pre_ping=True)

    def _rdb(self, *, skip_table_creation: bool, **options: Any) -> RDBStorage:
        options |= {"connect_args": self._parameters(), "hide_parameters": True}
        with self._refusing():
            try:
                return RDBStorage("postgresql+psycopg://", options, skip_table_creation=skip_table_creation)
            except RuntimeError as error:
                # Optuna's tables are of another version; its message says which, and what to do.
                raise OptionError("storage", self._address.url, str(error)) from None

    def _parameters(self) -> dict[str, Any]:
        named = conninfo_to_dict(self._address.url)
        if self._wary:
            named = {name: value for name, value in named.items() if name in _HARMLESS}
            named["require_auth"] = os.environ.get("PGREQUIREAUTH", "!password")
        return {**_DEFAULTS, **named, **self._address.secrets}

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(autocommit=True, **self._parameters())

    def _take(self, connection: psycopg.Connection[Any]) -> None:
        connection.execute(_SESSION)
        if connection.info.server_version >= _ENDS_IDLE_SESSIONS:
            connection.execute("SET idle_session_timeout = 0")
        connection.execute(_LOCK_TIMEOUT)
        try:
            connection.execute("SELECT pg_advisory_lock(%s)", (_key(f"run {self._run}"),))
        except psycopg.errors.LockNotAvailable:
            raise OptionError(
                "storage",
                self._address.url,
                f"another process drives the run {self._run} in this database; wait for it or stop it first.",
            ) from None

    def _let_go(self) -> None:
        for storage in self._opened:
            storage.engine.dispose()
        self._opened.clear()
        self._lock = None

    def _check_lock(self, *_: object) -> None:
        """Before each transaction: without the lock, another driver may be at work."""
        assert self._lock is not None
        with self._refusing(_CUT_OFF, CutOffError):
            if self._is_lost:
                raise psycopg.OperationalError("the connection was lost")
            self._lock.execute("SELECT 1")

    def _note_loss(self, context: ExceptionContext) -> None:
        """What was cut off may be on record or not. Optuna would try again; only a new driver can tell."""
        if context.is_disconnect and not context.is_pre_ping:
            self._is_lost = True

    @contextlib.contextmanager
    def _refusing(
        self, what: str = "this database can not be used", kind: type[OptionError] = OptionError
    ) -> Iterator[None]:
        """One line in the place of what the server, psycopg or SQLAlchemy say on many."""
        try:
            yield
        except (psycopg.Error, sqlalchemy.exc.SQLAlchemyError, StorageInternalError) as error:
            raise kind("storage", self._address.url, f"{what} ({_cause(error)}).") from None


def _key(name: str) -> int:
    """Of an advisory lock: eight bytes, signed."""
    return int.from_bytes(hashlib.sha256(f"espalier {name}".encode()).digest()[:8], "big", signed=True)


def _cause(error: BaseException) -> str:
    """First line of what the server said."""
    while (inner := getattr(error, "orig", None) or error.__cause__) is not None:
        error = inner
    lines = str(error).splitlines()
    return lines[0].strip().rstrip(".") if lines else type(error).__name__
