"""An inspection on a terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from search.inspect.bundles import bundled
from search.inspect.names import in_words, one_line
from search.inspect.words import coupling_words, part, place_words, summary_lines

if TYPE_CHECKING:
    from rich.console import Console

    from search.inspect.inspection import Inspection


def print_inspection(console: Console, found: Inspection) -> None:
    """What was found, the groups, and what stays whole."""
    first, *others = summary_lines(found)
    _say(console, f"{one_line(found.model)}: {first}")
    for line in others:
        _say(console, line)
    if found.groups:
        console.print(_groups(found))
        _say(console, "MACs, params: the share of the network that depends on the group.")
    if found.frozen:
        console.print(_frozen(found))
    if found.groups and not all(group.exact for group in found.groups):
        _say(
            console,
            "not exact: a norm or a mean over the units changes when some go, so a cut differs from masking.",
        )
    for warning in found.warnings:
        _say(console, f"warning: {one_line(warning, 1000)}")


def _say(console: Console, line: str) -> None:
    console.print(line, highlight=False, markup=False, soft_wrap=True)


def _groups(found: Inspection) -> Table:
    table = Table(title="May be pruned", title_justify="left", box=box.SIMPLE)
    table.add_column("group", overflow="fold")
    for heading in ("width", "smallest"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("unit", no_wrap=True)
    for heading in ("MACs", "params"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("exact", no_wrap=True)
    table.add_column("couples", overflow="fold")
    for group in found.groups:
        cells = (
            group.name,
            str(group.width),
            str(group.smallest),
            group.unit,
            part(group.macs_share, 1),
            part(group.params_share, 1),
            "yes" if group.exact else "no",
            coupling_words(group),
        )
        table.add_row(*map(_cell, cells))
    return table


def _frozen(found: Inspection) -> Table:
    table = Table(title="Stays whole", title_justify="left", box=box.SIMPLE)
    table.add_column("why", overflow="fold")
    table.add_column("where", overflow="fold")
    table.add_column("outputs", justify="right", no_wrap=True)
    table.add_column("layers", overflow="fold")
    for bundle in bundled(found.frozen):
        cells = (bundle.reason, place_words(bundle), str(bundle.width), in_words(bundle.names))
        table.add_row(*map(_cell, cells))
    return table


def _cell(text: str) -> Text:
    """Foreign text as it is: no markup, nothing that steers the terminal."""
    return Text(one_line(text, 300))
