"""The tables of the commands on a terminal of 80 columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from made_run import POINTS, make_result
from rich.console import Console

from search.latencies import Measurement
from search.latency import _table
from search.result import Summary
from search.show import print_result

ID = "f2a63dd47d"


def printed(show):
    console = Console(width=80)
    with console.capture() as capture:
        show(console)
    return capture.get().splitlines()


def test_latencies_are_whole_on_80_columns():
    result = make_result(points=(replace(POINTS[0], id=ID), *POINTS[1:]))
    rows = [Measurement(id_, "onnxruntime", "cpu", 16, 32, 0.2951, 0.0123, 0.5, 50, "a CPU") for id_ in (ID,)]
    lines = printed(lambda console: console.print(_table(result, rows)))
    line = next(line for line in lines if ID in line)
    assert line.split() == [ID, "onnxruntime", "32", "16", "21%", "0.295", "ms", "0.012", "ms", "50%"]
    assert "…" not in "".join(lines)
    assert "threads" in "".join(lines)


@pytest.mark.parametrize("metric", ["neg_rmse", "negative_root_mean_squared_error"])
def test_a_front_in_a_metric_of_its_own_is_whole_on_80_columns(metric):
    scores = {"finetune": -0.0712312, "scratch_e": -0.0723412, "scratch_b": -0.0734512}
    summaries = {name: Summary(mean, 0.000213, 3) for name, mean in scores.items()}
    points = [
        replace(point, score=-0.0712312, scores=summaries, test=summaries, latency_ms=1.0) for point in POINTS
    ]
    result = make_result(metric=metric, points=(replace(points[0], id=ID), *points[1:]), comparisons=())
    result = replace(result, dense=replace(result.dense, latency_ms=2.0))
    lines = printed(lambda console: print_result(console, result, Path("runs/x")))
    text = "\n".join(lines)
    assert "…" not in text
    assert all(text.count(f"\N{MINUS SIGN}{number}") >= 5 for number in ("0.07123", "0.07234", "0.07345"))
    assert text.count("0.00021") == 15
    assert ID in text
    heading = "".join(text.split("─")[0].split())
    assert heading.count("Scratch-") == 2  # their letters may stand on the next line
    assert {"E", "B"} <= set(heading)


@pytest.mark.parametrize("is_terminal", [False, True])
def test_sentences_break_between_words_on_a_terminal_and_nowhere_else(is_terminal):
    console = Console(width=80, force_terminal=is_terminal, no_color=True)
    with console.capture() as capture:
        print_result(console, make_result(), Path("a-folder-of-a-long-name") / ("x" * 80))
    lines = [line.rstrip() for line in capture.get().splitlines()]
    said = [line for line in lines if "pairs" in line or line.startswith("No, ")]
    assert said
    assert all(len(line) <= 80 for line in said) is is_terminal
    assert f"report: a-folder-of-a-long-name/{'x' * 80}/report.html" in lines
