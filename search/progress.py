"""What a person sees while a run works: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from search.report.words import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

    from rich.console import RenderableType

    from search.forecast import Forecast
    from search.record import Record
    from search.report.words import Metric

#: Shares of the dense MACs under which the best score so far is shown.
LANDMARKS = (0.75, 0.50, 0.25)


#: Seconds between two lines about the workers, where the output is no terminal.
_FLEET_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Fleet:
    """How several workers are doing.

    Attributes:
        running: Evaluations that were handed out.
        places: How many could run at a time.
        nodes: Machines that they are on.
        per_minute: Evaluations that end in a minute.
        failures: Evaluations that failed so far.
    """

    running: int
    places: int
    nodes: int
    per_minute: float
    failures: int

    def __str__(self) -> str:
        on = f"{self.nodes} node{'' if self.nodes == 1 else 's'}"
        failed = f", {self.failures} failed" if self.failures else ""
        busy = f"{self.running} of {self.places} places busy on {on}"
        return f"{busy}, {self.per_minute:.0f} evaluations/min{failed}"


class Progress(Protocol):
    """What the search tells about itself; an implementation must be quick."""

    def expect(self, counts: dict[int, int]) -> None:
        """Evaluations that each rung will have in the end, as far as it is known."""
        ...

    def begin(self, what: str) -> None:
        """Something starts that takes a while."""
        ...

    def evaluated(self, record: Record) -> None:
        """An evaluation is finished."""
        ...

    def say(self, line: str) -> None:
        """A decision or a finding that a person wants to read."""
        ...

    def fleet(self, fleet: Fleet) -> None:
        """How several workers are doing."""
        ...


class Silent:
    """Says nothing."""

    def expect(self, counts: dict[int, int]) -> None:
        """Nothing."""

    def begin(self, what: str) -> None:
        """Nothing."""

    def evaluated(self, record: Record) -> None:
        """Nothing."""

    def say(self, line: str) -> None:
        """Nothing."""

    def fleet(self, fleet: Fleet) -> None:
        """Nothing."""


class Display:
    """Shows what is evaluated, the best so far under some shares of MACs, counts and the time left.

    Args:
        console: Where to; its being a terminal decides between the live display and plain lines.
        dense_macs: Multiply-adds of the dense network.
        forecast: Time left.
        metric: How scores are written.
        listeners: Hear of every evaluation too.
    """

    def __init__(
        self,
        console: Console,
        dense_macs: int,
        forecast: Forecast,
        metric: Metric,
        listeners: Sequence[Callable[[Record], None]] = (),
    ) -> None:
        self.console = console
        self.forecast = forecast
        self._dense_macs, self._metric, self._listeners = dense_macs, metric, listeners
        self._best: dict[tuple[int, float], float] = {}
        self._what, self._since, self._steps = "starting", time.monotonic(), ""
        self._fleet, self._fleet_said = "", time.monotonic()
        self._spinner = Spinner("dots")
        self._live = Live(get_renderable=self._render, console=console, refresh_per_second=4, transient=True)

    def __enter__(self) -> Display:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def expect(self, counts: dict[int, int]) -> None:
        """Evaluations that each rung will have in the end."""
        self.forecast.expect(counts)

    def begin(self, what: str) -> None:
        """Something starts that takes a while."""
        self._what, self._since, self._steps = what, time.monotonic(), ""

    def step(self, done: int, total: int) -> None:
        """Training steps of what is being evaluated."""
        self._steps = f"  step {done}/{total}"

    def evaluated(self, record: Record) -> None:
        """Count it, remember the best, and without a terminal print a line."""
        for listener in self._listeners:
            listener(record)
        evaluation = record.evaluation
        self.forecast.evaluated(evaluation, self._dense_macs)
        share = evaluation.macs / self._dense_macs
        for landmark in LANDMARKS:
            if share <= landmark:
                key = evaluation.rung, landmark
                self._best[key] = max(self._best.get(key, evaluation.score), evaluation.score)
        if not self.console.is_terminal:
            score = self._metric.value(evaluation.score)
            self.say(
                f"{self._counts()}  {evaluation.candidate}  {share:6.1%} MACs  "
                f"{evaluation.method:<9} {score:>7}  {record.origin}{self._left()}"
            )

    def say(self, line: str) -> None:
        """A line above the live display."""
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def fleet(self, fleet: Fleet) -> None:
        """A line of the live display, or one each minute; and the divisor of the time left."""
        self.forecast.at_once = max(1, fleet.places)
        self._fleet = str(fleet)
        now = time.monotonic()
        if not self.console.is_terminal and now - self._fleet_said >= _FLEET_SECONDS:
            self._fleet_said = now
            self.say(self._fleet)

    def _render(self) -> RenderableType:
        running = Text(f" {self._what}{self._steps}  {duration(time.monotonic() - self._since)}")
        head = Table.grid()
        head.add_row(self._spinner, running)
        lines = [f"{self._counts()}{self._left()}", self._fleet, self._best_line()]
        return Group(head, *(Text(f"  {line}") for line in lines if line))

    def _counts(self) -> str:
        return "  ".join(
            f"rung {rung} {done}/{total}" for rung, (done, total) in self.forecast.counts().items() if total
        )

    def _left(self) -> str:
        seconds = self.forecast.seconds_left()
        return "" if seconds is None else f"  about {duration(seconds)} left"

    def _best_line(self) -> str:
        top = max((rung for rung, _ in self._best), default=1)
        found = {mark: self._best.get((top, mark)) for mark in LANDMARKS}
        shown = (
            f"{'-' if score is None else self._metric.value(score)} at {mark:.0%}"
            for mark, score in found.items()
        )
        return f"best on rung {top} under MACs: {', '.join(shown)}"
