"""Keeps what Ray says a second time, beside our own lines, from the terminal."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Of each of the twenty attempts to join a cluster; Ray's error has the last one as its cause.
_REFUSAL = b"Failed to get cluster ID from GCS server"

_PASS_ON = f"""
import sys
for line in sys.stdin.buffer:
    if {_REFUSAL!r} not in line:
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()
"""


@contextlib.contextmanager
def without_refusals() -> Iterator[None]:
    """Ray's C++ lines on a cluster that turns this driver away are not shown; every other line is.

    They do not pass through :data:`sys.stderr`, and no setting of Ray's keeps them out. A process of its own
    passes the others on: that Ray aborts this one is said on its last lines.
    """
    try:
        terminal = os.dup(2)
    except OSError:  # closed: nothing is shown anyway
        yield
        return
    command = [sys.executable, "-I", "-S", "-c", _PASS_ON]
    # In a session of its own, Ctrl-C does not reach it before the last lines have.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=terminal, start_new_session=True) as passing:
        assert passing.stdin is not None
        os.dup2(passing.stdin.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(terminal, 2)
            os.close(terminal)
