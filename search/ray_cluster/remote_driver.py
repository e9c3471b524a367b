"""``--address ray://...``: the driver runs on the cluster's head node, and what it says is shown here.

Ray Tune can not be driven through the Ray client: it needs a node of the cluster on its own machine.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

import click
import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from evaluators.options import OptionError
from search.interrupt import stoppable
from search.ray_cluster.capacity import living_nodes
from search.ray_cluster.connection import connected

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import IO, Any

_POLL_SECONDS = 0.5
_DIES_WITH_PARENT = 1  # PR_SET_PDEATHSIG of prctl(2)


class Driver:
    """On the head node: a process with ``search.run``, and what it says."""

    def __init__(self, arguments: Sequence[str]) -> None:
        # Nobody would hear it any more where this process is gone.
        libc = ctypes.CDLL(None)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "search.run", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=lambda: libc.prctl(_DIES_WITH_PARENT, signal.SIGTERM),
        )
        self._said: list[tuple[bool, str]] = []
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        pipes = ((self._process.stdout, False), (self._process.stderr, True))
        self._readers = [threading.Thread(target=self._read, args=pipe) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def hear(self) -> tuple[list[tuple[bool, str]], int | None]:
        """``(to stderr, line)`` since the last call, and the exit code when there is nothing more to come."""
        ended = self._process.poll() is not None and not any(reader.is_alive() for reader in self._readers)
        said, self._said = self._said, []
        return said, self._process.returncode if ended else None

    def interrupt(self) -> None:
        """As Ctrl-C."""
        self._process.send_signal(signal.SIGINT)

    def _read(self, pipe: IO[str], error: bool) -> None:
        for line in pipe:
            self._said.append((error, line.rstrip("\n")))


def drive_remotely(address: str, arguments: Sequence[str]) -> int:
    """Run ``search.run`` with these arguments on the head node.

    Args:
        address: ``ray://HOST:PORT``.
        arguments: Without the address; folders are those of the head node.

    Returns:
        Its exit code.

    Raises:
        OptionError: If nobody answers there.
    """
    with connected(address):
        nodes = [node for node in living_nodes() if "node:__internal_head__" in node.resources]
        if not nodes:
            raise OptionError("address", address, "the cluster has no head node.")
        click.echo(f"the driver runs on node {nodes[0].address}; folders are those of that node")
        there = NodeAffinitySchedulingStrategy(nodes[0].id, soft=False)
        actor: Any = ray.remote(num_cpus=0)(Driver)
        driver = actor.options(scheduling_strategy=there).remote(arguments)
        with stoppable():
            return _listen(driver)


def _listen(driver: Any) -> int:
    """Pass on what the driver says and Ctrl-C, until it ends."""
    code: int | None = None
    while code is None:
        try:
            time.sleep(_POLL_SECONDS)
            said, code = ray.get(driver.hear.remote())
        except KeyboardInterrupt:
            ray.get(driver.interrupt.remote())
            continue
        for error, line in said:
            click.echo(line, err=error)
    return code
