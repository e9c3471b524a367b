"""Errors that a user can mend: they name the option, the value and the rule."""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class OptionError(ValueError):
    """An option's value breaks a rule; the message fits one line.

    Args:
        option: The option's name without dashes, e.g. ``"data-root"``.
        value: What was given; ``None`` for a flag.
        rule: What would have been right.
    """

    def __init__(self, option: str, value: object, rule: str) -> None:
        super().__init__(f"--{option}{'' if value is None else f' {value}'}: {rule}")
        self.option, self.value, self.rule = option, value, rule

    def __reduce__(self) -> tuple[type[OptionError], tuple[str, str | None, str]]:
        """It may travel from a worker, where the value may be anything."""
        return type(self), (self.option, None if self.value is None else str(self.value), self.rule)


def choose(option: str, value: str, names: Iterable[str]) -> str:
    """``value`` if it is one of ``names``.

    Raises:
        OptionError: If it is not; the message offers the nearest names.
    """
    names = sorted(names)
    if value in names:
        return value
    near = difflib.get_close_matches(value, names, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else f"choose one of {', '.join(names)}."
    raise OptionError(option, repr(value), f"unknown {option}; {hint}")
