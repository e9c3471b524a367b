"""What the report says below the front, section by section."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.report.data import Run
    from search.report.section import Section


def sections(run: Run) -> tuple[Section, ...]:  # noqa: ARG001
    """None yet."""
    return ()
