"""What a sweep refuses, with one line and exit code 2, before anything is written."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import ray_fixtures

import search.ray_cluster.connection
from evaluators.options import OptionError
from search.command import run_command
from search.ray_cluster.connection import check_nodes, check_resources
from search.ray_cluster.resources import Resources, parse_resources
from search.run import run

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(scope="module")
def nodes():
    with ray_fixtures.cluster(2) as made:
        yield made


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one line of a command that ends with 2."""
    assert run_command(run, "search.run", arguments) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--executor", "dask"], "--executor 'dask': unknown executor; choose one of local, ray."),
        (["--workers", "4"], "--workers 4: needs --executor ray."),
        (["--resources", "gpu=1"], "--resources gpu=1: needs --executor ray."),
        (["--timeout", "1h"], "--timeout 1h: needs --executor ray."),
        (["--executor", "ray", "--timeout", "soon"], "--timeout soon: give a time such as 90s, 30m or 2h."),
        (["--executor", "ray", "--workers", "0"], "--workers 0: must be at least 1."),
        (["--executor", "ray", "--retries", "-1"], "--retries -1: must be at least 0."),
        (["--executor", "ray", "--logger", "visdom"], "--logger 'visdom': unknown logger; choose one of "),
        (["--executor", "ray", "--resources", "tpu=1"], "--resources tpu=1: give [RUNG:]gpu=G,cpu=C"),
        (["--executor", "ray", "--resources", "gpu=1.5"], "--resources gpu=1.5: gpu is a share of one, or"),
        (["--executor", "ray", "--resources", "gpu=2"], "--resources gpu=2: rung 1 does not train"),
        (["--executor", "ray", "--resources", "cpu=1,cpu=2"], "--resources cpu=1,cpu=2: names one thing"),
        (["--executor", "ray", "--resources", "cpu=0"], "--resources cpu=0: cpu must be more than zero."),
        (
            ["--executor", "ray", "--resources", "cpu=\uff11"],
            "--resources cpu=\uff11: give [RUNG:]gpu=G,cpu=C",
        ),
        (
            ["--executor", "ray", "--resources", "gpu=0.00001"],
            "--resources gpu=0.00001: gpu is at least 0.0001",
        ),
        (["--executor", "ray", "--address", "somewhere"], "--address somewhere: give auto, local, HOST:PORT"),
        (["--executor", "ray", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: nobody answers there."),
        (["--executor", "ray", "--storage-path", "s3://bucket"], "--storage-path s3://bucket: must be a fol"),
    ],
)
def test_bad_options_are_one_line_and_nothing_is_written(
    arguments: list[str],
    line: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert refused(["--out", "run", *arguments], capsys).startswith(f"search.run: {line}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (
            ["--resources", "cpu=64"],
            "--resources cpu=64: no node can ever give that on rung 1; the largest of 2 has 1 CPUs and 0",
        ),
        (
            ["--resources", "3:gpu=4,cpu=4"],
            "--resources gpu=4,cpu=4,workers=4: no node can ever give that on rung 3; the largest of 2 has ",
        ),
        (["--budget", "2gpuh"], "--budget 2gpuh: GPU hours need a GPU: --resources gpu=1."),
        (
            ["--objectives", "top1,macs,latency_ms", "--resources", "3:gpu=1"],
            "--resources 3:gpu=1: latency as an objective needs GPUs on every rung, or on none.",
        ),
        (["--logger", "mlflow"], "--logger mlflow: can not be used: No module named"),
        (["--storage-path", "/proc/none"], "--storage-path /proc: can not be written to: "),
    ],
)
def test_what_the_cluster_can_not_do_is_said_at_once(
    arguments: list[str],
    line: str,
    nodes,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--out", "run", "--executor", "ray", "--address", nodes.address]
    assert refused([*options, *arguments], capsys).startswith(f"search.run: {line}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nodes")
def test_other_versions_on_a_node_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = search.ray_cluster.connection.installed_versions()
    monkeypatch.setattr(
        search.ray_cluster.connection, "installed_versions", lambda: here | {"espalier-nas": "9.9"}
    )
    there = here["espalier-nas"]
    with pytest.raises(OptionError, match=rf"espalier-nas is {there} there and 9\.9 here"):
        check_nodes(tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("nodes")
def test_another_python_on_a_node_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search.ray_cluster.connection.platform, "python_version", lambda: "3.14.1")
    with pytest.raises(OptionError, match=r"Python is 3\.\d+\.\d+ there and 3\.14\.1 here"):
        check_nodes(tmp_path)


@pytest.mark.usefixtures("nodes")
def test_a_folder_that_nodes_can_not_see_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Every node of a test sees every folder: one that does not write there stands for one that can not.
    monkeypatch.setattr(search.ray_cluster.connection, "_probe", lambda nodes, _: _answers(nodes))
    with pytest.raises(OptionError, match=r"can not write there .it is a folder of the node's own.; name a"):
        check_nodes(tmp_path)
    assert list(tmp_path.iterdir()) == []


def _answers(nodes):
    versions = search.ray_cluster.connection.installed_versions()
    python = {"Python": search.ray_cluster.connection.platform.python_version()}
    return [(node, {"versions": python | versions, "error": ""}) for node in nodes]


@pytest.mark.usefixtures("nodes")
def test_what_fits_is_accepted(tmp_path: Path) -> None:
    check_nodes(tmp_path)
    check_resources({1: Resources(0.5), 3: Resources(2, workers=2)})


def test_resources_of_a_rung_go_before_those_of_all() -> None:
    found = parse_resources(["3:gpu=4,cpu=16", "gpu=0.25,cpu=4"], Resources(), (1, 2, 3))
    assert found == {1: Resources(4, 0.25), 2: Resources(4, 0.25), 3: Resources(16, 4, 4)}
    assert found[3].bundle == {"CPU": 4, "GPU": 1}


@pytest.mark.parametrize("text", ["gpu=0.0001", "gpu=0.33333,cpu=0.33333", "gpu=0.0004,cpu=3,workers=3"])
def test_shares_of_any_precision_are_taken_as_ray_takes_them(text: str) -> None:
    import ray

    needed = parse_resources([f"3:{text}"], Resources(), (3,))[3]
    ray.remote(num_cpus=needed.bundle["CPU"], num_gpus=needed.bundle["GPU"])(refused)


@pytest.mark.parametrize("text", ["gpu=0.00009999", "gpu=0.0003,cpu=3,workers=3"])
def test_a_share_that_is_too_small_for_ray_is_refused(text: str) -> None:
    with pytest.raises(OptionError, match=r"gpu is at least 0\.0001 for each worker, or 0\."):
        parse_resources([f"3:{text}"], Resources(), (3,))


@pytest.mark.parametrize(
    ("needed", "places"),
    [
        (Resources(1), 12),
        (Resources(4), 3),
        (Resources(1, 0.25), 8),
        (Resources(4, 2, 2), 1),
        (Resources(9), 0),
    ],
)
def test_places_are_counted_node_by_node(needed: Resources, places: int) -> None:
    assert needed.places([{"CPU": 8.0, "GPU": 2.0}, {"CPU": 4.0}]) == places


def test_the_local_executor_imports_no_ray(tmp_path: Path) -> None:
    code = (
        "import sys; from search.run import run; from search.command import run_command; "
        "code = run_command(run, 'search.run', sys.argv[1:]); "
        "assert code == 0; assert 'ray' not in sys.modules"
    )
    command = [sys.executable, "-c", code, "--dry-run", "--out", str(tmp_path / "run")]
    subprocess.run(command, check=True, env=os.environ, stdout=subprocess.DEVNULL)
