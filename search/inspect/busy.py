"""A line on a terminal while something takes more than a moment."""

from __future__ import annotations

import contextlib
import sys
import time
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.spinner import Spinner

from search.report.words import duration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import RenderableType

#: Seconds that pass in silence.
_PATIENCE = 2.0


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """Say on stderr what is going on and since when; nothing where stderr is no terminal."""
    since = time.monotonic()
    spinner = Spinner("dots")

    def line() -> RenderableType:
        seconds = time.monotonic() - since
        if seconds < _PATIENCE:
            return ""
        spinner.update(text=f"{what}  {duration(seconds)}")
        return spinner

    console = Console(file=sys.stderr)
    if not console.is_terminal:
        yield
        return
    with Live(
        get_renderable=line, console=console, refresh_per_second=4, transient=True, redirect_stdout=False
    ):
        yield
