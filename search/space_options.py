"""The options that narrow a space: one spelling for every command that traces a model."""

from __future__ import annotations

import difflib
import math
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, TypeVar

import click

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from torch import nn

    from spaces.space import Space

_Command = TypeVar("_Command", bound="Callable[..., Any]")
_Number = TypeVar("_Number", int, float)

#: Share of its units that every group keeps unless told otherwise.
SMALLEST = 0.2

_OPTIONS = (
    click.option(
        "--divisor", type=int, metavar="N", help="Kept widths are multiples of it; the task's own by default."
    ),
    click.option(
        "--smallest",
        type=float,
        metavar="SHARE",
        default=SMALLEST,
        show_default=True,
        help="Share of its units that every group keeps: thin layers choke a network.",
    ),
    click.option(
        "--include",
        multiple=True,
        metavar="PATTERN",
        help="Prune only groups with such names (shell pattern, repeatable).",
    ),
    click.option(
        "--exclude", multiple=True, metavar="PATTERN", help="Leave groups with such names whole (repeatable)."
    ),
    click.option(
        "--ignore",
        multiple=True,
        metavar="PATTERN",
        help="Leave modules with such names whole, and what is coupled to them (repeatable).",
    ),
    click.option(
        "--divisor-of",
        multiple=True,
        metavar="PATTERN=N",
        help="--divisor of groups with such names; the last match counts (repeatable).",
    ),
    click.option(
        "--smallest-of",
        multiple=True,
        metavar="PATTERN=SHARE",
        help="--smallest of groups with such names; the last match counts (repeatable).",
    ),
)


def space_options(command: _Command) -> _Command:
    """Add the options to a click command; they stay in this order in its help."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def trace_arguments(
    *,
    divisor: int,
    smallest: float,
    include: Sequence[str],
    exclude: Sequence[str],
    ignore: Sequence[str],
    divisor_of: Sequence[str],
    smallest_of: Sequence[str],
) -> dict[str, Any]:
    """The keyword arguments of :func:`spaces.trace` for what the options say.

    Args:
        divisor: ``--divisor``, or the task's own.
        smallest: ``--smallest``.
        include: Patterns of group names.
        exclude: Patterns of group names.
        ignore: Patterns of module names.
        divisor_of: ``PATTERN=N``, in order.
        smallest_of: ``PATTERN=SHARE``, in order.

    Raises:
        OptionError: If a number is out of range or a text has another form.
    """
    if divisor < 1:
        raise OptionError("divisor", divisor, "must be at least 1.")
    if not 0 <= smallest <= 1:
        raise OptionError("smallest", smallest, "must be between 0 and 1.")
    return {
        "divisor": divisor,
        "smallest": smallest,
        "include": tuple(include),
        "exclude": tuple(exclude),
        "ignore": tuple(ignore),
        "divisor_of": divisors_of(divisor_of),
        "smallest_of": smallest_shares_of(smallest_of),
    }


def check_patterns(arguments: Mapping[str, Any], model: nn.Module, space: Space) -> None:
    """Refuse patterns that fit nothing, as a misspelt name does.

    Args:
        arguments: From :func:`trace_arguments`.
        model: What was traced with them.
        space: What came out.

    Raises:
        OptionError: If a pattern fits no group, frozen ones included, or no module.
    """
    groups = list(dict.fromkeys([*(g.name for g in space.groups), *(f.name for f in space.frozen)]))
    modules = [name for name, _ in model.named_modules()]
    for option in ("include", "exclude", "ignore", "divisor_of", "smallest_of"):
        names, kind = (modules, "module") if option == "ignore" else (groups, "group")
        for pattern in arguments[option]:
            # What stays whole is named after its layer, without the number of a second group of it.
            forms = (pattern,) if kind == "module" else (pattern, re.sub(r"#[\d*?]+$", "", pattern))
            if not any(fnmatchcase(name, form) for name in names for form in forms):
                named = [name for name in names if name]
                close = difflib.get_close_matches(pattern, named, n=3, cutoff=0.3) or named[:3]
                hint = f"; try {', '.join(close)}" if close else ""
                rule = f"fits no {kind} of the model{hint}."
                raise OptionError(option.replace("_", "-"), repr(pattern), rule)


def divisors_of(texts: Sequence[str]) -> dict[str, int]:
    """``--divisor-of``: pattern to divisor, in the order given.

    Raises:
        OptionError: If a text is not ``PATTERN=N`` with a whole number of at least 1.
    """
    rule = "must be PATTERN=N with a whole number of at least 1, such as layer1.*=16."
    return _per_pattern("divisor-of", texts, int, (1, math.inf), rule)


def smallest_shares_of(texts: Sequence[str]) -> dict[str, float]:
    """``--smallest-of``: pattern to share, in the order given.

    Raises:
        OptionError: If a text is not ``PATTERN=SHARE`` with a share between 0 and 1.
    """
    rule = "must be PATTERN=SHARE with a share between 0 and 1, such as layer1.*=0.5."
    return _per_pattern("smallest-of", texts, float, (0, 1), rule)


def _per_pattern(
    option: str,
    texts: Sequence[str],
    number: Callable[[str], _Number],
    limits: tuple[float, float],
    rule: str,
) -> dict[str, _Number]:
    found: dict[str, _Number] = {}
    for text in texts:
        # A pattern may hold an equals sign, a number can not.
        pattern, _, written = text.rpartition("=")
        try:
            value = number(written)
        except ValueError as error:
            raise OptionError(option, repr(text), rule) from error
        if not pattern or not limits[0] <= value <= limits[1]:
            raise OptionError(option, repr(text), rule)
        found.pop(pattern, None)  # what is repeated moves to the end: of several that match, the last counts
        found[pattern] = value
    return found
