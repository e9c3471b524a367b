"""Networks of a real run taken away: whole and checked, or not at all."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnxruntime
import pytest
import torch
import yaml
from made_run import make_point, make_result

from evaluators.export.verify import Verdict
from evaluators.models import DigitsCnn
from evaluators.tasks import TaskOptions, load_task
from search.command import run_command
from search.latencies import Measurement
from search.pick import take as taking
from search.pick.__main__ import pick
from search.pick.card import Card, write_card
from search.pick.columns import Columns, columns
from search.report.data import load_result
from search.run import run as search_run
from spaces import rebuild

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A search of digits without a final training; its numbers do not matter."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    settings = [
        "--budget",
        "6",
        "--max-rung",
        "1",
        "--epochs",
        "1",
        "--criterion",
        "l1",
        "--out",
        str(folder),
    ]
    assert run_command(search_run, "search.run", settings) == 0
    return folder


@pytest.fixture(scope="module")
def small(run):
    """The smallest network of the front in every format."""
    assert command(run, "--best", "macs", "--export", "architecture,onnx", "--export", "pt2,int8") == 0
    return run.with_name(f"digits-{load_result(run).points[0].id}")


def command(*argv):
    return run_command(pick, "search.pick", [str(word) for word in argv])


def test_every_file_is_there_and_nothing_else(run, small):
    assert sorted(path.name for path in small.iterdir()) == [
        "README.md",
        "architecture.json",
        "load.py",
        "model-int8.onnx",
        "model.onnx",
        "model.pt2",
        "weights.safetensors",
    ]
    assert sorted(path.name for path in small.parent.iterdir()) == ["digits", small.name]
    source = run / "architectures" / load_result(run).points[0].id / "weights.safetensors"
    assert (small / "weights.safetensors").read_bytes() == source.read_bytes()


def test_the_network_scores_on_test_what_the_report_says(run, small):
    """By our own count over the 600 test images, with neither the checks nor their loop."""
    task = load_task("digits", TaskOptions())
    task.test.unseal()
    model = rebuild(DigitsCnn(), small).eval()
    program = torch.export.load(small / "model.pt2").module()
    sessions = {name: onnxruntime.InferenceSession(small / f"model{name}.onnx") for name in ("", "-int8")}
    right = {"rebuilt": 0, "pt2": 0, "": 0, "-int8": 0}
    with torch.inference_mode():
        for images, targets in task.test:
            right["rebuilt"] += int((model(images).argmax(1) == targets).sum())
            right["pt2"] += int((program(images).argmax(1) == targets).sum())
            for name, session in sessions.items():
                (outputs,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
                right[name] += int((outputs.argmax(1) == targets.numpy()).sum())
    on_card = re.search(r"\| `model-int8.onnx` .* (\S+)% \|", (small / "README.md").read_text())[1]
    assert 100 * right.pop("-int8") / 600 == pytest.approx(float(on_card), abs=0.005)
    reported = load_result(run).points[0].saved_test
    assert {name: n / 600 for name, n in right.items()} == pytest.approx(dict.fromkeys(right, reported))


def test_the_card_says_what_a_hub_and_a_person_need(run, small):
    text = (small / "README.md").read_text()
    point = load_result(run).points[0]
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["library_name"] == "pytorch"
    assert front["metrics"] == ["accuracy"]
    assert "pruning" in front["tags"]
    assert f"| **these weights** | {100 * point.saved_test:.2f}% |" in text
    assert "| train | 797 |" in text
    assert "| holdout | 400 |" in text
    assert "| test | 600 |" in text
    assert "Licence of the weights: unknown to us" in text
    assert "re-fitted in closed form" in text
    cost = re.search(r"\*\*8 bits cost:\*\* (\S+) on test, (\S+)% after (\S+)% and", text)
    assert float(cost[2]) - float(cost[3]) == pytest.approx(
        float(cost[1].replace("\N{MINUS SIGN}", "-")), abs=0.02
    )
    assert "| `model-int8.onnx` | " in text
    assert cost[2] in next(line for line in text.splitlines() if line.startswith("| `model-int8.onnx`"))
    assert str(run) not in text
    assert "python -m search.run" in text
    command_ = text[text.index("python -m search.run") :]
    assert "--max-rung 1" in command_


def test_the_cards_code_loads_the_network(small, tmp_path):
    text = (small / "README.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 5
    batch = "import numpy\nbatch = numpy.zeros((3, 1, 8, 8), dtype=numpy.float32)\n"
    program = batch + "".join(block.replace("FOLDER", ".") for block in blocks)
    program += "import torch\nwith torch.inference_mode():\n    print(model(torch.zeros(3, 1, 8, 8)).shape)"
    copy = shutil.copytree(small, tmp_path / "copy")
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=copy,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "torch.Size([3, 10])\n", done.stderr


def test_one_format_alone_is_told_as_saved(run, tmp_path, capsys):
    point, target = load_result(run).points[0], tmp_path / "one"
    assert command(run, "--id", point.id, "--export", "pt2", "--to", target) == 0
    assert sorted(path.name for path in target.iterdir()) == ["README.md", "model.pt2"]
    (files,) = (line for line in capsys.readouterr().out.splitlines() if line.startswith("files "))
    assert files.split(maxsplit=1)[1] == str(target)


def test_a_users_own_script_goes_on_training(small, tmp_path):
    copy = shutil.copytree(small, tmp_path / "copy")
    script = ROOT / "scripts" / "finetune_exported.py"
    said = subprocess.run(
        [sys.executable, script, copy, "--epochs", "3"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout
    losses = [float(loss) for loss in re.findall(r"loss ([\d.]+)", said)]
    before, after = (float(share) for share in re.findall(r"([\d.]+)% of test right", said))
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < 0.8 * losses[0]
    assert before == pytest.approx(
        100 * load_result(small.with_name("digits")).points[0].saved_test, abs=0.01
    )
    assert after > before
    assert (copy / "finetuned.safetensors").is_file()


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def test_a_report_that_the_network_does_not_keep_fails_and_leaves_nothing(copy, tmp_path, capsys):
    result = load_result(copy)
    wrong = replace(result.points[0], saved_test=result.points[0].saved_test + 0.05)
    (copy / "front.json").write_text(replace(result, points=(wrong, *result.points[1:])).to_json())
    target = tmp_path / "new" / "small"
    assert command(copy, "--id", wrong.id, "--export", "onnx", "--to", target) == 1
    line = capsys.readouterr().err.splitlines()[-1]
    assert re.fullmatch(
        r"search\.pick: --export the network: scores [\d.]+ on test, where [\d.]+ was reported; is the data "
        r"what the run had\?; nothing was written\.",
        line,
    )
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_weights_that_are_damaged_fail_and_leave_nothing(copy, tmp_path, capsys):
    point = load_result(copy).points[0]
    weights = copy / "architectures" / point.id / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-40])
    assert command(copy, "--id", point.id, "--export", "onnx") == 2
    assert "weights.safetensors: not a safetensors file" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_an_interrupt_leaves_nothing(copy, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        assert len(list(tmp_path.rglob("model.onnx"))) == 1
        raise KeyboardInterrupt

    monkeypatch.setattr(taking, "verify", interrupt)
    target = tmp_path / "new" / "small"
    assert command(copy, "--best", "score", "--export", "onnx", "--to", target) == 1
    assert capsys.readouterr().err.endswith("search.pick: interrupted.\n")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_several_networks_go_to_a_folder_each(run, tmp_path):
    ids = [point.id for point in load_result(run).points[:2]]
    assert len(ids) == 2
    options = [word for id_ in ids for word in ("--id", id_)]
    assert command(run, *options, "--export", "onnx", "--to", tmp_path / "both") == 0
    found = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    assert found == {f"both/{id_}/{name}" for id_ in ids for name in ("README.md", "model.onnx")}


def test_a_target_that_is_there_or_can_not_be_is_refused(run, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    id_ = load_result(run).points[0].id
    assert command(run, "--id", id_, "--export", "onnx", "--to", tmp_path / "file") == 2
    assert (
        capsys.readouterr().err
        == f"search.pick: --to {tmp_path / 'file'}: is there already; name a new folder.\n"
    )
    assert command(run, "--id", id_, "--export", "pt2", "--to", tmp_path / "file" / "small") == 2
    assert "small: can not be written: " in capsys.readouterr().err


def test_a_card_names_no_folder_of_this_machine(tmp_path):
    point = make_point("c3", 480_000, 0.95)
    result = make_result(points=(point,))
    config = {
        "task": "/home/me/secret/task.py:make",
        "data_root": "/home/me/data",
        "weights": "/home/me/w.pt",
    }
    code = "import sys\nsys.path.insert(0, '/home/me/secret')\nfrom task import make\ndense = make().model"
    verdicts = {name: Verdict(0.0, 1.0, 0.9, None, None) for name in ("load.py", "weights.safetensors")}
    task = load_task("digits", TaskOptions())
    write_card(tmp_path, Card(columns(result), config, task, point, code, verdicts))
    text = (tmp_path / "README.md").read_text()
    assert "/home/me" not in text
    assert "sys.path.insert(0, 'path/to')" in text
    assert "--task path/to/task.py:make" in text


HOSTILE = (
    "<script>alert(1)</script>\n---\n# x | `y` ``` [z](http://e.vil) \N{RIGHT-TO-LEFT OVERRIDE}"
    + "e" * 10_000
)


def test_hostile_names_are_text_in_the_card(tmp_path):
    point = replace(make_point("c3", 480_000, 0.95), criteria={HOSTILE: HOSTILE}, widths={HOSTILE: 3})
    result = make_result(task=HOSTILE, metric=HOSTILE, points=(point,))
    m = Measurement("c3", "eager", HOSTILE, 1, 1, 1.0, 0.1, 0.5, 9, HOSTILE)
    known = Columns(result, columns(result).cells, (m,))
    task = load_task("digits", TaskOptions())
    config = {
        "task": HOSTILE,
        "criteria": [HOSTILE],
        "versions": {HOSTILE: HOSTILE},
        "recipe": {"lr": HOSTILE},
    }
    verdicts = {"load.py": Verdict(0.1, 1.0, 0.9, None, None)}
    write_card(tmp_path, Card(known, config, task, point, f"dense = {HOSTILE!r}\n{HOSTILE}", verdicts))
    text = (tmp_path / "README.md").read_text()
    front = yaml.safe_load(text.split("\n---\n")[0].removeprefix("---\n"))
    assert front["model_name"].startswith("<script>")
    body = text.split("\n---\n", 1)[1]
    outside, fence = [], ""
    for line in body.splitlines():
        opened = re.match(r"`{3,}", line)
        if opened and not fence:
            fence = opened[0]
        elif fence and line == fence:
            fence = ""
        elif not fence:
            outside.append(line)
    assert not fence
    words = "\n".join(outside)
    assert "<script" not in words
    assert not re.search(r"(?<!\\)\]\(http", words)
    assert max(map(len, outside)) < 2500
    assert "\N{RIGHT-TO-LEFT OVERRIDE}" not in text
    rows = [line for line in outside if line.startswith("|")]
    assert all(len(re.findall(r"(?<!\\)\|", row)) in (3, 4, 5) for row in rows)
    json.dumps(front)
