"""Ctrl-C at every line of a write: the file is whole, nothing lies beside it, and Ctrl-C is heard."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from typing import TYPE_CHECKING, NamedTuple

import optuna
import pytest

import search.whole
from search.interrupt import held_back, stoppable
from search.journal import JOURNAL, open_journal
from search.whole import write_whole

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path
    from types import CodeType


class Outcome(NamedTuple):
    """Of one call: whether Ctrl-C came inside, and what the call raised."""

    struck: bool
    error: BaseException | None


def interrupted_at(line: int, module: str, call: Callable[[], object]) -> Outcome:
    """Make the call; Ctrl-C comes at its so manieth line of the module."""
    count = 0

    def trace(frame, event, _):
        nonlocal count
        if frame.f_code.co_filename != module:
            return None
        if event == "line":
            count += 1
            if count == line:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except BaseException as error:
        return Outcome(count >= line, error)
    finally:
        sys.settrace(before)
    return Outcome(count >= line, None)


def strike_everywhere(module: str, call: Callable[[], object], check: Callable[[], None]) -> int:
    """As often as the call has lines; the number of them."""
    line = 0
    while True:
        line += 1
        struck, error = interrupted_at(line, module, call)
        check()
        if not struck:
            assert error is None
            return line - 1
        assert type(error) is KeyboardInterrupt, f"line {line}: {error!r}"


def module_of(function: Callable[..., object]) -> str:
    code: CodeType = function.__code__
    return code.co_filename


def test_the_journal_is_whole_and_free_wherever_ctrl_c_comes(tmp_path: Path) -> None:
    storage = open_journal(tmp_path)
    study = optuna.create_study(storage=storage)
    written = iter(range(sys.maxsize))

    def check() -> None:
        assert [path.name for path in tmp_path.iterdir()] == [JOURNAL]
        assert (tmp_path / JOURNAL).read_bytes().endswith(b"\n")

    optuna_journal = module_of(optuna.storages.journal.JournalFileBackend.append_logs)
    lines = strike_everywhere(optuna_journal, lambda: study.set_user_attr("number", next(written)), check)
    assert lines > 20
    kept = optuna.load_study(study_name=study.study_name, storage=open_journal(tmp_path))
    assert kept.user_attrs["number"] == next(written) - 1


def test_a_file_is_written_whole_wherever_ctrl_c_comes(tmp_path: Path) -> None:
    target = tmp_path / "front.json"
    target.write_text("before")

    def check() -> None:
        assert [path.name for path in tmp_path.iterdir()] == [target.name]
        assert target.read_text() in ("before", "after")

    lines = strike_everywhere(
        module_of(search.whole.write_whole), lambda: write_whole(target, "after"), check
    )
    assert lines > 5
    assert target.read_text() == "after"


def test_ctrl_c_waits_through_nested_blocks_and_wins_over_an_error() -> None:
    steps = []

    def work() -> None:
        with held_back():
            with held_back():
                signal.raise_signal(signal.SIGINT)
                steps.append("inner")
            steps.append("outer")
            raise ValueError("an error of the block")

    with pytest.raises(KeyboardInterrupt) as raised:
        work()
    assert steps == ["inner", "outer"]
    assert isinstance(raised.value.__context__, ValueError)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_without_ctrl_c_an_error_of_the_block_is_its_own() -> None:
    with pytest.raises(ValueError, match="of the block"), held_back():
        raise ValueError("an error of the block")


def test_sigterm_waits_too_and_then_ends_the_block_as_ctrl_c_does() -> None:
    before = signal.getsignal(signal.SIGTERM)
    steps = []

    def write() -> None:
        with stoppable(), held_back():
            signal.raise_signal(signal.SIGTERM)
            steps.append("written")

    try:
        with pytest.raises(KeyboardInterrupt):
            write()
    finally:
        signal.signal(signal.SIGTERM, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)
    assert steps == ["written"]


def test_a_block_that_nothing_stops_leaves_the_handlers_as_they_were() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with stoppable():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


#: Is stopped, and struck again at once, and when nearly nothing of the process is left.
STOPPED = """
import atexit, signal, sys, search.interrupt
atexit.register(signal.raise_signal, signal.SIGINT)
if sys.argv[1] == "hangs":
    search.interrupt._PATIENCE_SECONDS = 0.0
try:
    with search.interrupt.stoppable():
        signal.raise_signal(signal.SIGTERM)
except KeyboardInterrupt:
    signal.raise_signal(signal.SIGINT)
    print("stopped", flush=True)
signal.raise_signal(signal.SIGINT)
sys.exit(1)
"""


@pytest.mark.parametrize(("how", "code", "said"), [("ends", 1, "stopped\n"), ("hangs", -signal.SIGINT, "")])
def test_only_a_stopped_process_that_hangs_is_killed_by_another_signal(
    how: str, code: int, said: str
) -> None:
    process = subprocess.run([sys.executable, "-c", STOPPED, how], capture_output=True, text=True)
    assert (process.returncode, process.stdout, process.stderr) == (code, said, "")


def test_a_forked_child_is_ended_by_sigterm_as_ever() -> None:
    script = """
import os, signal, time
from search.interrupt import stoppable
with stoppable():
    child = os.fork()
    if not child:
        os.write(1, b"child")
        try:
            time.sleep(60)
        finally:
            os._exit(7)
    while True:
        os.kill(child, signal.SIGTERM)
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            break
        time.sleep(0.01)
print(os.waitstatus_to_exitcode(status))
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert process.stdout.removeprefix("child") == f"{-signal.SIGTERM}\n", process.stderr


def test_a_write_is_finished_before_sigterm_kills() -> None:
    script = """
import signal
from search.interrupt import held_back
with held_back():
    signal.raise_signal(signal.SIGTERM)
    print("written", flush=True)
print("more")
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (process.returncode, process.stdout) == (-signal.SIGTERM, "written\n")


def test_other_threads_and_deaf_processes_change_nothing() -> None:
    def hold() -> None:
        with held_back():
            found.append(signal.getsignal(signal.SIGINT))

    found: list[object] = []
    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        hold()
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)
    assert found == [before, signal.SIG_IGN]
