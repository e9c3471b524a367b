"""A call that kills its own process."""

from __future__ import annotations

import os
import signal
import sys


def kill_at(owner: object, name: str, count: int, *, finished_first: bool) -> None:
    """Replace ``owner.name`` so that its call number ``count`` ends in SIGKILL, before or after its work."""
    original, calls = getattr(owner, name), iter(range(1, sys.maxsize))

    def deadly(*args, **kwargs):
        number = next(calls)
        result = original(*args, **kwargs) if number < count or finished_first else None
        if number == count:
            os.kill(os.getpid(), signal.SIGKILL)
        return result

    setattr(owner, name, deadly)
