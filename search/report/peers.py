"""``peers.json`` of a run folder: points of others that a benchmark adds to the report's front.

.. code-block:: json

    {"schema": 1, "points": [
        {"name": "L1, uniform", "macs": 20300000, "params": 135000, "score": 0.8895, "split": "test",
         "source": "scripts/reports/2026-11-22-peers.md"}]}

``macs`` and ``params`` (which may be missing) count as ``front.json`` does, ``score`` is in the run's own
metric, a fraction for top-1, on the split that ``split`` names: ``test`` or ``holdout``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.finite import is_finite
from search.whole import read_rows

if TYPE_CHECKING:
    from pathlib import Path

FILE = "peers.json"
SCHEMA = 1


@dataclass(frozen=True, slots=True)
class Peer:
    """A network that somebody else made smaller.

    Attributes:
        name: What people call it.
        macs: Multiply-adds for a batch of one.
        score: The run's metric; higher is better.
        split: What it was scored on, ``test`` or ``holdout``.
        source: Where the numbers come from; may be empty.
        params: Number of parameters, where known.
    """

    name: str
    macs: float
    score: float
    split: str
    source: str = ""
    params: float | None = None

    def __post_init__(self) -> None:
        if not all(isinstance(text, str) for text in (self.name, self.split, self.source)):
            raise ValueError("`name`, `split` and `source` must be text")
        if self.split not in {"test", "holdout"}:
            raise ValueError(f"`split` of {self.name[:60]!r} must be test or holdout")
        sizes = (self.macs,) if self.params is None else (self.macs, self.params)
        if not (all(map(is_finite, (*sizes, self.score))) and min(sizes) > 0):
            raise ValueError(f"{self.name[:60]!r} needs finite numbers, and sizes above 0")


def read_peers(folder: Path) -> tuple[Peer, ...]:
    """The peers' points of a run; empty where nobody added any.

    Raises:
        ValueError: If the file is not what it should be.
    """
    return read_rows(folder / FILE, SCHEMA, "points", Peer)
