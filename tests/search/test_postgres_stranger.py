"""A run folder from a stranger names a database: it gets no password that libpq knows."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from evaluators.options import OptionError
from search.address import Address
from search.config import CONFIG
from search.postgres import Postgres
from search.storage import storage_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytest.importorskip("psycopg")

PASSWORD = "the reader's own"

#: PostgreSQL's protocol: a message is its kind, its length and its content.
NO_TLS = b"N"
ASK_FOR_THE_PLAIN_PASSWORD = b"R" + (8).to_bytes(4, "big") + (3).to_bytes(4, "big")


class Trap:
    """Poses as a server that asks everybody for the password in plain text, and notes what it is told."""

    def __init__(self, listener: socket.socket) -> None:
        self.told = b""
        self.callers = 0
        self._listener = listener
        self.url = f"postgresql://searcher@127.0.0.1:{listener.getsockname()[1]}/studies"

    def serve(self) -> None:
        while True:
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # the test is over
            with caller:
                caller.settimeout(10)
                self.callers += 1
                self._hear(caller)

    def _hear(self, caller: socket.socket) -> None:
        while first := caller.recv(4096):
            if len(first) == 8:  # whether it may be TLS or GSS
                caller.sendall(NO_TLS)
                continue
            caller.sendall(ASK_FOR_THE_PLAIN_PASSWORD)
            self.told += caller.recv(4096)
            return


@pytest.fixture
def trap(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trap]:
    monkeypatch.setenv("PGPASSWORD", PASSWORD)
    monkeypatch.delenv("PGREQUIREAUTH", raising=False)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        trap = Trap(listener)
        thread = threading.Thread(target=trap.serve)
        thread.start()
        yield trap
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def strangers(folder: Path, url: str) -> Path:
    (folder / CONFIG).write_text(json.dumps({"storage": url, "run_name": "run"}))
    return folder


@pytest.mark.parametrize("more", ["", "?require_auth=password"])
def test_a_database_that_a_file_names_is_told_no_password(trap: Trap, tmp_path: Path, more: str) -> None:
    record = storage_in(strangers(tmp_path, trap.url + more))
    with pytest.raises(OptionError, match="cleartext password"):
        record.exists()
    assert trap.callers
    assert trap.told == b""


def test_an_address_that_a_file_names_says_where_the_database_is_and_nothing_else(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    harmful = {
        "sslkeylogfile": victim,
        "gssdelegation": "1",
        "service": "mine",
        "passfile": victim,
        "sslkey": victim,
        "options": "-csearch_path%3Devil",
        "require_auth": "password",
    }
    asked = "&".join(f"{name}={value}" for name, value in harmful.items())
    record = storage_in(strangers(tmp_path, f"postgresql://u@db:5433/studies?sslmode=require&{asked}"))
    assert isinstance(record, Postgres)
    found = record._parameters()
    assert not (found.keys() - {"require_auth"}) & harmful.keys()
    assert found["require_auth"] == "!password"
    wanted = {"user": "u", "host": "db", "port": "5433", "dbname": "studies", "sslmode": "require"}
    assert found.items() >= wanted.items()


def test_the_reader_can_allow_it(trap: Trap, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGREQUIREAUTH", "password")
    with pytest.raises(OptionError):
        storage_in(strangers(tmp_path, trap.url)).exists()
    assert PASSWORD.encode() in trap.told


def test_a_database_that_the_user_names_is_told_what_it_asks_for(trap: Trap) -> None:
    with pytest.raises(OptionError):
        Postgres(Address.parse(trap.url), "run").exists()
    assert PASSWORD.encode() in trap.told
