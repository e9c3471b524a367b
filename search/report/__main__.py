"""``python -m search.report RUN``: write the report of a run folder again, also while the run goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from evaluators.options import OptionError
from search.command import FilledPath, run_command
from search.limits import parse_seconds
from search.report.data import load_run
from search.report.watch import watch as watch_run
from search.report.write import FIGURES, FILES, TABLES, write_run

_LEAST_SECONDS = 1.0

_EXAMPLES = """\b
Examples:
  python -m search.report runs/digits
  python -m search.report runs/digits --figures
  python -m search.report runs/digits --watch --every 30s
"""


@click.command(context_settings={"max_content_width": 110}, epilog=_EXAMPLES)
@click.argument("run", type=FilledPath(path_type=Path))
@click.option("--figures", is_flag=True, help="Draw every chart as PNG and SVG too, in RUN/figures.")
@click.option(
    "--watch",
    is_flag=True,
    help="Write it again whenever the run has gone on, until it is finished or Ctrl-C.",
)
@click.option(
    "--every", metavar="TIME", help="With --watch: time between two looks, such as 30s; 10s by default."
)
def report(run: Path, figures: bool, watch: bool, every: str | None) -> None:
    """Write front.csv, front.png, report.html and tables/ of the run folder RUN from its records.

    While the run goes on the report is provisional: what is on record stands in for front.json.
    """
    seconds = _seconds(every, watch=watch)
    try:
        if watch:
            watch_run(run, seconds, click.echo, figures=figures)
        else:
            write_run(load_run(run), figures=figures)
    except ValueError as error:
        raise click.UsageError(f"{run}: {error}") from error
    except PermissionError as error:
        raise click.UsageError(f"{run}: can not be read or written ({error.strerror}).") from error
    for name in (*FILES, TABLES, *([FIGURES] if figures else [])):
        click.echo(run / name)


def _seconds(every: str | None, *, watch: bool) -> float:
    if every is None:
        return 10.0
    if not watch:
        raise OptionError("every", every, "goes with --watch.")
    seconds = parse_seconds("every", every)
    if seconds < _LEAST_SECONDS:
        raise OptionError("every", every, "must be at least 1s.")
    return seconds


if __name__ == "__main__":
    sys.exit(run_command(report, "search.report"))
