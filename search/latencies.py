"""``latency.json`` of a run folder: what networks of a run took, on one machine or several."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from search.finite import is_finite
from search.whole import read_rows, write_whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

FILE = "latency.json"
SCHEMA = 1

#: A network with fewer MACs than dense is no faster above this share of dense's latency.
NO_FASTER = 0.97


@dataclass(frozen=True, slots=True)
class Measurement:
    """What one network took in one way of running it.

    Attributes:
        id: The point's id, or ``dense``.
        backend: ``eager``, ``compile`` or ``onnxruntime``.
        device: ``cpu``, or the name of the GPU.
        threads: CPU threads.
        batch: Examples at a time.
        median_ms: Of one batch; lower is better.
        spread_ms: Between the quartiles.
        ratio: To the dense network, measured in turns with it; 1 for the dense network itself.
        repeats: Timed runs.
        machine: Where: the CPU's or GPU's name.
    """

    id: str
    backend: str
    device: str
    threads: int
    batch: int
    median_ms: float
    spread_ms: float
    ratio: float
    repeats: int
    machine: str


def is_no_faster(macs_share: float, ratio: float) -> bool:
    """Whether MACs fall and latency does not.

    Args:
        macs_share: MACs as a share of dense.
        ratio: Latency as a share of dense.
    """
    return macs_share < NO_FASTER <= ratio


def read_latencies(folder: Path) -> tuple[Measurement, ...]:
    """What was measured of a run's networks; empty where nothing was.

    Raises:
        ValueError: If the file is not what it should be.
    """
    found = read_rows(folder / FILE, SCHEMA, "measurements", Measurement)
    for row in found:
        numbers = (row.threads, row.batch, row.median_ms, row.spread_ms, row.ratio, row.repeats)
        if not all(isinstance(text, str) for text in (row.id, row.backend, row.device, row.machine)):
            raise ValueError(f"{FILE}: `id`, `backend`, `device` and `machine` must be text")
        if not all(is_finite(n) and n >= 0 for n in numbers):
            raise ValueError(f"{FILE}: {row.id!r} needs finite numbers")
    return found


def write_latencies(folder: Path, measurements: Sequence[Measurement]) -> None:
    """Write the file, whole or not at all; what it held of others stays, the same measurement is replaced."""
    kept = {
        (m.id, m.backend, m.device, m.threads, m.batch, m.machine): m
        for m in (*read_latencies(folder), *measurements)
    }
    document = {"schema": SCHEMA, "measurements": [asdict(m) for m in kept.values()]}
    write_whole(folder / FILE, json.dumps(document, indent=1, allow_nan=False) + "\n")
