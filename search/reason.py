"""Why an evaluation failed, in one line."""

from __future__ import annotations

from search.inspect.names import one_line

_MOST = 200
_FRAMES = (" ", "\t", "|", "+")


def reason_of(trace: str) -> str:
    """What was raised last: the exception's own line of a traceback, or the last line of another text."""
    _, header, raised = trace.rpartition("Traceback (most recent call last):")
    lines = [line for line in raised.splitlines() if line.strip()]
    own = (line for line in lines if not line.startswith(_FRAMES)) if header else iter(lines[-1:])
    return one_line(next(own, "".join(lines[-1:])) or "no reason is on record", _MOST)
