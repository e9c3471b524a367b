"""A PostgreSQL server of its own: a new cluster in a temporary folder, on a free port of the loopback."""

from __future__ import annotations

import contextlib
import glob
import itertools
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

if TYPE_CHECKING:
    from collections.abc import Iterator

USER = "searcher"

#: Has what must be percent-encoded in an address.
PASSWORD = "Geheim@1/2?"

_DEBIAN = "/usr/lib/postgresql/*/bin"


class Server:
    """A running server.

    Args:
        port: Where it listens.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._numbers = itertools.count()

    def url(self, database: str, *, password: str | None = PASSWORD, user: str = USER) -> str:
        secret = f":{quote(password, safe='')}" if password else ""
        return f"postgresql://{user}{secret}@127.0.0.1:{self.port}/{database}"

    def execute(self, query: str, database: str = "postgres") -> list[tuple]:
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            found = connection.execute(query)
            return found.fetchall() if found.description else []

    def new_database(self) -> str:
        name = f"studies{next(self._numbers)}"
        self.execute(f"CREATE DATABASE {name}")
        return name


def missing() -> str | None:
    """Why no server can be started, if so."""
    if _binaries() is None:
        return f"PostgreSQL's initdb and pg_ctl are neither in PATH nor in {_DEBIAN}"
    if os.getuid() == 0 and not _has_user("postgres"):
        return "PostgreSQL does not run as root, and there is no user `postgres`"
    return None


@contextlib.contextmanager
def running() -> Iterator[Server]:
    """Start a server, and stop it at the end."""
    binaries = _binaries()
    assert binaries is not None
    folder = Path(tempfile.mkdtemp(prefix="espalier-postgres-"))
    password, data = folder / "password", folder / "data"
    password.write_text(PASSWORD)
    owner = {}
    if os.getuid() == 0:
        owner = {"user": "postgres", "group": pwd.getpwnam("postgres").pw_gid, "extra_groups": []}
        for path in (folder, password):
            shutil.chown(path, "postgres")

    def call(program: str, *arguments: str) -> None:
        command = [str(binaries / program), "-D", str(data), *arguments]
        done = subprocess.run(
            command, cwd=folder, capture_output=True, text=True, timeout=120, check=False, **owner
        )
        assert done.returncode == 0, done.stdout + done.stderr

    try:
        call("initdb", "-U", USER, f"--pwfile={password}", "--auth=scram-sha-256", "-E", "UTF8", "-N")
        port = _free_port()
        options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
        call("pg_ctl", "start", "-w", "-l", str(folder / "log"), "-o", options)
        try:
            yield Server(port)
        finally:
            call("pg_ctl", "stop", "-w", "-m", "fast")
    finally:
        shutil.rmtree(folder)


def _binaries() -> Path | None:
    folders = sorted(glob.glob(_DEBIAN), key=lambda path: float(Path(path).parent.name), reverse=True)
    found = shutil.which("initdb")
    candidates = [*map(Path, folders), *([Path(found).resolve().parent] if found else [])]
    return next((c for c in candidates if (c / "initdb").exists() and (c / "pg_ctl").exists()), None)


def _has_user(name: str) -> bool:
    with contextlib.suppress(KeyError):
        return pwd.getpwnam(name) is not None
    return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
