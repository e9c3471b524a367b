"""``search.run`` and ``search.latency`` on a small real task: what is measured, written, said and refused."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from test_run_command import TASK

from search.command import run_command
from search.config import RunConfig
from search.latencies import Measurement, is_no_faster, read_latencies, write_latencies
from search.latency import latency, warnings
from search.record import read_evaluations
from search.result import Result
from search.run import run

SETTINGS = ("--budget", "8", "--max-rung", "1", "--final", "1", "--criterion", "l1", "--device", "cpu")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the task and a run of it, ``timed``, in which latency was an objective."""
    folder = tmp_path_factory.mktemp("place")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        Path("stripes.py").write_text(TASK)
        objectives = ("--objectives", "top1,macs,latency_ms", "--latency-batch", "4")
        assert command(run, "--task", "stripes.py:stripes", "--out", "timed", *SETTINGS, *objectives) == 0
    return folder


@pytest.fixture
def inside(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)


def command(which, *arguments: str) -> int:
    threads = torch.get_num_threads()
    try:
        return run_command(which, "search.latency" if which is latency else "search.run", arguments)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.usefixtures("inside")
def test_a_search_for_latency_measures_candidates_and_keeps_what_the_dense_network_took() -> None:
    config, result = RunConfig.load(Path("timed")), Result.load(Path("timed"))
    assert config.objectives == ("top1", "macs", "latency_ms")
    assert config.dense_latency_ms == result.dense.latency_ms > 0
    assert config.divisor < 8  # groups of 8 must be able to lose half of the MACs
    records = read_evaluations(Path("timed"))
    assert all(record.evaluation.latency_ms > 0 for record in records)
    by_widths = {r.candidate.architecture: r.evaluation.latency_ms for r in records}
    assert all(r.evaluation.latency_ms == by_widths[r.candidate.architecture] for r in records)


@pytest.mark.usefixtures("inside")
def test_a_run_times_its_front_at_the_end_and_the_command_adds_to_it(capsys) -> None:
    result = Result.load(Path("timed"))
    ids = ["dense", *(point.id for point in result.points)]
    first = read_latencies(Path("timed"))
    assert [row.id for row in first] == ids
    assert {(row.backend, row.batch, row.threads, row.device) for row in first} == {("eager", 4, 1, "cpu")}
    assert [row.ratio for row in first if row.id == "dense"] == [1.0]
    front = Path("timed/front.json").read_bytes()
    options = ("--backend", "onnxruntime", "--batch", "1,2", "--seconds", "0.1", "--id", ids[1])
    assert command(latency, "timed", *options) == 0
    found = read_latencies(Path("timed"))
    assert found[: len(first)] == first
    assert [(row.id, row.backend, row.batch) for row in found[len(first) :]] == [
        (id_, "onnxruntime", batch) for batch in (1, 2) for id_ in ("dense", ids[1])
    ]
    assert Path("timed/front.json").read_bytes() == front
    out = capsys.readouterr().out
    assert f"onnxruntime, batch 2, cpu: timing {ids[1]}" in out
    assert "of dense" in out


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere",), "nowhere: there is no such folder."),
        (("timed", "--backend", "tvm"), "--backend 'tvm': unknown backend; choose one of compile, eager,"),
        (("timed", "--backend", "none"), "--backend none: name at least one."),
        (("timed", "--batch", "1,x"), "--batch 1,x: give whole numbers of at least 1, such as 1,32."),
        (("timed", "--batch", "0"), "--batch 0: give whole numbers of at least 1"),
        (("timed", "--threads", "0"), "--threads 0: must be from 1 to "),
        (("timed", "--threads", "999999"), "--threads 999999: must be from 1 to "),
        (("timed", "--device", "tpu"), "--device 'tpu': must be cpu, cuda or cuda:N."),
        (("timed", "--id", "abc"), "--id 'abc': no such network in this run"),
        (("timed", "--seconds", "0"), "--seconds 0.0: must be more than zero."),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(arguments, message, capsys) -> None:
    before = {path: path.stat().st_mtime_ns for path in Path("timed").rglob("*")}
    assert command(latency, *arguments) == 2
    err = capsys.readouterr().err
    assert err.startswith(f"search.latency: {message}")
    assert err.count("\n") == 1
    assert {path: path.stat().st_mtime_ns for path in Path("timed").rglob("*")} == before


