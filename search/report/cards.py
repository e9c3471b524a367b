"""What the page says of a single network: its sizes, files, latencies and how to take it home."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from search.latencies import Measurement
    from search.report.data import Final, Run

#: Forms in which a network can be exported, and what they are for.
EXPORTS = {
    "architecture": "PyTorch, to train on",
    "onnx": "ONNX",
    "pt2": "torch.export",
    "int8": "ONNX in 8 bits",
}
_WEIGHTS = "weights.safetensors"


@dataclass(frozen=True, slots=True)
class Card:
    """One final with what the run folder adds to it.

    Attributes:
        key: Names it on the page; a network may be there twice, on the front and as a control.
        final: The network.
        latencies: What was measured of it.
        files: Names and bytes of what is saved of it.
        exports: Format, what it is for, and the command that makes it; empty where nothing is saved.
    """

    key: str
    final: Final
    latencies: tuple[Measurement, ...]
    files: tuple[tuple[str, int], ...]
    exports: tuple[tuple[str, str, str], ...]

    @property
    def weights_bytes(self) -> int | None:
        """Size of the saved weights."""
        return dict(self.files).get(_WEIGHTS)


def make_cards(run: Run) -> tuple[Card, ...]:
    """A card for each final: the front, what it dominates, the controls."""
    return tuple(_card(run, f"card-{i}", final) for i, final in enumerate(run.finals))


def _card(run: Run, key: str, final: Final) -> Card:
    id_ = final.point.id
    files = _files(run.folder / "architectures" / id_)
    saved = "architecture.json" in dict(files)
    return Card(
        key=key,
        final=final,
        latencies=tuple(found for found in run.latencies if found.id == id_),
        files=files,
        exports=tuple((name, use, pick_command(run, id_, name)) for name, use in EXPORTS.items())
        if saved
        else (),
    )


def dense_bytes(run: Run) -> int:
    """Size of the dense network's weights: its file where the run saved one, else four bytes a parameter."""
    path = run.folder / "dense.safetensors"
    return path.stat().st_size if path.is_file() else 4 * run.result.dense.params


def pick_command(run: Run, id_: str, format_: str) -> str:
    """The command that exports a point of this run, quoted for a shell."""
    words = ("python", "-m", "search.pick", str(run.folder), "--id", id_, "--export", format_)
    return shlex.join(words)


def _files(folder: Path) -> tuple[tuple[str, int], ...]:
    if not folder.is_dir():
        return ()
    return tuple((path.name, path.stat().st_size) for path in sorted(folder.iterdir()) if path.is_file())
