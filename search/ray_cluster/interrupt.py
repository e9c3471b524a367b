"""Ctrl-C during a sweep is heard even where the code that it hits swallows exceptions."""

from __future__ import annotations

import contextlib
import signal
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextlib.contextmanager
def heard() -> Iterator[threading.Event]:
    """Yield an event that Ctrl-C sets, beside raising ``KeyboardInterrupt`` as ever.

    Ray runs Python inside callbacks of its own, and what is raised there is printed and forgotten. Whoever
    works inside looks at the event now and then; at the end it is looked at here.

    Raises:
        KeyboardInterrupt: At the end, where one was swallowed and nobody looked.
    """
    event = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(before):
        yield event  # signals reach the main thread only, and some processes are told to ignore this one
        return

    def handle(number: int, frame: Any) -> None:
        event.set()
        before(number, frame)

    signal.signal(signal.SIGINT, handle)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)
    if event.is_set():
        raise KeyboardInterrupt
