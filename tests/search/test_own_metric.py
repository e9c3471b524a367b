"""Where a task's metric is not top-1, nothing speaks of top-1: terminal, page, picture, table, pick."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from search.__main__ import main

TASK = f"{Path(__file__).with_name('regression_task.py')}:task"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("own") / "run"
    options = ("--budget", "9", "--final", "2", "--epochs", "3", "--logger", "none")
    assert main(["run", "--task", TASK, "--out", str(folder), *options]) == 0
    return folder


def speaks_of_top1(text: str) -> bool:
    return re.search(r"\btop-?1\b", text, re.IGNORECASE) is not None


def test_the_terminal_names_the_metric(run, capsys) -> None:
    assert main(["run", "--resume", "--out", str(run)]) == 0
    assert main(["pick", str(run)]) == 0
    shown = capsys.readouterr().out
    assert shown.count("neg_mse") >= 2
    assert not speaks_of_top1(shown)


def test_the_files_name_the_metric(run) -> None:
    for name in ("front.json", "front.csv", "front.svg", "report.html"):
        if not (run / name).exists():
            continue
        text = (run / name).read_text()
        text = re.sub(r"<script>.*?</script>", "", text, flags=re.DOTALL)  # libraries
        assert "neg_mse" in text, name
        assert not speaks_of_top1(text), name


def test_negative_scores_have_a_front_and_a_hypervolume(run) -> None:
    result = json.loads((run / "front.json").read_text())
    assert result["metric"] == "neg_mse"
    assert all(point["score"] < 0 for point in result["points"])
    assert result["hypervolume"]["value"] > 0
    assert result["hypervolume"]["reference"]["score"] < 0


def test_a_limit_in_the_metric_is_in_its_unit(run, capsys) -> None:
    points = json.loads((run / "front.json").read_text())["points"]
    least = min(point["score"] for point in points)
    assert main(["pick", str(run), "--min-score", str(least)]) == 0
    assert points[0]["id"] in capsys.readouterr().out
    assert main(["pick", str(run), "--min-score", "0.5"]) == 2
    told = capsys.readouterr().err
    assert "--min-score 0.5" in told
    assert "neg_mse" in told
    assert not speaks_of_top1(told)
