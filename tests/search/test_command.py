from __future__ import annotations

import errno
import os

import click
import pytest

from evaluators.options import OptionError
from search.command import run_command


@click.command()
@click.argument("what")
@click.option("--count", type=int)
def act(what, count):
    """Act."""
    if what == "refuse":
        raise OptionError("what", "'refuse'", "must not\nbe refused.")
    if what == "interrupt":
        raise KeyboardInterrupt
    if what in {"full", "closed", "gone"}:
        code = {"full": errno.ENOSPC, "closed": errno.EROFS, "gone": errno.ENOENT}[what]
        raise OSError(code, os.strerror(code), *(["runs/a/front.csv"] if what == "closed" else []))
    if what == "break":
        raise RuntimeError("a defect")
    if what == "fail":
        return 1
    click.echo(f"{what} {count}")
    return None


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        (["go", "--count", "x"], 2, "search.act: Invalid value for '--count': 'x' is not a valid integer.\n"),
        (["go", "--cuont", "1"], 2, "search.act: No such option '--cuont'. Did you mean '--count'?\n"),
        ([], 2, "search.act: Missing argument 'WHAT'.\n"),
        (["refuse"], 2, "search.act: --what 'refuse': must not be refused.\n"),
        (["full"], 1, "search.act: No space left on device; mend that, then call it again.\n"),
        (
            ["closed"],
            1,
            "search.act: runs/a/front.csv: Read-only file system; mend that, then call it again.\n",
        ),
        (["interrupt"], 1, "\nsearch.act: interrupted.\n"),
    ],
)
def test_what_a_user_can_mend_is_one_line(argv, code, said, capsys):
    assert run_command(act, "search.act", argv) == code
    assert capsys.readouterr() == ("", said)


def test_a_command_that_ends_well_is_silent_on_stderr(capsys):
    assert run_command(act, "search.act", ["go", "--count", "3"]) == 0
    assert capsys.readouterr() == ("go 3\n", "")


def test_a_command_may_name_its_exit_code():
    assert run_command(act, "search.act", ["fail"]) == 1


def test_help_names_the_module(capsys):
    assert run_command(act, "search.act", ["--help"]) == 0
    assert capsys.readouterr().out.startswith("Usage: python -m search.act [OPTIONS] WHAT")


def test_a_defect_propagates():
    with pytest.raises(RuntimeError, match="a defect"):
        run_command(act, "search.act", ["break"])
    with pytest.raises(FileNotFoundError):
        run_command(act, "search.act", ["gone"])
