"""Tables of the report as comma-separated values that no spreadsheet takes for formulas."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from search.report.data import Run
    from search.report.section import Table
    from search.result import Result

#: Columns of ``front.csv`` that are a point's own fields.
CSV_FIELDS = ("id", "macs", "params", "score", "rung", "weights", "saved_test", "origin", "control_of")


#: What a spreadsheet reads a formula from; a tab or a return before it is skipped there.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def front_csv(run: Run) -> str:
    """The front, then dominated finals, then controls."""
    rows = csv_rows(run)
    return csv_text(list(rows[0]) if rows else ["kind", *CSV_FIELDS], rows)


def table_csv(table: Table) -> str:
    """All rows of a table with their raw values; unfolded, whatever the page shows."""
    return csv_text([column.key for column in table.columns], table.rows)


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, object]]) -> str:
    """Comma-separated values with a head; cells that are missing or ``None`` are empty."""
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(_harmless(column) for column in columns)
    writer.writerows([_harmless(row.get(column)) for column in columns] for row in rows)
    return buffer.getvalue()


def _harmless(cell: object) -> object:
    """Names come from strangers: a text that would be a formula is quoted as spreadsheets quote text."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def csv_rows(run: Run) -> list[dict[str, object]]:
    """One flat row for each final; every row has the same columns in the same order."""
    dense = run.result.dense
    methods = _methods(run.result)
    rows = []
    for final in run.finals:
        point = final.point
        row: dict[str, object] = {"kind": final.kind, **{name: getattr(point, name) for name in CSV_FIELDS}}
        row["macs_share"] = point.macs / dense.macs
        row["params_share"] = point.params / dense.params
        row["metric"] = run.result.metric
        for split, summaries in (("holdout", point.scores), ("test", point.test)):
            for method in methods:
                for statistic in ("mean", "sd", "n"):
                    row[f"{split}_{method}_{statistic}"] = getattr(summaries.get(method), statistic, None)
        row |= {f"width:{name}": point.widths.get(name) for name in run.full_widths}
        row |= {f"criterion:{name}": point.criteria.get(name) for name in run.full_widths}
        rows.append(row)
    return rows


def _methods(result: Result) -> tuple[str, ...]:
    """Methods that any final has, in the order that the first one names them."""
    points = (*result.points, *result.dominated, *result.controls)
    return tuple(dict.fromkeys(name for point in points for name in (*point.scores, *point.test)))
