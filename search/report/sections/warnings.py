"""What must a reader know before believing the numbers?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report.section import Section, Table
from search.report.sections import cells
from search.report.sections.latency import latency_warnings

if TYPE_CHECKING:
    from search.report.data import Run


def warnings(run: Run) -> Section | None:
    """Of this reading, of the run and of its latencies; as a table, since they can be many and long."""
    found = [
        *(("report", text) for text in run.remarks),
        *(("run", text) for text in run.result.warnings),
        *(("latency", text) for text in latency_warnings(run)),
    ]
    if not found:
        return None
    rows = tuple({"from": source, "warning": text} for source, text in found)
    table = Table("warnings", "All warnings", (cells.plain("from"), cells.plain("warning")), rows)
    return Section("warnings", "Warnings", (), (), (table,))
