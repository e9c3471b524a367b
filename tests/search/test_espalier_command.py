"""Every command under one name, help that fits a screen, and completion in real shells."""

from __future__ import annotations

import re
import subprocess
from collections import Counter

import click
import pytest

from search.__main__ import COMMANDS, load, main
from search.command import run_command
from search.completion import completion_script
from search.run import _SECTIONS, run

#: Lines and columns of a terminal.
SCREEN = (50, 80)


def options_in(text: str) -> set[str]:
    return set(re.findall(r"(?m)^  (--[a-z0-9-]+)", text))


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("COLUMNS", str(SCREEN[1]))


@pytest.mark.parametrize("name", COMMANDS)
@pytest.mark.usefixtures("narrow")
def test_help_fits_a_screen_and_shows_examples(name: str, capsys) -> None:
    assert main([name, "--help"]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"Usage: espalier {name} ")
    assert len(text.splitlines()) <= SCREEN[0]
    assert max(map(len, text.splitlines())) <= SCREEN[1]
    assert f"python -m search.{name} " in text


@pytest.mark.usefixtures("narrow")
def test_all_options_are_shown_when_asked_for(capsys) -> None:
    assert run_command(run, "search.run", ["--budget", "nonsense", "--help-all"]) == 0
    every = {opt for p in run.params for opt in p.opts}
    assert options_in(capsys.readouterr().out) == every | {"--help", "--help-all"}
    assert run_command(run, "search.run", ["--help"]) == 0
    assert len(options_in(capsys.readouterr().out)) < len(every) / 2


def test_every_option_has_one_section() -> None:
    placed = Counter(name for names in _SECTIONS.values() for name in names)
    assert set(placed) == {p.name for p in run.params}
    assert set(placed.values()) == {1}


@pytest.mark.parametrize("command", ["report", "latency", "pick"])
def test_a_run_folder_without_a_name_is_refused(command: str, capsys) -> None:
    assert main([command, ""]) == 2
    assert capsys.readouterr().err == (
        f"search.{command}: Invalid value for 'RUN': '' names no file or folder.\n"
    )


def test_bad_input_is_told_as_by_the_module(capsys) -> None:
    assert main(["pick", "nowhere"]) == 2
    assert capsys.readouterr().err.startswith("search.pick: nowhere: ")
    assert main(["prune"]) == 2
    assert "prune" in capsys.readouterr().err


def completed(*words: str) -> list[str]:
    """What bash offers for the last word."""
    script = completion_script("bash", {name: load(name) for name in COMMANDS})
    typed = (
        f'COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}; _espalier; echo "${{COMPREPLY[@]}}"'
    )
    asked = subprocess.run(["bash", "-c", f"{script}\n{typed}"], capture_output=True, text=True, check=True)
    assert not asked.stderr
    return asked.stdout.split()


def test_bash_completes_commands_and_options() -> None:
    assert completed("espalier", "r") == ["run", "report"]
    assert completed("espalier", "run", "--bud") == ["--budget"]
    assert completed("espalier", "pick", "--bud") == []
    assert completed("espalier", "completion", "f") == ["fish"]
    assert completed("espalier", "run", "-") == [
        name for p in run.get_params(click.Context(run)) for name in p.opts if name.startswith("--")
    ]


def test_fish_quotes_what_it_is_told() -> None:
    command = click.Command("x", params=[click.Option(["--odd"], help="It's `$(false)`. More.")])
    lines = completion_script("fish", {"x": command}).splitlines()
    assert lines[-2].endswith("""-l odd -r -d 'It'"'"'s `$(false)`'""")
