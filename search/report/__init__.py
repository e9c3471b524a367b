"""What a run found, for people: ``report.html``, ``front.png`` and ``front.csv``, made from its folder."""

from __future__ import annotations

from search.report.write import write_report

__all__ = ["write_report"]
