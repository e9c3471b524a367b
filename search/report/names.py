"""Text of a run folder as a page may show it: nothing in it steers the text around it, nothing is endless."""

from __future__ import annotations

import re

# Control letters, and those that turn the direction of what follows them; joiners stay, emoji need them.
_STEERING = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]"
)


def plain(text: str) -> str:
    """The text without control letters and without those that turn its direction."""
    return _STEERING.sub("\N{REPLACEMENT CHARACTER}", text)


def shortened(text: str, most: int = 40) -> str:
    """A name that fits a line."""
    return text if len(text) <= most else text[: most - 1] + "\N{HORIZONTAL ELLIPSIS}"


def label(text: str, most: int = 40) -> str:
    """A name that is safe and fits a line."""
    return shortened(plain(text), most)
