"""Records on disk: one JSON line per job, so that a run that was stopped can go on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

#: By label and role (``ours`` or ``peer``).
Records = dict[tuple[str, str], dict[str, Any]]


def load(path: Path) -> Records:
    """All records of a file; the last of each job counts, and a torn last line is left out."""
    records: Records = {}
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except json.JSONDecodeError:
            continue
        records[record.pop("label"), record.pop("role")] = record
    return records


def append(path: Path, label: str, role: str, record: dict[str, Any]) -> None:
    """Add one line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torn = path.exists() and path.read_bytes()[-1:] not in (b"\n", b"")
    with path.open("a") as file:
        file.write(("\n" if torn else "") + json.dumps({"label": label, "role": role} | record) + "\n")
