"""What went wrong, what was refused and what came twice?"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from search.report import words
from search.report.names import label
from search.report.section import Column, Section, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from search.report.data import Run
    from search.report.history import Failure, History

_TITLE = "Failures"


def failures(run: Run) -> Section | None:
    """Failures by reason, each with its traceback; refused and repeated proposals by number."""
    history = run.history
    if not history.entries and not history.failures:
        return None
    tables = []
    if history.failures:
        tables += [_reasons(history), _tracebacks(history)]
    if history.refused:
        tables.append(_refused(history))
    return Section("failures", _TITLE, tuple(_words(history)), (), tuple(tables))


def _words(history: History) -> list[str]:
    found = []
    total = len(history.failures)
    if total:
        reason, number = Counter(f.reason for f in history.failures).most_common(1)[0]
        all_ = "all" if number == total else f"{number} of them"
        found.append(f"{words.plural(total, 'evaluation')} failed, {all_} with: {_shortened(reason)}")
    else:
        found.append("No evaluation failed.")
    refused, repeated = sum(history.refused.values()), history.num_duplicates
    if refused or repeated:
        found.append(
            f"Besides, {words.plural(refused, 'proposal')} cost too much or too little and {_were(refused)} "
            f"refused, and {words.plural(repeated, 'proposal')} {_were(repeated)} known already; neither "
            "costs any budget."
        )
    return found


def _were(number: int) -> str:
    return "was" if number == 1 else "were"


def _reasons(history: History) -> Table:
    counts = Counter((failure.rung, failure.reason) for failure in history.failures)
    rows = tuple(
        {"rung": rung, "reason": reason, "times": number}
        for (rung, reason), number in sorted(counts.items(), key=lambda of: (-of[1], of[0]))
    )
    columns = (cells.plain("rung"), Column("reason", "reason", _shown), cells.plain("times"))
    return Table("failure-reasons", "Failures by reason", columns, rows)


def _tracebacks(history: History) -> Table:
    """On the page the last line; the file has it whole."""
    columns = (cells.plain("rung"), cells.plain("candidate"), Column("traceback", "reason", _last_line))
    rows = tuple(map(_row, history.failures))
    return Table("failures", "Every failure", columns, rows, "The CSV file has whole tracebacks.")


def _row(failure: Failure) -> dict[str, object]:
    return {"rung": failure.rung, "candidate": failure.candidate, "traceback": failure.traceback}


def _refused(history: History) -> Table:
    rows = tuple(
        {"reason": reason, "times": number}
        for reason, number in sorted(history.refused.items(), key=lambda of: (-of[1], of[0]))
    )
    columns = (Column("reason", "reason", _shown), cells.plain("times"))
    return Table("refused", "Why proposals were refused", columns, rows)


def _last_line(traceback: object) -> str:
    lines = [line.strip() for line in str(traceback).splitlines() if line.strip()]
    return _shortened(lines[-1]) if lines else ""


def _shown(text: object) -> str:
    return _shortened(str(text))


def _shortened(text: str) -> str:
    return label(text, 300)
