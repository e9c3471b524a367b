"""Ctrl-C waits while something is written that must be whole."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C wait for the end of the block, which must be short.

    What is cut short in the middle of a write, or of mending one, leaves half of it behind or fails with an
    error that hides what happened. Nothing changes outside the main thread, which alone hears signals, or
    where this process is told to ignore Ctrl-C.

    Raises:
        KeyboardInterrupt: At the end of the block, where Ctrl-C came inside; it wins over an error there.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    came: list[FrameType | None] = []
    signal.signal(signal.SIGINT, lambda _, frame: came.append(frame))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if came:
            handler(signal.SIGINT, came[-1])
