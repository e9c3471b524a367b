"""``python -m search.inspect``: what it prints, what it writes, and what it refuses."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import torch
from inspected import MACS, PARAMS, inspection
from rich.console import Console

from search.command import run_command
from search.inspect import busy
from search.inspect.__main__ import inspect
from search.inspect.document import document
from search.inspect.table import print_inspection
from search.inspect.words import summary_lines
from spaces.attributes import Attribute, Mend

NETWORK = """
import warnings

import torch
from torch import nn


def network():
    print("hello from the network's file")
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 4, 3), nn.Flatten(), nn.Linear(64, 2))


def with_inputs():
    return network(), torch.zeros(1, 3, 8, 8)


def tokens():
    return nn.Sequential(nn.Embedding(100, 8), nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 2))


def number():
    return 3


class Warns(nn.Sequential):
    def forward(self, x):
        warnings.warn("beware")
        return super().forward(x)


def warns():
    return Warns(nn.Linear(3, 8), nn.Linear(8, 2)), torch.zeros(1, 3)
"""


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run the command in an empty folder; returns exit code, stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(NETWORK)

    def call(*arguments: str) -> tuple[int, str, str]:
        return run_command(inspect, "search.inspect", list(arguments)), *capsys.readouterr()

    return call


def written(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name not in ("mine.py", "__pycache__"))


# -- the table ------------------------------------------------------------------------------------


def table(found) -> list[str]:
    console = Console(file=StringIO(), width=140)
    print_inspection(console, found)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


def test_the_table_has_groups_reasons_and_what_can_be_reached():
    lines = table(inspection())
    assert lines[0] == "residual: 50.8 k MACs for 1x3x8x8, 882 parameters"
    assert lines[1] == (
        "2 groups, 10^1.4 architectures; down to 11% of the MACs (5.78 k) and 14% of the parameters (120)"
    )
    assert lines[2] == "traced in 1.5 s; every group keeps at least 20% of its units"
    assert "stem 8 2 channel 100% 99% yes 2 layers: stem, conv2" in lines
    assert "conv1 4 1 channel 73% 65% yes" in lines
    assert "output of the model 10 head" in lines
    assert not any("not exact" in line for line in lines)


def test_the_table_says_where_something_was_frozen_and_what_is_not_exact():
    found = inspection()
    frozen = replace(
        found.frozen[0],
        reason="read at a fixed place",
        operator="aten.select.int",
        module="a.b",
        line="c.py:3",
    )
    groups = (replace(found.groups[0], exact=False), found.groups[1])
    lines = table(replace(found, frozen=(frozen,), groups=groups, warnings=("beware\nof this",)))
    assert "read at a fixed place aten.select.int in a.b at c.py:3 10 head" in lines
    assert "stem 8 2 channel 100% 99% no 2 layers: stem, conv2" in lines
    assert any(line.startswith("not exact: ") for line in lines)
    assert "warning: beware of this" in lines


def test_settings_that_narrow_the_space_are_repeated():
    settings = {
        "divisor": 8,
        "smallest": 0.0,
        "include": (),
        "exclude": ("a*", "b"),
        "ignore": ("c",),
        "divisor_of": {"d.*": 16},
        "smallest_of": {"e": 0.5},
    }
    said = table(replace(inspection(), settings=settings))[2]
    assert said.endswith(
        "widths are multiples of 8; exclude a* b; ignore c; divisor of d.* is 16; smallest of e is 0.5"
    )


def test_foreign_text_can_not_steer_the_terminal():
    found = replace(inspection(), model="a\x1b[2Jb", warnings=("[bold]x[/bold]\x1b[2J",))
    said = "\n".join(table(found))
    assert "\x1b" not in said
    assert "[bold]x[/bold]" in said


# -- the document ---------------------------------------------------------------------------------


def test_the_document_has_these_keys():
    found = json.loads(json.dumps(document(inspection())))
    assert list(found) == [
        "schema",
        "model",
        "inputs",
        "settings",
        "trace_seconds",
        "dense",
        "smallest",
        "log10_architectures",
        "groups",
        "mends",
        "frozen",
        "layers",
        "other_macs",
        "warnings",
    ]
    assert (found["schema"], found["dense"]) == (1, {"macs": MACS, "params": PARAMS})
    assert found["smallest"]["macs_share"] == pytest.approx(found["smallest"]["macs"] / MACS)
    assert found["groups"][1] == {
        "name": "conv1",
        "width": 4,
        "unit": "channel",
        "unit_channels": 1,
        "step": 1,
        "smallest": 1,
        "choices": 4,
        "exact": True,
        "layers": ["conv1"],
        "readers": ["conv2"],
        "macs_share": pytest.approx(36864 / MACS),
        "params_share": pytest.approx(576 / PARAMS),
    }
    assert found["frozen"] == [
        {
            "name": "head",
            "width": 10,
            "reason": "output of the model",
            "operator": None,
            "module": None,
            "line": None,
        }
    ]
    assert found["layers"][2]["parts"] == {"stem": 8}
    assert found["layers"][3]["stays"] == 10


# -- the command ----------------------------------------------------------------------------------


def test_a_built_in_network_is_shown(call, tmp_path):
    code, out, err = call("--model", "digits", "--divisor", "2")
    assert (code, err) == (0, "")
    assert out.startswith("digits: 189 k MACs for 1x1x8x8, ")
    assert "blocks.0.conv1" in out
    assert "widths are multiples of 2" in out
    assert written(tmp_path) == []


def test_json_is_all_that_stdout_gets(call):
    code, out, err = call("--model", "mine.py:network", "--input", "1x3x8x8", "--json", "--smallest", "0")
    found = json.loads(out)
    assert code == 0
    assert "hello" in err
    assert (found["model"], found["inputs"]) == ("mine.py:network", ["1x3x8x8"])
    assert {group["name"]: group["smallest"] for group in found["groups"]} == {"0": 1, "2": 1}


def test_a_file_may_return_inputs_and_an_option_replaces_them(call):
    assert json.loads(call("--model", "mine.py:with_inputs", "--json")[1])["inputs"] == ["1x3x8x8"]
    code, out, _ = call("--model", "mine.py:tokens", "--input", "1x5:int64", "--json")
    assert (code, json.loads(out)["inputs"]) == (0, ["1x5:int64"])


def test_warnings_of_the_model_are_not_repeated(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        code, out, err = call("--model", "mine.py:warns")
    assert (code, err, caught) == (0, "", [])
    assert "1 group" in out


def test_options_narrow_the_space(call):
    narrow = ("--exclude", "0", "--divisor-of", "*=2", "--divisor-of", "2=4", "--smallest", "0")
    _, out, _ = call("--model", "mine.py:with_inputs", *narrow, "--json")
    (group,) = json.loads(out)["groups"]
    assert (group["name"], group["step"], group["smallest"]) == ("2", 4, 4)
    _, out, _ = call("--model", "mine.py:with_inputs", "--smallest-of", "0=0.5", "--ignore", "4", "--json")
    (group,) = json.loads(out)["groups"]
    assert (group["name"], group["smallest"]) == ("0", 4)


def test_the_network_of_a_task_has_the_divisor_of_the_task(call):
    code, out, _ = call("--task", "digits", "--json")
    assert (code, json.loads(out)["settings"]["divisor"]) == (0, 1)


@pytest.mark.parametrize("ending", ["svg", "png", "html"])
def test_a_picture_is_written_beside_the_table(call, tmp_path, ending):
    code, out, err = call("--model", "digits", "--picture", f"space.{ending}")
    assert (code, err) == (0, "")
    assert out.endswith(f"picture: space.{ending}\n")
    assert written(tmp_path) == [f"space.{ending}"]
    start = Path(f"space.{ending}").read_bytes()[:8]
    assert start.startswith({"svg": b"<svg", "png": b"\x89PNG", "html": b"<!doc"}[ending])


def test_weights_are_loaded_and_never_run(call):
    torch.save({"state_dict": {"0.weight": torch.zeros(1)}}, "wrong.pt")
    code, _, err = call("--model", "mine.py:with_inputs", "--weights", "wrong.pt")
    assert code == 2
    assert "search.inspect: --weights wrong.pt: does not fit the model: missing: 0.bias" in err
    torch.save(print, "code.pt")
    code, _, err = call("--model", "digits", "--weights", "code.pt")
    assert code == 2
    assert "--weights code.pt: " in err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "--model is missing: name one, such as resnet20 or torchvision:resnet50, or a task with --task.",
        ),
        (["--model", "resnet50"], "--model 'resnet50': unknown model; did you mean torchvision:resnet50?"),
        (
            ["--model", "mine.py:netwrok"],
            "--model mine.py:netwrok: mine.py has no function 'netwrok'; did you",
        ),
        (["--model", "none.py:network"], "--model none.py:network: there is no file none.py."),
        (["--model", "mine.py:network"], "--input is missing: name the shapes that mine.py:network takes"),
        (["--model", "mine.py:number"], "--model mine.py:number: must return a module, or a module and its"),
        (["--model", "digits", "--input", "1y3"], "--input '1y3': must be sizes such as 1x3x224x224;"),
        (["--model", "digits", "--input", "1x3x8x8"], "--model digits: The model does not run"),
        (["--task", "digits", "--input", "1x3"], "--input '1x3': is decided by the task, digits."),
        (["--task", "digts"], "--task 'digts': unknown task; did you mean digits?"),
        (["--model", "digits", "--data-root", "d"], "--data-root d: is read with --task only."),
        (["--model", "digits", "--divisor", "0"], "--divisor 0: must be at least 1."),
        (["--model", "digits", "--smallest", "2"], "--smallest 2.0: must be between 0 and 1."),
        (
            ["--model", "digits", "--divisor-of", "a"],
            "--divisor-of 'a': must be PATTERN=N with a whole number",
        ),
        (["--model", "digits", "--smallest-of", "a=2"], "--smallest-of 'a=2': must be PATTERN=SHARE"),
        (["--model", "digits", "--picture", "a.jpg"], "--picture a.jpg: must end in .svg, .png, .html."),
        (["--model", "digits", "--picture", "no/a.png"], "--picture no/a.png: no is no folder that can be"),
        (["--model", "digits", "--picture", ""], "'--picture': '' names no file or folder."),
        (["--model", "resnet20", "--weights", ""], "'--weights': '' names no file or folder."),
        (["--task", "digits", "--data-root", ""], "'--data-root': '' names no file or folder."),
        (["--modle", "digits"], "No such option '--modle'"),
    ],
    ids=lambda value: " ".join(value) or "nothing" if isinstance(value, list) else "",
)
def test_bad_input_is_one_line_with_exit_code_2_and_nothing_is_written(call, tmp_path, arguments, message):
    picture = [] if "--picture" in arguments else ["--picture", "space.png"]
    code, out, err = call(*arguments, *picture)
    assert (code, out.replace("hello from the network's file\n", "")) == (2, "")
    assert err.startswith("search.inspect: ")
    assert message in err
    assert err.count("\n") == 1
    assert written(tmp_path) == []


def test_the_flags_are_these():
    flags = {name for parameter in inspect.params for name in parameter.opts}
    narrow = {
        "--divisor",
        "--smallest",
        "--include",
        "--exclude",
        "--ignore",
        "--divisor-of",
        "--smallest-of",
    }
    assert flags == narrow | {
        "--model",
        "--weights",
        "--input",
        "--task",
        "--data-root",
        "--json",
        "--picture",
    }


def test_help_has_examples(call):
    code, out, _ = call("--help")
    assert code == 0
    assert "python -m search.inspect --model torchvision:resnet50" in out


class _Terminal(StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_is_told_what_takes_long(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("sys.stderr", terminal := _Terminal())
    with busy.busy("loading"):
        pass
    assert "loading" not in terminal.getvalue()
    monkeypatch.setattr(busy, "_PATIENCE", 0.0)
    with busy.busy("tracing resnet"):
        pass
    assert "tracing resnet" in terminal.getvalue()


def test_a_log_is_told_nothing(monkeypatch):
    monkeypatch.setattr(busy, "_PATIENCE", 0.0)
    monkeypatch.setattr("sys.stderr", log := StringIO())
    with busy.busy("tracing resnet"):
        pass
    assert log.getvalue() == ""


def test_integers_that_follow_the_widths_are_told() -> None:
    found = replace(
        inspection(),
        mends=(
            Mend(Attribute("block", "heads"), 0, (("stem", 2),)),
            Mend(Attribute("head", "heads"), 1, (("stem", 1),)),
            Mend(Attribute("", "shape", 2), 0, (("conv1", 1),)),
        ),
    )
    line = "integers of its modules that follow the widths: heads of 2 modules, shape[2] of 1 module"
    assert line in summary_lines(found)
    assert document(found)["mends"][2] == {
        "module": "",
        "name": "shape",
        "index": 2,
        "fixed": 0,
        "per_unit": {"conv1": 1},
    }
    assert not any("integers" in text for text in summary_lines(inspection()))