@pytest.mark.usefixtures("inside")
def test_measurements_that_can_not_be_added_to_are_told_before_anything_is_measured(capsys) -> None:
    shutil.copytree("timed", "broken")
    Path("broken/latency.json").write_text("{")
    assert command(latency, "broken") == 2
    said = capsys.readouterr()
    assert said.err.startswith("search.latency: broken: latency.json can not be read")
    assert said.out == ""
    assert Path("broken/latency.json").read_text() == "{"


@pytest.mark.usefixtures("inside")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--objectives", "f1,macs"), "--objectives f1,macs: the task's metric is top1; name it, or score"),
        (("--objectives", "top1"), "--objectives top1: name the task's metric, or score, and one or more"),
        (("--latency", "fast"), "--latency 'fast': unknown latency; "),
        (("--latency-batch", "0"), "--latency-batch 0: must be at least 1."),
        (("--latency-threads", "0"), "--latency-threads 0: must be from 1 to "),
        (("--latency-threads", "999999"), "--latency-threads 999999: must be from 1 to "),
        (
            ("--latency", "none", "--objectives", "score,latency_ms"),
            "--latency none: latency_ms is an objective; name a backend.",
        ),
    ],
)
def test_a_run_refuses_what_it_can_not_time(arguments, message, capsys) -> None:
    assert command(run, "--task", "stripes.py:stripes", "--out", "other", *SETTINGS, *arguments) == 2
    assert capsys.readouterr().err.startswith(f"search.run: {message}")
    assert not Path("other").exists()


@pytest.mark.usefixtures("inside")
def test_a_run_that_can_not_be_timed_at_its_end_is_finished_all_the_same(capsys, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no clock")

    monkeypatch.setattr("search.conduct.time_networks", broken)
    assert command(run, "--task", "stripes.py:stripes", "--out", "untimed", *SETTINGS) == 0
    assert "warning: no latency by eager: no clock" in capsys.readouterr().out
    assert Result.load(Path("untimed")).points
    assert not Path("untimed/latency.json").exists()
    assert "objectives" not in json.loads(Path("untimed/front.json").read_text())


def test_links_in_a_folder_lead_no_writing_out_of_it(tmp_path) -> None:
    own, run_folder = tmp_path / "own.txt", tmp_path / "run"
    own.write_text("precious")
    run_folder.mkdir()
    for name in ("latency.json.partial", "latency.json"):
        (run_folder / name).symlink_to(own if name.endswith("partial") else tmp_path / "nothing")
    row = Measurement("dense", "eager", "cpu", 1, 1, 1.0, 0.1, 1.0, 9, "a machine")
    write_latencies(run_folder, [row])
    assert read_latencies(run_folder) == (row,)
    assert own.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.usefixtures("inside")
def test_fewer_macs_that_are_no_faster_are_warned_of() -> None:
    assert is_no_faster(0.5, 0.99)
    assert not is_no_faster(0.5, 0.9)
    assert not is_no_faster(1.0, 1.0)
    result = Result.load(Path("timed"))
    point = replace(result.points[0], id="slow", macs=result.dense.macs // 2)
    row = Measurement("slow", "eager", "cpu", 1, 1, 2.0, 0.1, 1.02, 10, "a CPU")
    fast = replace(row, backend="onnxruntime", ratio=0.6)
    dense = replace(row, id="dense", ratio=1.0)
    assert warnings(replace(result, points=(point,)), [dense, row, fast]) == [
        "warning: MACs fall and latency does not, eager at batch 1 on cpu: slow (50% MACs, 102% latency)"
    ]
