"""What is known of each network of a front, by column: ``front.csv``'s, size on disk, measured latencies."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from search.latencies import read_latencies
from search.report.data import Run, full_widths
from search.report.tables import csv_rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from search.latencies import Measurement
    from search.result import Point, Result

WEIGHTS = "weights.safetensors"
SIZE = "size_bytes"
LATENCY, RATIO = "latency_ms", "latency_ratio"


@dataclass(frozen=True, eq=False)
class Columns:
    """A front with what can be asked of its points.

    Attributes:
        result: ``front.json``.
        cells: By id, then by column; a cell that is missing or ``None`` is empty.
        latencies: What was measured.
    """

    result: Result
    cells: Mapping[str, Mapping[str, object]]
    latencies: tuple[Measurement, ...] = field(default=())

    @property
    def names(self) -> list[str]:
        """Every column that any point of the front has, in order."""
        front = {point.id for point in self.result.points}
        return list(dict.fromkeys(name for id_, row in self.cells.items() if id_ in front for name in row))

    def number(self, point: Point, name: str) -> float | None:
        """A cell; ``None`` where it is empty or no number."""
        cell = self.cells[point.id].get(name)
        return float(cell) if isinstance(cell, int | float) and not isinstance(cell, bool) else None

    def is_numeric(self, name: str) -> bool:
        """Whether no point of the front has a text there, and at least one has a number."""
        cells = [self.cells[point.id].get(name) for point in self.result.points]
        return any(cell is not None for cell in cells) and not any(isinstance(cell, str) for cell in cells)

    @property
    def latency_setups(self) -> list[str]:
        """How latencies of the front were measured, as the ends of their columns."""
        return [name.removeprefix(f"{LATENCY}:") for name in self.names if name.startswith(f"{LATENCY}:")]

    @property
    def aliases(self) -> dict[str, str]:
        """Short names of latencies that were measured in one way only, and their columns."""
        setups = self.latency_setups
        short = (LATENCY, RATIO) if len(setups) == 1 else ()
        return {name: f"{name}:{setups[0]}" for name in short if name not in self.names}


def columns(result: Result, folder: Path | None = None) -> Columns:
    """Everything that a run folder says of its front.

    Args:
        result: Its ``front.json``.
        folder: The run folder; without one, sizes and latencies are not known.

    Raises:
        ValueError: If ``latency.json`` can not be read.
    """
    run = Run(folder=folder, result=result, dots=(), config={}, full_widths=full_widths(result, ()))  # type: ignore[arg-type]
    cells: dict[str, dict[str, object]] = {}
    for row in csv_rows(run):
        cells.setdefault(str(row["id"]), dict(row))  # the front comes first
    measured = read_latencies(folder) if folder is not None else ()
    for point in (*result.controls, *result.dominated, *result.points):
        if (ms := getattr(point, LATENCY, None)) is not None:
            cells[point.id] |= {LATENCY: ms, RATIO: ms / (getattr(result.dense, LATENCY, None) or math.nan)}
    for id_, row in cells.items():
        if folder is not None and (path := folder / "architectures" / id_ / WEIGHTS).is_file():
            row[SIZE] = path.stat().st_size
    for m in measured:
        if m.id in cells:
            cells[m.id][f"{LATENCY}:{setup_of(m, measured)}"] = m.median_ms
            cells[m.id][f"{RATIO}:{setup_of(m, measured)}"] = m.ratio
    return Columns(result, cells, measured)


def setup_of(measurement: Measurement, among: Iterable[Measurement]) -> str:
    """How something was measured, as part of a column's name; the machine only where there are several."""
    m = measurement
    parts = [m.backend, m.device, f"{m.threads}-threads", f"batch-{m.batch}"]
    if len({other.machine for other in among}) > 1:
        parts.append(m.machine)
    return ":".join(part.replace(" ", "-") for part in parts)
