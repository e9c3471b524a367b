"""Numbers out of files that strangers may have written."""

from __future__ import annotations

import math


def is_finite(value: object) -> bool:
    """Whether a value is a number that computations take: no truth value, infinity or endless integer."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:
        return False
