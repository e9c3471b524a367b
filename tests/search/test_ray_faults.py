"""Real searches on digits on a Ray cluster: nodes die and join, the driver is killed, memory is full."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from typing import TYPE_CHECKING

import pytest
import ray_fixtures
from fake_problem import CRITERIA, make_encoding, make_problem
from ray_problem import FakePlan

from search.record import read_evaluations

if TYPE_CHECKING:
    from pathlib import Path

SETTINGS = ("--budget", "8", "--final", "2", "--final-seeds", "2", "--epochs", "4", "--seed", "4")
PATIENCE = 240.0


@pytest.fixture(scope="module")
def nodes():
    """A head that evaluates nothing, and two nodes that do; the drivers are processes of their own."""
    with ray_fixtures.cluster(3, connect=False, num_cpus=0) as made:
        yield made


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "search.run", "--out", str(folder), *options]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def run(folder: Path, *options: str) -> str:
    process = start(folder, *options)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    return output


def on(nodes, *options: str) -> tuple[str, ...]:
    return ("--executor", "ray", "--address", nodes.address, "--logger", "none", *options)


def ended(folder: Path) -> list[str]:
    """Nodes on which evaluations ended, in the order in which they did."""
    log = folder / "run.log"
    lines = log.read_text().splitlines() if log.exists() else []
    return [line.rpartition(" ")[2] for line in lines if " ended on node " in line]


def wait_for(what, process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < deadline
        if process.poll() is not None:
            pytest.fail(f"the driver ended: {process.communicate()[0]}")
        time.sleep(0.05)


def facts(folder: Path):
    front = json.loads((folder / "front.json").read_text())
    del front["seconds"]
    return front, sorted(map(worth, read_evaluations(folder)))


def worth(record):
    e = record.evaluation
    return e.rung, e.candidate, e.method, e.seed, e.score, e.macs, e.params, record.origin


def check_nothing_twice(folder: Path) -> None:
    keys = [worth(record)[:4] for record in read_evaluations(folder)]
    assert len(keys) == len(set(keys))
    assert sum(key[0] == 1 for key in keys) == 8


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "run"
    run(folder, *SETTINGS)
    return folder


def test_one_worker_of_two_nodes_gives_the_front_of_the_local_executor(nodes, local, tmp_path) -> None:
    folder = tmp_path / "run"
    run(folder, *SETTINGS, *on(nodes, "--workers", "1"))
    assert facts(folder) == facts(local)
    assert not list(folder.rglob("*.pkl"))
    assert not (folder / "cluster").exists()


def test_a_killed_node_loses_nothing_and_another_one_gets_work(nodes, tmp_path) -> None:
    folder = tmp_path / "run"
    victim = nodes.add_node(**ray_fixtures.NODE)
    process = start(folder, *SETTINGS, *on(nodes))
    wait_for(lambda: victim.node_id in ended(folder), process)
    nodes.remove_node(victim, allow_graceful=False)
    joined = nodes.add_node(**ray_fixtures.NODE)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, output
    check_nothing_twice(folder)
    assert joined.node_id in ended(folder)
    assert " left: " in output
    assert " joined: " in output
    assert " failed on rung " not in output
    nodes.remove_node(joined)


def test_a_killed_driver_loses_nothing(nodes, local, tmp_path) -> None:
    folder = tmp_path / "run"
    process = start(folder, *SETTINGS, *on(nodes, "--workers", "1"))
    wait_for(lambda: len(ended(folder)) >= 12, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = {record.evaluation for record in read_evaluations(folder)}
    assert before
    run(folder, "--resume", *on(nodes, "--workers", "1"))
    assert before <= {record.evaluation for record in read_evaluations(folder)}
    assert facts(folder) == facts(local)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_was_stopped_may_change_its_executor(nodes, tmp_path, number) -> None:
    folder = tmp_path / "run"
    process = start(folder, *SETTINGS, *on(nodes))
    wait_for(lambda: len(ended(folder)) >= 3, process)
    process.send_signal(number)
    time.sleep(0.05)  # a hasty person, or one that means to be sure
    process.send_signal(number)
    output, _ = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1, output
    assert output.splitlines()[-1].startswith("search.run: stopped; continue with: ")
    run(folder, "--resume", "--executor", "local")
    check_nothing_twice(folder)


@pytest.fixture
def client_address():
    """Of a cluster with a server for Ray clients; two of them on one machine take each other's ports."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with ray_fixtures.cluster(2, connect=False, num_cpus=0, ray_client_server_port=port):
        yield f"ray://127.0.0.1:{port}"


def test_over_the_ray_client_the_driver_runs_on_the_head(client_address, tmp_path) -> None:
    folder = tmp_path / "run"
    small = ("--budget", "3", "--max-rung", "1", "--epochs", "1", "--final", "1")
    output = run(folder, *small, "--executor", "ray", "--address", client_address)
    assert output.startswith("the driver runs on node ")
    assert f"report: {folder}/report.html" in output
    again = start(folder, *small, "--executor", "ray", "--address", client_address)
    output, _ = again.communicate(timeout=PATIENCE)
    assert again.returncode == 2
    assert f"search.run: --out {folder}: exists already" in output


def test_nothing_is_lost_where_the_object_store_is_full(run_fake, tmp_path) -> None:
    import numpy as np
    import ray

    from search.ray_cluster.executor import RayExecutor
    from search.ray_cluster.resources import Resources

    plan = FakePlan(tmp_path, ballast=np.ones(40 * 2**20, dtype=np.uint8))
    with ray_fixtures.cluster(1, object_store_memory=80 * 2**20):
        held = [ray.put(np.ones(30 * 2**20, dtype=np.uint8)) for _ in range(4)]
        work = RayExecutor(plan, dict.fromkeys((1, 2, 3), Resources(1)), tmp_path / "cluster")
        _, _, crowded = run_fake("crowded", budget="12", execute=work)
        assert len(held) == 4
    problem, encoding = make_problem(), make_encoding(criteria=CRITERIA)
    _, _, undisturbed = run_fake("undisturbed", budget="12", problem=problem, encoding=encoding)
    assert facts(crowded) == facts(undisturbed)
