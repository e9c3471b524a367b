"""Amounts as people write them: shares of the dense network, numbers with a unit, sizes on disk, scores."""

from __future__ import annotations

import math
import re
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from evaluators.options import OptionError

if TYPE_CHECKING:
    from search.report.words import Metric

_MULTIPLES = {"k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
#: Nothing is so large; beyond it, arithmetic would fail.
_MOST = Decimal(10) ** 30
_BYTES = {"": 1, "B": 1}
_BYTES |= {f"{prefix}B": 1000**power for power, prefix in ((1, "k"), (2, "M"), (3, "G"))}
_BYTES |= {f"{prefix}iB": 1024**power for power, prefix in ((1, "K"), (2, "M"), (3, "G"))}


def amount(option: str, text: str, dense: int) -> Decimal:
    """``50%`` of dense, ``30M`` or a plain number.

    Raises:
        OptionError: If it is neither, or not positive.
    """
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in {"%", *_MULTIPLES} else (text, "")
    number = _positive(digits)
    if number is None:
        raise OptionError(
            option, repr(text), "must be a share of dense like 50%, or a number like 30M, above 0."
        )
    return number / 100 * dense if unit == "%" else number * _MULTIPLES.get(unit, 1)


def size(option: str, text: str) -> Decimal:
    """``1MB``, ``500kB``, ``2MiB`` or a number of bytes.

    Raises:
        OptionError: If it is none of these, or not positive.
    """
    found = re.fullmatch(r"([0-9.eE+]+?)\s*([kKMG]?i?B?)", text)
    number = _positive(found[1]) if found else None
    if found is None or number is None or found[2] not in _BYTES:
        raise OptionError(option, repr(text), "must be a size on disk like 1MB, 500kB or 2MiB, above 0.")
    return number * _BYTES[found[2]]


def score(option: str, text: str, metric: Metric) -> float:
    """``93%``, ``93`` or ``0.93`` of a fraction; any other metric as it is.

    Raises:
        OptionError: If it is no number, a fraction outside 0 to 1, or a percentage of what is no fraction.
    """
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = math.nan
    is_percent = text.endswith("%") or (metric.is_fraction and number > 1)
    number = number / 100 if is_percent else number
    is_wrong = not 0 <= number <= 1 if metric.is_fraction else text.endswith("%")
    if not math.isfinite(number) or is_wrong:
        rule = "must lie between 0% and 100%, like 93% or 0.93."
        raise OptionError(option, repr(text), rule if metric.is_fraction else "must be a number.")
    return number


def plain(text: str) -> float | None:
    """``0.5``, ``50%`` as the same, ``30M``; ``None`` for what is no number."""
    digits, unit = (text[:-1], text[-1:]) if text[-1:] in {"%", *_MULTIPLES} else (text, "")
    try:
        number = float(digits)
    except ValueError:
        return None
    if not math.isfinite(number):
        return None
    return number / 100 if unit == "%" else number * _MULTIPLES.get(unit, 1)


def _positive(digits: str) -> Decimal | None:
    try:
        number = Decimal(digits)
    except InvalidOperation:
        return None
    return number if number.is_finite() and 0 < number < _MOST else None
