"""A swallowed Ctrl-C is heard all the same."""

from __future__ import annotations

import contextlib
import signal

import pytest

from search.ray_cluster.interrupt import heard


def press_and_swallow() -> None:
    with contextlib.suppress(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_what_was_swallowed_is_seen_inside_and_raised_at_the_end() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def sweep() -> None:
        with heard() as interrupted:
            press_and_swallow()
            seen.append(interrupted.is_set())

    with pytest.raises(KeyboardInterrupt):
        sweep()
    assert seen == [True]
    assert signal.getsignal(signal.SIGINT) is before


def test_nothing_is_raised_where_nobody_pressed_it() -> None:
    with heard():
        pass


def test_a_process_that_ignores_it_goes_on_ignoring_it() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with heard() as interrupted:
            signal.raise_signal(signal.SIGINT)
        assert not interrupted.is_set()
    finally:
        signal.signal(signal.SIGINT, before)
