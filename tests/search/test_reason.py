"""One line of a traceback: what was raised."""

from __future__ import annotations

import traceback

import pytest

from search.reason import reason_of


def trace_of(error: BaseException, cause: BaseException | None = None) -> str:
    try:
        try:
            if cause is not None:
                raise cause
        finally:
            raise error
    except BaseException:
        return traceback.format_exc()


@pytest.mark.parametrize(
    ("trace", "reason"),
    [
        (trace_of(ValueError("my")), "ValueError: my"),
        (trace_of(ValueError("my\nsecond line\n  third")), "ValueError: my"),
        (trace_of(ValueError("second"), KeyError("first\nline")), "ValueError: second"),
        (trace_of(SystemExit(3)), "SystemExit: 3"),
        (trace_of(ValueError("\x1b[31mred\a")), "ValueError: ?[31mred?"),
        (trace_of(RuntimeError("in a worker.\nOriginal " + trace_of(ValueError("my")))), "ValueError: my"),
        ("It took longer than --timeout 3 s.", "It took longer than --timeout 3 s."),
        ("", "no reason is on record"),
    ],
)
def test_the_reason_is_the_line_of_the_exception(trace: str, reason: str) -> None:
    assert reason_of(trace) == reason


def test_a_long_reason_is_cut() -> None:
    reason = reason_of(trace_of(ValueError("a" * 1500)))
    assert len(reason) == 200
    assert reason.startswith("ValueError: aaa")
