"""What Ray and Tune read from the environment, some of it once, when they are imported."""

from __future__ import annotations

import os
import secrets
import socket
import tempfile
from pathlib import Path

_CONNECT_SECONDS = 5.0

#: Unless the user says otherwise.
_DEFAULTS = {
    # As many as there is room for: the searcher holds proposals back. With Tune's one, a node that joins gets
    # nothing: whatever waits for its workers to start is given to a worker that becomes free before.
    "TUNE_MAX_PENDING_TRIALS_PG": "100000",
    # The study is the record. Tune's own snapshots cost more with every trial, and nothing reads them.
    "TUNE_GLOBAL_CHECKPOINT_S": "1e9",
    # Loggers are chosen by --logger.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C is handled by the command.
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "-1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    # A node that is taken away is a lost worker like any other.
    "RAY_TRAIN_COUNT_PREEMPTION_AS_FAILURE": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def prepare_environment(address: str | None) -> None:
    """Call it before Ray is imported.

    A cluster that we start asks for a token, also on one machine: Ray runs whatever reaches its ports. One
    that we join decides for itself, and the user has told this process.

    Args:
        address: As in :func:`resolved`.
    """
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    if resolved(address) == "local":
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if "RAY_AUTH_TOKEN_PATH" not in os.environ:
            # Known to this process and its workers; Ray would leave one in a file that others can read.
            os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))


def resolved(address: str | None) -> str:
    """``address``; without one ``auto`` where this process runs in a cluster, else ``local``.

    It is not left to Ray, which would try a cluster that it can not enter for some time and then start one
    that asks nobody for a token.
    """
    if address is not None:
        return address
    if os.environ.get("RAY_ADDRESS"):
        return "auto"
    # Written by ``ray start``, and left behind where that was killed.
    known = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()) / "ray" / "ray_current_cluster"
    return "auto" if known.exists() and is_reachable(known.read_text().strip()) else "local"


def is_reachable(address: str) -> bool:
    """Whether somebody listens at ``HOST:PORT``."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True
