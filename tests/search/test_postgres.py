"""A record in a real PostgreSQL server: the study of a journal, one driver, and no password anywhere."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import driver
import optuna
import postgres_server
import pytest
import torch
from fake_problem import make_encoding
from test_run_command import TASK

from evaluators.options import OptionError
from search.address import Address
from search.command import run_command
from search.config import RunConfig
from search.pick.__main__ import pick
from search.record import Record, read_evaluations
from search.report.__main__ import report
from search.run import run
from search.samplers import FixedSampler
from search.seeds import opening
from search.storage import storage_of
from search.study import Book

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from postgres_server import Server

    from search.postgres import Postgres

pytest.importorskip("psycopg")
pytestmark = pytest.mark.skipif(bool(postgres_server.missing()), reason=str(postgres_server.missing()))

PASSWORD = {"PGPASSWORD": postgres_server.PASSWORD}
KILLED = -signal.SIGKILL
FRESH = multiprocessing.get_context("forkserver")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres_server.running() as started:
        yield started


@pytest.fixture
def database(server: Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """A new, empty database; the password comes from the environment, as it may for users."""
    monkeypatch.setenv("PGPASSWORD", postgres_server.PASSWORD)
    return server.new_database()


@pytest.fixture
def url(server: Server, database: str) -> str:
    return server.url(database, password=None)


def storage(url: str, name: str = "run") -> Postgres:
    return storage_of(Path(name), RunConfig(storage=url, run_name=name))


# -- the same study ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def _forks() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        FRESH.set_forkserver_preload(["driver", "psycopg"])
        multiprocessing.forkserver.ensure_running()


@pytest.fixture
def drive(_forks: None) -> Callable[..., int]:
    def drive(folder: Path, url: str | None, kill: tuple[str, int] | None = None) -> int:
        process = FRESH.Process(target=driver.start, args=(folder, "12", 3, kill, url, PASSWORD))
        process.start()
        process.join()
        return process.exitcode

    return drive


def facts(folder: Path) -> tuple[dict, list]:
    front = json.loads((folder / "front.json").read_text())
    del front["seconds"]
    return front, read_evaluations(folder)


@pytest.fixture(scope="module")
def journal(tmp_path_factory: pytest.TempPathFactory, _forks: None) -> Path:
    folder = tmp_path_factory.mktemp("journal") / "run"
    process = FRESH.Process(target=driver.start, args=(folder, "12", 3, None, None, PASSWORD))
    process.start()
    process.join()
    assert process.exitcode == 0
    return folder


def trials(storage: optuna.storages.BaseStorage, name: str) -> list[tuple]:
    study = optuna.load_study(study_name=name, storage=storage)
    return [(t.number, t.state, t.values, list(t.params.items()), t.user_attrs) for t in study.trials]


def test_a_study_is_the_same_as_in_a_journal(drive, journal: Path, tmp_path: Path, url: str) -> None:
    folder = tmp_path / "run"
    assert drive(folder, url) == 0
    assert facts(folder) == facts(journal)
    assert not (folder / "study.journal").exists()
    kept, expected = storage(url), storage_of(journal, RunConfig())
    for rung in (1, 2, 3):
        assert kept.study_name(rung) == f"run:rung-{rung}"
        assert trials(kept.read(), f"run:rung-{rung}") == trials(expected.read(), f"rung-{rung}")


@pytest.mark.parametrize(
    ("point", "count"),
    [
        ("between-parameters", 18),
        ("after-ask", 3),
        ("between-result-and-tell", 7),
        ("at-promotion", 2),
        ("after-promotion", 3),
        ("in-evaluation", 14),
        ("in-evaluation", 25),
        ("before-report", 1),
    ],
)
def test_a_killed_run_ends_as_an_undisturbed_one(
    drive, journal: Path, tmp_path: Path, url: str, point: str, count: int
) -> None:
    folder = tmp_path / "run"
    assert drive(folder, url, (point, count)) == KILLED
    before = {record.evaluation for record in read_evaluations(folder)}
    assert drive(folder, url) == 0
    front, records = facts(folder)
    assert (front, records) == facts(journal)
    assert before <= {record.evaluation for record in records}
    calls = (folder / "calls.txt").read_text().splitlines()
    assert len(calls) - len(set(calls)) <= 1


def test_a_folder_that_moves_keeps_its_record(drive, journal: Path, tmp_path: Path, url: str) -> None:
    assert drive(tmp_path / "run", url, ("in-evaluation", 5)) == KILLED
    (tmp_path / "run").rename(tmp_path / "other")
    assert drive(tmp_path / "other", url) == 0
    assert facts(tmp_path / "other") == facts(journal)


def test_runs_share_a_database(drive, journal: Path, tmp_path: Path, url: str) -> None:
    for name in ("run", "again"):
        assert drive(tmp_path / name, url) == 0
    assert facts(tmp_path / "run") == facts(tmp_path / "again") == facts(journal)


# -- one driver -------------------------------------------------------------------------------------


def test_a_second_driver_is_refused_wherever_its_folder_is(url: str) -> None:
    with storage(url).lock():
        with pytest.raises(OptionError) as refused, storage(url).lock():
            pass
        with storage(url, "other").lock():
            pass
    assert str(refused.value) == (
        f"--storage {url}: another process drives the run run in this database; wait for it or stop it first."
    )
    with storage(url).lock():
        pass


def test_the_lock_of_a_killed_driver_is_free(drive, tmp_path: Path, url: str) -> None:
    assert drive(tmp_path / "run", url, ("in-evaluation", 2)) == KILLED
    with storage(url).lock():
        pass


def book_of(kept: Postgres) -> tuple[Book, FixedSampler]:
    encoding = make_encoding()
    seed = opening(encoding, 3, 0)[0]
    book = Book(kept.open(), encoding.distributions, kept.study_name)
    return book, FixedSampler(encoding.params(seed.architecture, seed.criterion))


LOST = (
    r"^--storage \S+: the record can not be written; what is done is kept, continue with --resume \(.+\)\.$"
)


def test_a_driver_whose_lock_is_lost_writes_nothing_more(server: Server, database: str, url: str) -> None:
    kept = storage(url)

    def work() -> None:
        book, sampler = book_of(kept)
        book.ask(sampler)
        server.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
        with storage(url).lock():
            pass
        book.ask(sampler)

    with pytest.raises(OptionError, match=LOST), kept.lock():
        work()
    assert server.execute("SELECT count(*) FROM trials", database) == [(1,)]


def test_a_connection_that_was_dropped_while_idle_is_made_again(
    server: Server, database: str, url: str
) -> None:
    kept = storage(url)
    with kept.lock():
        book, sampler = book_of(kept)
        book.ask(sampler)
        drop_all_but_locks(server, database)
        book.ask(sampler)
        assert book.num_proposals() == 2


def test_a_write_that_was_cut_off_is_not_made_twice(server: Server, database: str, url: str) -> None:
    """Optuna tries five times to make a trial; whether the first time did is not known to it."""
    kept = storage(url)

    def work() -> None:
        book, sampler = book_of(kept)
        server.execute(
            "CREATE FUNCTION cut() RETURNS trigger AS $$ BEGIN "
            "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW; END $$ LANGUAGE plpgsql; "
            "CREATE TRIGGER cut AFTER INSERT ON trials EXECUTE FUNCTION cut()",
            database,
        )
        book.ask(sampler)

    with pytest.raises(OptionError, match=LOST), kept.lock():
        work()
    # A sequence counts what was taken back, too.
    assert server.execute("SELECT last_value FROM trials_trial_id_seq", database) == [(1,)]


def drop_all_but_locks(server: Server, database: str) -> None:
    server.execute(
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}' "
        "AND pid NOT IN (SELECT pid FROM pg_locks WHERE locktype = 'advisory')"
    )


def test_drivers_that_find_an_empty_database_at_once_both_make_its_tables(url: str) -> None:
    kept = [storage(url, f"run{i}") for i in range(4)]
    refused = []

    def prepare(one: Postgres) -> None:
        try:
            one.prepare()
        except OptionError as error:
            refused.append(error)

    threads = [threading.Thread(target=prepare, args=(one,)) for one in kept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert refused == []
    assert not any(one.exists() for one in kept)


# -- the commands -----------------------------------------------------------------------------------


@pytest.fixture
def call(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]):
    """Run a command in an empty folder, without a password; returns exit code, stdout and stderr."""
    assert database
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PGPASSWORD", raising=False)
    monkeypatch.setenv("PGPASSFILE", str(tmp_path / "none"))
    Path("stripes.py").write_text(TASK)

    def call(*arguments: str, command=run) -> tuple[int, str, str]:
        threads = torch.get_num_threads()
        task = ["--task", "stripes.py:stripes", "--device", "cpu"] if command is run else []
        try:
            code = run_command(command, "search.run", [*task, *arguments])
        finally:
            torch.set_num_threads(threads)
        return code, *capfd.readouterr()

    return call


def worth(folder: Path) -> list[Record]:
    records = read_evaluations(folder)
    return [replace(r, evaluation=replace(r.evaluation, seconds=0.0)) for r in records]


SETTINGS = ("--budget", "4", "--max-rung", "1", "--final", "2", "--criterion", "l1,l2")


def test_a_run_is_made_shown_extended_and_reported_without_a_password_in_any_file(
    call, server: Server, database: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = []

    def fine(*arguments: str, command=run) -> str:
        code, out, err = call(*arguments, command=command)
        assert (code, err) == (0, "")
        said.append(out)
        return out

    with_password = server.url(database)
    fine("--storage", with_password, *SETTINGS)
    folder = tmp_path / "runs" / "stripes"
    config = json.loads((folder / "config.json").read_text())
    assert (config["storage"], config["run_name"]) == (url, "stripes")
    assert not (folder / "study.journal").exists()

    assert "is finished" in fine("--resume", "--storage", with_password, *SETTINGS)
    fine("--resume", "--storage", with_password, "--budget", "6")
    monkeypatch.setenv("PGPASSWORD", postgres_server.PASSWORD)
    fine("--resume", "--budget", "9")
    fine("--out", "journal", *SETTINGS)
    for budget in ("6", "9"):
        fine("--resume", "--out", "journal", "--budget", budget)
    assert worth(folder) == worth(Path("journal"))

    reported = (folder / "front.csv").read_text()
    (folder / "front.csv").unlink()
    fine("runs/stripes", command=report)
    assert (folder / "front.csv").read_text() == reported
    monkeypatch.delenv("PGPASSWORD")
    fine("runs/stripes", "--max-macs", "95%", command=pick)
    code, out, err = call("runs/stripes", command=report)
    assert (code, out) == (2, "")
    assert re.fullmatch(
        rf"search\.run: runs/stripes: --storage {re.escape(url)}: this database can not be used \(.+\)\.\n",
        err,
    )

    for name in (postgres_server.PASSWORD, re.search(r":([^:@]+)@", with_password)[1]):
        assert not [
            path for path in folder.rglob("*") if path.is_file() and name.encode() in path.read_bytes()
        ]
        assert not any(name in out for out in said)
        stored = server.execute("SELECT value_json FROM trial_user_attributes", database)
        stored += server.execute("SELECT value_json FROM study_user_attributes", database)
        assert not any(name in value for (value,) in stored)


def test_another_database_is_another_setting(call, server: Server, database: str, url: str) -> None:
    assert call("--storage", server.url(database), *SETTINGS)[0] == 0
    other = server.url("postgres")
    code, _, err = call("--resume", "--storage", other)
    assert code == 2
    assert f"--storage was {url}, is {server.url('postgres', password=None)}" in err
    assert call("--out", "journal", *SETTINGS)[0] == 0
    code, _, err = call("--resume", "--out", "journal", "--storage", server.url(database))
    assert code == 2
    assert f"--storage was None, is {url}" in err
    # What the password is, is no setting.
    assert call("--resume", "--storage", server.url(database, password="old"))[0] == 2
    assert call("--resume", "--storage", server.url(database))[0] == 0


def test_a_name_that_the_database_has_already_is_refused(
    call, server: Server, database: str, url: str
) -> None:
    with_password = server.url(database)
    assert call("--storage", with_password, *SETTINGS)[0] == 0
    code, out, err = call("--storage", with_password, "--out", "elsewhere/stripes", *SETTINGS)
    assert (code, out) == (2, "")
    assert err == (
        f"search.run: --out elsewhere/stripes: {url} has a run stripes already; "
        "name another folder, or --resume.\n"
    )
    assert not Path("elsewhere").exists()


def test_a_run_that_another_process_drives_is_refused(
    call, server: Server, database: str, monkeypatch
) -> None:
    monkeypatch.setenv("PGPASSWORD", postgres_server.PASSWORD)
    url = server.url(database, password=None)
    with storage(url, "stripes").lock():
        code, out, err = call("--storage", url, *SETTINGS)
    assert (code, out) == (2, "")
    assert err.startswith(f"search.run: --storage {url}: another process drives the run stripes")
    assert not Path("runs").exists()


def test_what_can_not_be_used_is_one_line_and_nothing_is_written(
    call, server: Server, database: str, tmp_path: Path
) -> None:
    free = postgres_server._free_port()
    server.execute(
        f"CREATE ROLE guest LOGIN PASSWORD '{postgres_server.PASSWORD}'; "
        f"REVOKE CREATE ON DATABASE {database} FROM PUBLIC"
    )
    server.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC", database)
    cases = {
        server.url(database).replace(str(server.port), str(free)): "Connection refused",
        server.url("nothing"): 'database "nothing" does not exist',
        server.url(
            database, password="Falsch"
        ): f'password authentication failed for user "{postgres_server.USER}"',
        server.url(database, password=None): "no password supplied",
        server.url(database, user="guest"): "permission denied for schema public",
        server.url(database) + "?sslmode=perhaps": 'invalid sslmode value: "perhaps"',
        server.url(database) + "?color=red": 'invalid URI query parameter: "color"',
    }
    for url, reason in cases.items():
        code, out, err = call("--storage", url, *SETTINGS)
        assert (code, out) == (2, ""), url
        assert err.startswith(
            f"search.run: --storage {Address.parse(url).url}: this database can not be used ("
        )
        assert reason in err
        assert err.count("\n") == 1
        assert postgres_server.PASSWORD not in err
        assert "Falsch" not in err
        if "permission" not in reason:
            assert call("--dry-run", "--storage", url, *SETTINGS) == (2, "", err)
    assert {path.name for path in tmp_path.iterdir()} <= {"stripes.py", "__pycache__"}
    assert server.execute("SELECT to_regclass('studies')", database) == [(None,)]


def test_without_psycopg_one_line_says_what_to_install(call, server: Server, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "search.postgres", raising=False)
    code, out, err = call("--storage", server.url("any"), *SETTINGS)
    assert (code, out) == (2, "")
    assert err == (
        f"search.run: --storage {server.url('any', password=None)}: needs psycopg: "
        "install it with pip install 'espalier-nas[postgres]'.\n"
    )


def test_tables_of_another_version_are_named(call, server: Server, database: str) -> None:
    assert call("--storage", server.url(database), *SETTINGS)[0] == 0
    server.execute("UPDATE alembic_version SET version_num = 'v3.0.0.d'", database)
    code, out, err = call("--storage", server.url(database), "--out", "new", *SETTINGS)
    assert (code, out) == (2, "")
    assert "optuna storage upgrade" in err
    assert err.count("\n") == 1
    assert not Path("new").exists()


def test_a_server_that_stops_ends_the_run_in_one_line_and_resume_goes_on(
    call, server: Server, database: str, monkeypatch
) -> None:
    original = Book.tell

    def cut(self: Book, *arguments: object) -> None:
        original(self, *arguments)
        if len(self.records(1)) == 2:
            server.execute(
                f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'"
            )

    with monkeypatch.context() as patch:
        patch.setattr(Book, "tell", cut)
        code, _, err = call("--storage", server.url(database), *SETTINGS)
    assert code == 1
    assert err.count("\n") == 1
    assert re.match(LOST, err.removeprefix("search.run: ").rstrip("\n"))
    assert call("--resume", "--storage", server.url(database))[0] == 0


def test_a_url_of_another_kind_is_refused(call, tmp_path: Path) -> None:
    code, out, err = call("--storage", "mysql://me:Geheim@host/db", *SETTINGS)
    assert (code, out) == (2, "")
    assert err == (
        "search.run: --storage mysql://...: must be postgresql://USER@HOST/DATABASE; "
        "without it, the record is a file of the run folder.\n"
    )
    assert {path.name for path in tmp_path.iterdir()} == {"stripes.py"}
