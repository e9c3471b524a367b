"""What stays whole, by cause: a long list becomes a few lines."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spaces.frozen import Frozen


@dataclass(frozen=True, slots=True)
class Bundle:
    """Layers that stay whole for the same cause.

    Attributes:
        reason: The cause.
        operator: ATen operator at which it was decided.
        names: Of the layers.
        width: Outputs that stay, over all of them.
        places: ``module, line`` where it was decided, each once.
    """

    reason: str
    operator: str | None
    names: tuple[str, ...]
    width: int
    places: tuple[tuple[str | None, str | None], ...]


def bundled(frozen: Sequence[Frozen]) -> tuple[Bundle, ...]:
    """One bundle for each reason and operator, the widest first."""
    alike: dict[tuple[str, str | None], list[Frozen]] = {}
    for one in frozen:
        alike.setdefault((one.reason, one.operator), []).append(one)
    found = [
        Bundle(
            reason=reason,
            operator=operator,
            names=tuple(dict.fromkeys(one.name for one in some)),
            width=sum(one.width for one in some),
            places=tuple(dict.fromkeys((one.module, one.line) for one in some if one.module or one.line)),
        )
        for (reason, operator), some in alike.items()
    ]
    return tuple(sorted(found, key=lambda bundle: -bundle.width))
