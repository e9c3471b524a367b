"""Which groups are at fault when a cut of many fails."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.slots import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spaces.groups import ChannelGroup


@dataclass(frozen=True, slots=True)
class Failure:
    """What goes wrong when some groups are cut.

    Attributes:
        reason: For the reader.
        modules: Names of the modules on the way to the one that raised, outermost first.
        line: The line of the model's own code.
        number: Of the cut, among those that were tried.
    """

    reason: str
    modules: tuple[str, ...] = ()
    line: str | None = None
    number: int | None = None

    @property
    def place(self) -> Place:
        """Where it went wrong."""
        return Place(None, self.modules[-1] if self.modules else None, self.line)

    def suspects(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Groups with a tensor in the innermost module that has any."""
        for module in reversed(self.modules):
            near = [g for g in groups if any(f"{m.tensor}.".startswith(f"{module}.") for m in g.members)]
            if near:
                return near
        return []


#: What goes wrong when only these groups are cut; with the cut of one number alone, or with all of them.
Check = Callable[["Sequence[ChannelGroup]", "int | None"], "Failure | None"]


def culprits(groups: Sequence[ChannelGroup], failure: Check) -> dict[str, Failure]:
    """The groups that fail, alone or together with others that may then stay, and how.

    Those near the module that raised are looked at first; where that does not help, halves.

    Args:
        groups: What may be at fault.
        failure: What goes wrong when only these groups are cut; ``None`` when nothing does.
    """
    found: dict[str, Failure] = {}
    while True:
        rest = [group for group in groups if group.name not in found]
        what = failure(rest, None) if rest else None
        if what is None:
            return found
        # Blocks of one kind stand or fall together, which saves looking at each.
        kinds = {kind_of(name) for name in found}
        alike = [group for group in what.suspects(rest) if kind_of(group.name) in kinds]
        if alike:
            found |= {group.name: what for group in alike}
        else:
            found |= _guilty(rest, [], what, failure)


def _guilty(
    groups: Sequence[ChannelGroup],
    others: Sequence[ChannelGroup],
    what: Failure,
    failure: Check,
) -> dict[str, Failure]:
    """Some of ``groups``, at least one, that fail when ``others`` are cut, too.

    Args:
        groups: What may be at fault.
        others: Cut with them; alone they do not fail.
        what: What goes wrong when all are cut.
        failure: See :func:`culprits`.
    """
    if len(groups) == 1:
        return {groups[0].name: what}
    near = what.suspects(groups)
    first = near if 0 < len(near) < len(groups) else list(groups[: len(groups) // 2])
    names = {group.name for group in first}
    second = [group for group in groups if group.name not in names]
    found: dict[str, Failure] = {}
    for part in (first, second):
        alone = failure([*others, *part], what.number)
        if alone is not None:
            found |= _guilty(part, others, alone, failure)
            if alone.modules:  # others like it are known by their kind
                return found
    if found:
        return found
    # Neither fails without the other: the part near the failure stays whole.
    return _guilty(first, [*others, *second], what, failure)


def kind_of(name: str) -> str:
    """The name without the numbers that tell blocks apart."""
    return re.sub(r"\d+", "#", name)


def first_line(error: Exception) -> str:
    """Class and first line of an exception."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
