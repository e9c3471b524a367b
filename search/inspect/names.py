"""Many names in few words."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Numbers that count blocks: ``3`` in ``blocks.3.attn`` and in ``encoder_layer_3``, none in ``conv1``.
_COUNTER = re.compile(r"(?<![^._])\d+(?![^._])")


def folded(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names that differ only in their counters become one shell pattern, in order of appearance.

    Returns:
        ``(name or pattern, how many names)``, such as ``("blocks.*.attn.qkv", 12)``.
    """
    alike: dict[str, list[str]] = {}
    for name in names:
        alike.setdefault(_COUNTER.sub("*", name), []).append(name)
    return [_folded(some) for some in alike.values()]


def _folded(names: list[str]) -> tuple[str, int]:
    """Counters that are equal in all of the names stay."""
    pieces = [re.split(r"([._])", name) for name in names]
    return "".join(column[0] if len(set(column)) == 1 else "*" for column in zip(*pieces, strict=True)), len(
        names
    )


def in_words(names: Sequence[str], most: int = 4) -> str:
    """``layer1.*.conv3 x 3, layer1.0.downsample.0``, the rest counted."""
    found = folded(names)
    shown = [name if count == 1 else f"{name} x {count}" for name, count in found[:most]]
    rest = sum(count for _, count in found[most:])
    return ", ".join(shown) + (f" and {rest} more" if rest else "")


def one_line(text: str, most: int = 160) -> str:
    """Foreign text without line breaks and control characters, cut where it gets long."""
    flat = "".join(letter if letter.isprintable() else "?" for letter in " ".join(text.split()))
    return flat if len(flat) <= most else f"{flat[: most - 1]}\N{HORIZONTAL ELLIPSIS}"
