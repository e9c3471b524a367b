"""Ctrl-C and SIGTERM stop a run alike, once, and not while something is written that must be whole."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import threading
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

_STOPPING = (signal.SIGINT, signal.SIGTERM)
#: A process that was stopped is left alone for so long; if it still runs then, the next signal ends it.
_PATIENCE_SECONDS = 5.0


@contextlib.contextmanager
def held_back() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM wait for the end of the block, which must be short.

    What is cut short in the middle of a write, or of mending one, leaves half of it behind or fails with an
    error that hides what happened. Nothing changes outside the main thread, which alone hears signals, or
    where this process is told to ignore them.

    Raises:
        KeyboardInterrupt: At the end of the block, where Ctrl-C came inside; it wins over an error there.
    """
    with _held_back(signal.SIGINT), _held_back(signal.SIGTERM):
        yield


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Let the first Ctrl-C or SIGTERM end the block as a ``KeyboardInterrupt``, and the process orderly.

    Until the process ends no other one disturbs that, unless it takes long: then the next one kills it. Enter
    the block when Ray is started: its handler of SIGTERM replaces this one.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stop = _Stop()
    handlers = {number: signal.getsignal(number) for number in _STOPPING}
    heard = {number: of for number, of in handlers.items() if of is not signal.SIG_IGN}
    try:
        for number in heard:
            signal.signal(number, stop)
        yield
    finally:
        if stop.since is None:
            for number, handler in heard.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


class _Stop:
    """Handler that hears the first signal, and such as come long after it."""

    def __init__(self) -> None:
        self.since: float | None = None
        self._process = os.getpid()

    def __call__(self, number: int, frame: FrameType | None) -> None:
        del frame
        if os.getpid() != self._process:  # a fork of it, which others may want to end
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        if self.since is None:
            self.since = time.monotonic()
            _stopped.append(self)
            raise KeyboardInterrupt
        if time.monotonic() - self.since >= _PATIENCE_SECONDS:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)


#: Of this process, such as heard a signal.
_stopped: list[_Stop] = []


@atexit.register  # early, and so called late: whatever hangs at the end of a process can still be stopped
def _ignore() -> None:
    """Handlers of Python are gone before the process is, and a signal would change its exit code."""
    if _stopped:
        for number in _STOPPING:
            signal.signal(number, signal.SIG_IGN)


@contextlib.contextmanager
def _held_back(number: signal.Signals) -> Iterator[None]:
    handler = signal.getsignal(number)
    main = threading.current_thread() is threading.main_thread()
    if not main or handler is None or handler is signal.SIG_IGN:
        yield
        return
    came: list[FrameType | None] = []
    try:
        signal.signal(number, lambda _, frame: came.append(frame))
        yield
    finally:
        signal.signal(number, handler)
        if came and callable(handler):
            handler(number, came[-1])
        elif came:
            signal.raise_signal(number)
