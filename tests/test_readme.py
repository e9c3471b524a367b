"""The README's words hold: options and files that it names are there, and its examples are run for real."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))

import run_readme

from evaluators.scratch import fresh
from evaluators.task import Task
from evaluators.user_code import load_function
from search.__main__ import COMMANDS, load

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
OPTIONS = {opt for name in COMMANDS for p in load(name).params for opt in p.opts}


def test_options_exist() -> None:
    named = set(re.findall(r"(?<![\w-])--[a-z][a-z0-9-]*", README)) - {"--help", "--help-all"}
    assert len(named) > 20
    assert named - OPTIONS == set()


def test_files_exist() -> None:
    named = re.findall(r"\b(?:scripts|evaluators|search|spaces)/[\w/.-]*\w", README)
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_scratch_training_of_the_own_model_draws_every_parameter() -> None:
    initialise = load_function("task", f"{ROOT}/scripts/own_model/task.py:initialise")
    model, x = initialise.__globals__["Hybrid"](), torch.zeros(1, 1, 8, 8)
    bare = Task("own", model, x, train=[], holdout=[], test=[])
    with pytest.raises(ValueError, match="position"):
        fresh(model, bare, 0)
    fresh(model, replace(bare, initialise=initialise), 0)


PRINTED = " group   width \n\n ───────\n stem.0     24 \n stem.3     48 \n"


@pytest.mark.parametrize(
    "shown",
    ["group width\n──\nstem.0 24", "...\nstem.3 ...", "stem.0 24\n...\nstem.3 48\n", "... width\n"],
)
def test_shown_lines_were_printed(shown: str) -> None:
    run_readme.require_shown(shown, PRINTED, any_number=False)


@pytest.mark.parametrize("shown", ["stem.0 25", "stem.3 48\nstem.0 24", "stem.0", "stem.0 24\nstem.0 24"])
def test_other_lines_are_refused(shown: str) -> None:
    with pytest.raises(SystemExit, match="was not printed"):
        run_readme.require_shown(shown, PRINTED, any_number=False)


def test_any_number_passes_where_it_may() -> None:
    run_readme.require_shown("stem.0 25.5", PRINTED, any_number=True)
    with pytest.raises(SystemExit, match="was not printed"):
        run_readme.require_shown("stem.a 25", PRINTED, any_number=True)


def test_a_changed_excerpt_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_readme, "ROOT", tmp_path)
    file = tmp_path / "task.py"
    file.write_text("def task():\n    return 1\n")
    run_readme.require_excerpt("    return 1\n", file)
    with pytest.raises(SystemExit, match=r"excerpt of task\.py"):
        run_readme.require_excerpt("    return 2\n", file)


def test_a_command_that_fails_stops_the_run(tmp_path: Path) -> None:
    assert run_readme.run("bash", "echo one\necho two\n", tmp_path) == "one\ntwo\n"
    with pytest.raises(SystemExit, match="exit code 3"):
        run_readme.run("bash", "exit 3 | cat\n", tmp_path)
