"""What a run may spend and where it may look: ``--budget`` and ``--macs``."""

from __future__ import annotations

import re
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from evaluators.options import OptionError

if TYPE_CHECKING:
    from spaces.space import Space

_SECONDS = {"s": 1, "m": 60, "h": 3600}
_BYTES = {"": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_MAGNITUDES = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9}

#: Random architectures that look for a way into a narrow window.
_NUM_TRIES = 256


@dataclass(frozen=True, slots=True)
class Budget:
    """Exactly one of the three.

    Attributes:
        evaluations: Candidates evaluated on rung 1, seeds and controls included, duplicates not.
        seconds: Wall clock of rungs 1 and 2.
        gpu_hours: Of rungs 1 and 2, summed over workers.
    """

    evaluations: int | None = None
    seconds: float | None = None
    gpu_hours: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """``40``, ``90s``, ``30m``, ``2h`` or ``8gpuh``.

        Raises:
            OptionError: If the text is none of these, or not positive.
        """
        match = re.fullmatch(r"(-?\d+(?:\.\d+)?)(s|m|h|gpuh)?", text)
        if not match or ("." in match[1] and not match[2]):
            raise OptionError(
                "budget", text, "give a whole number of candidates, or a time such as 90s, 30m, 2h or 8gpuh."
            )
        value = float(match[1])
        if value <= 0:
            raise OptionError("budget", text, "must be more than zero.")
        if match[2] == "gpuh":
            return cls(gpu_hours=value)
        if match[2]:
            return cls(seconds=value * _SECONDS[match[2]])
        return cls(evaluations=int(match[1]))

    def is_less_than(self, other: Budget) -> bool:
        """Whether it is of the same kind and smaller."""
        pairs = zip(astuple(self), astuple(other), strict=True)
        return any(mine < theirs for mine, theirs in pairs if mine is not None and theirs is not None)


def parse_seconds(option: str, text: str) -> float:
    """``90s``, ``30m`` or ``2h``.

    Raises:
        OptionError: If the text is none of these, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", text)
    if not match or not float(match[1]):
        raise OptionError(option, text, "give a time such as 90s, 30m or 2h.")
    return float(match[1]) * _SECONDS[match[2]]


@dataclass(frozen=True, slots=True)
class Window:
    """MACs that a candidate may have, both ends included."""

    low: int
    high: int

    def __contains__(self, macs: int) -> bool:
        return self.low <= macs <= self.high

    @classmethod
    def parse(cls, text: str, space: Space) -> Window:
        """``20%:90%`` (of dense) or ``10M:30M`` (multiply-adds).

        Raises:
            OptionError: If the text is no window, or no architecture of the space lies in it; the
                message says what can be met.
        """
        dense = space.macs(space.dense)
        low, colon, high = text.partition(":")
        if not colon:
            raise OptionError("macs", text, "give a window LOW:HIGH, such as 20%:90% or 10M:30M.")
        window = cls(-int(-_bound(low, text, dense) // 1), int(_bound(high, text, dense)))
        if window.low > window.high:
            raise OptionError("macs", text, "the lower end must not be above the upper end.")
        window.check(text, space)
        return window

    def check(self, text: str, space: Space) -> None:
        """Raise unless some architecture lies inside.

        Raises:
            OptionError: Saying what can be met.
        """
        dense, least = space.macs(space.dense), space.macs(space.smallest)
        reachable = f"this model can have {_share(least, dense)} to {_share(dense, dense)}"
        if self.high < least or self.low > dense:
            raise OptionError("macs", text, f"no architecture has so many multiply-adds; {reachable}.")
        share = min(1.0, (self.high + 0.5) / dense)
        generator = torch.Generator().manual_seed(0)
        near = {space.macs(space.fit(dict.fromkeys(space.ratios(space.dense), 1.0), macs=share))}
        if max(near) in self:
            return
        near |= {space.macs(space.sample(generator, macs=share)) for _ in range(_NUM_TRIES)}
        if not any(macs in self for macs in near):
            nearest = _share(max(near), dense)
            raise OptionError(
                "macs", text, f"no architecture lies in this window; {reachable}, nearest {nearest}."
            )


def memory_bytes(text: str) -> int:
    """``4GiB``, ``500MiB`` or a number of bytes.

    Raises:
        OptionError: If the text is none of these, or not positive.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(KiB|MiB|GiB)?", text)
    if not match or not (size := int(float(match[1]) * _BYTES[match[2] or ""])):
        raise OptionError("statistics-memory", text, "give a size such as 500MiB or 4GiB.")
    return size


def _bound(text: str, window: str, dense: int) -> float:
    match = re.fullmatch(r"(\d+(?:\.\d+)?)(%|k|M|G)?", text.strip())
    if not match:
        raise OptionError("macs", window, "each end is a share such as 20% or multiply-adds such as 10M.")
    value, unit = float(match[1]), match[2] or ""
    if unit != "%":
        # A bare number up to 1 can only be meant as a share.
        return value * dense if not unit and value <= 1 else value * _MAGNITUDES[unit]
    if value > 100:
        raise OptionError("macs", window, "a share is at most 100%.")
    return float(np.float64(value) * dense / 100)


def _share(macs: int, dense: int) -> str:
    return f"{macs / dense:.1%} ({macs / 1e6:.3g}M)"
