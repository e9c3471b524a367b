"""Results on the terminal, for whoever works on the tracer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from modelzoo.report import FAMILY_TITLES, family_row, in_family

if TYPE_CHECKING:
    from modelzoo.entry import Entry
    from modelzoo.verdict import Verdict


def table(verdicts: list[Verdict]) -> Table:
    """One line per model."""
    shown = Table(
        "model", "s", "MB", "groups", "MACs can go", "half", "smallest", "check", "torch-pruning", "notes"
    )
    for verdict in verdicts:
        ours, peer = verdict.ours, verdict.peer or {}
        notes = [*verdict.wrong, *verdict.behind]
        if verdict.error and not verdict.traced:
            notes.append(verdict.error)
        if "uncounted" in ours:
            notes.append(ours["uncounted"])
        numbers = (
            (
                f"{ours['seconds']:.2f}",
                f"{ours['peak_mb']:.0f}",
                f"{ours['groups']}" + (f" ({ours['inexact']} inexact)" if ours["inexact"] else ""),
                f"{ours['macs_prunable']:.1%}",
                f"{ours['half']:.1%}",
                f"{ours['smallest']:.2%}",
                _worst(ours),
            )
            if verdict.traced
            else ("-",) * 7
        )
        beside = (
            f"{peer['half']:.1%} {peer.get('smallest', 1.0):.2%}"
            if verdict.peer_works
            else verdict.peer_says[:60]
        )
        style = "red" if verdict.wrong or verdict.error else None if verdict.halves else "yellow"
        shown.add_row(verdict.entry.label, *numbers, escape(beside), escape("; ".join(notes)), style=style)
    return shown


def _worst(ours: dict[str, Any]) -> str:
    """Largest difference from what a cut stands for."""
    found = [value for key, value in ours.items() if key.startswith("difference")]
    return f"{max(found):.0e}" if found else "-"


def summary(verdicts: list[Verdict]) -> Table:
    """One line per family."""
    rows = {family: family_row(in_family(verdicts, family)) for family in FAMILY_TITLES}
    names = next((list(row) for row in rows.values() if row), [])
    shown = Table("family", *names)
    for family, row in rows.items():
        if row:
            shown.add_row(family, *row.values())
    return shown


def details(entry: Entry, role: str, record: dict[str, Any]) -> str:
    """All that a record says besides its numbers."""
    lines = [f"[bold]{entry.label} {role}[/bold] {escape(record.get('error', ''))}"]
    lines += [f"  wrong: {escape(fact)}" for fact in record.get("wrong", ())]
    lines += [f"  warning: {escape(warning)}" for warning in record.get("warnings", ())]
    for frozen in record.get("frozen", ()):
        at = ", ".join(str(frozen[key]) for key in ("operator", "module", "line") if frozen[key])
        lines.append(
            f"  frozen: {escape(frozen['name'])} ({frozen['width']}): {escape(frozen['reason'])} [{at}]"
        )
    if record.get("num_frozen", 0) > len(record.get("frozen", ())):
        lines.append(f"  frozen: {record['num_frozen'] - len(record['frozen'])} more")
    return "\n".join(lines)
