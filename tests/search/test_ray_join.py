"""Drivers that a cluster turns away: one line says what was tried, why it failed and what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import ray_fixtures

if TYPE_CHECKING:
    from pathlib import Path

OTHER_TOKEN = "0123456789abcdef" * 4


@pytest.fixture(scope="module")
def nodes():
    with ray_fixtures.cluster(1, connect=False) as made:
        yield made


@pytest.fixture
def stranger(nodes, tmp_path: Path) -> dict[str, str]:
    """Environment of a user who told Ray nothing, on a machine where somebody else's cluster runs."""
    (tmp_path / "home").mkdir()
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text(nodes.address)
    told = {
        name: value for name, value in os.environ.items() if not name.startswith(("RAY_ADDRESS", "RAY_AUTH"))
    }
    mine = {"HOME": str(tmp_path / "home"), "RAY_TMPDIR": str(tmp_path), "RAY_NUM_REDIS_GET_RETRIES": "2"}
    return told | mine


def refused(environment: dict[str, str], folder: Path, *options: str) -> str:
    """All that a command which ends with 2 says on stderr, without the final newline."""
    command = [
        sys.executable,
        "-m",
        "search.run",
        "--executor",
        "ray",
        "--out",
        str(folder / "run"),
        *options,
    ]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    assert not (folder / "run").exists()
    return ended.stderr.strip()


def test_a_token_file_of_another_cluster_is_named(nodes, stranger, tmp_path: Path) -> None:
    (tmp_path / "home" / ".ray").mkdir()
    (tmp_path / "home" / ".ray" / "auth_token").write_text(OTHER_TOKEN)
    assert refused(stranger, tmp_path) == (
        "search.run: --address: none was given, and the Ray cluster that runs on this machine could not be "
        f"joined: Failed to connect to Ray cluster at {nodes.address}. It asks for another token than that "
        "of ~/.ray/auth_token; set RAY_AUTH_TOKEN to its own; --address local starts one of your own."
    )


def test_a_driver_without_a_token_is_told_how_to_bring_one(nodes, stranger, tmp_path: Path) -> None:
    assert refused(stranger, tmp_path, "--address", nodes.address) == (
        f"search.run: --address {nodes.address}: Failed to connect to Ray cluster at {nodes.address}. If it "
        "asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN; --address local starts one of "
        "your own."
    )


def test_a_wrong_token_is_named_by_where_it_came_from(nodes, stranger, tmp_path: Path) -> None:
    given = {"RAY_ADDRESS": nodes.address, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": OTHER_TOKEN}
    said = refused(stranger | given, tmp_path)
    assert said.startswith(
        "search.run: --address: none was given, and the Ray cluster that RAY_ADDRESS names could not be "
    )
    assert "It asks for another token than that of RAY_AUTH_TOKEN; " in said
    assert OTHER_TOKEN not in said


@pytest.mark.parametrize("end", ["pass", "os.abort()", "raise RuntimeError('no')"])
def test_only_refusals_are_held_back_also_where_ray_aborts(end: str) -> None:
    code = (
        "import os\n"
        "from search.ray_cluster.quiet import without_refusals\n"
        "with without_refusals():\n"
        "    os.write(2, b'W gcs_client.cc:210: Failed to get cluster ID from GCS server: no\\n')\n"
        "    os.write(2, b'C core_worker.cc:1: Check failed\\n')\n"
        f"    {end}\n"
        "os.write(2, b'after')\n"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.stderr.startswith("C core_worker.cc:1: Check failed\n")
    assert "Failed to get cluster ID" not in ended.stderr
    assert ended.stderr.endswith("after") == (end == "pass")
    assert ("RuntimeError: no" in ended.stderr) == end.startswith("raise")
