"""``python -m search.report RUN``: write the report of a run folder again."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from search.command import run_command
from search.report.write import FILES, write_report


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
def report(run: Path) -> None:
    """Write front.csv, front.png and report.html of the run folder RUN from its records."""
    try:
        write_report(run)
    except ValueError as error:
        raise click.UsageError(f"{run}: {error}") from error
    except PermissionError as error:
        raise click.UsageError(f"{run}: can not be read or written ({error.strerror}).") from error
    for name in FILES:
        click.echo(run / name)


if __name__ == "__main__":
    sys.exit(run_command(report, "search.report"))
