"""Tables on a terminal of any width: headings and cells may wrap, no number is cut."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Sequence


def terminal_table(
    title: str, headings: Sequence[str], rows: Sequence[Sequence[str]], *, num_names: int = 1
) -> Table:
    """A table whose columns are at least as wide as the longest word of their cells.

    Args:
        title: Stands above it.
        headings: Of its columns.
        rows: Their cells; a short row ends in empty ones.
        num_names: So many columns, the first ones, are names; the others are numbers.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE, collapse_padding=True)
    for index, heading in enumerate(headings):
        words = (word for row in rows for cell in row[index : index + 1] for word in cell.split())
        is_name = index < num_names
        table.add_column(
            heading,
            justify="left" if is_name else "right",
            no_wrap=is_name,
            overflow="fold",  # an ellipsis would make long headings alike
            min_width=max(map(len, words), default=1),
        )
    for row in rows:
        table.add_row(*row)
    return table
