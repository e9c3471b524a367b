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

#: For the last lines to be passed on.
_PATIENCE_SECONDS = 2.0

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
    passing = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=terminal, start_new_session=True)
    assert passing.stdin is not None
    try:
        os.dup2(passing.stdin.fileno(), 2)
        yield
    finally:
        os.dup2(terminal, 2)
        os.close(terminal)
        passing.stdin.close()
        # Whoever was started meanwhile writes there, too, and may live on.
        with contextlib.suppress(subprocess.TimeoutExpired):
            passing.wait(_PATIENCE_SECONDS)
