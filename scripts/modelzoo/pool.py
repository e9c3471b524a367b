"""One process per model, with a limit on the time of each stage and on memory."""

from __future__ import annotations

import os
import resource
import sys
import time
from dataclasses import dataclass, field
from multiprocessing import connection, get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelzoo.job import work

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.connection import Connection
    from multiprocessing.process import BaseProcess

#: Seconds between two looks at the processes.
_LOOK = 0.2


@dataclass(frozen=True, slots=True)
class Job:
    """One thing to find out about one model.

    Attributes:
        label: Of the entry.
        role: ``ours`` or ``peer``.
        limit: Seconds that a stage may take.
    """

    label: str
    role: str
    limit: float


@dataclass(slots=True)
class _Running:
    job: Job
    process: BaseProcess
    receiver: Connection
    deadline: float
    record: dict[str, Any] = field(default_factory=dict)


def run(
    jobs: list[Job], *, at_once: int, memory_gb: float, on_start: Callable[[Job], None]
) -> Iterator[tuple[Job, dict[str, Any]]]:
    """Do all jobs, ``at_once`` at a time, and yield each record as it is there.

    A job that takes too long or too much memory is killed; its record says so under ``error`` and holds what
    was found until then. Libraries are imported once, in a server from which the processes are forked.
    """
    # Forked processes can not change these any more. One core per model.
    os.environ.update(OMP_NUM_THREADS="1", MKL_NUM_THREADS="1", OMP_WAIT_POLICY="PASSIVE")
    os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error")
    os.environ["PYTHONPATH"] = os.pathsep.join([*sys.path[:1], os.environ.get("PYTHONPATH", "")])
    context = get_context("forkserver")
    context.set_forkserver_preload(["modelzoo.warm"])
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < at_once:
                job = waiting.pop()
                on_start(job)
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=work, args=(job.label, job.role, sender), daemon=True)
                process.start()
                sender.close()
                running.append(_Running(job, process, receiver, time.monotonic() + job.limit))
            connection.wait([one.receiver for one in running], timeout=_LOOK)
            for one in list(running):
                if _finished(one, memory_gb):
                    running.remove(one)
                    yield one.job, one.record
    finally:
        for one in running:
            one.process.kill()


def _finished(one: _Running, memory_gb: float) -> bool:
    """Take what it sent; stop it where it exceeds a limit."""
    ended = False
    try:
        while one.receiver.poll():
            message = one.receiver.recv()
            if "stage" in message:
                one.deadline = time.monotonic() + one.job.limit
            one.record.update(message)
    except EOFError:
        ended = True
    if ended:
        one.process.join()
        if one.process.exitcode and "error" not in one.record:
            one.record["error"] = f"ended with exit code {one.process.exitcode}"
        return True
    held = _memory_gb(one.process.pid)
    if held > memory_gb:
        one.record["error"] = f"more than {memory_gb:g} GB of memory"
    elif time.monotonic() > one.deadline:
        one.record["error"] = f"more than {one.job.limit:g} s"
    else:
        return False
    one.process.kill()
    one.process.join()
    return True


def _memory_gb(pid: int | None) -> float:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):  # it has just ended
        return 0.0
    return pages * resource.getpagesize() / 1e9
