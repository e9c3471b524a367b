"""What do fewer MACs buy on the clock?"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, NamedTuple

from scipy import stats

from search.latencies import is_no_faster
from search.report import words
from search.report.marks import MACS_AXIS
from search.report.names import label
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.latencies import Measurement
    from search.report.data import Final, Run
    from search.report.section import Role
    from search.report.words import Metric

DENSE = "dense"

#: Networks that a sentence names.
_MOST_NAMED = 6

#: Fewer networks are no order.
_LEAST_RANKED = 4

_ROLES: dict[str, Role] = {"eager": "first", "compile": "second", "onnxruntime": "third"}


class _Setting(NamedTuple):
    """Where and on how much something was measured; within one, backends compare."""

    machine: str
    device: str
    threads: int
    batch: int

    @property
    def words(self) -> str:
        """As people say it."""
        where = words.plural(self.threads, "thread") if self.device == "cpu" else label(self.device)
        return label(f"batch {self.batch}, {where}, {self.machine}", 80)


class _Row(NamedTuple):
    """A measured network with what the run says of it."""

    measured: Measurement
    macs_share: float
    score: float
    kind: str


def latency(run: Run) -> Section | None:
    """Warnings first, then every setting in which latencies were measured."""
    settings = _settings(run)
    if not settings:
        return None
    charts = [
        chart
        for number, (setting, rows) in enumerate(settings.items(), start=1)
        for chart in (_against_macs(number, setting, rows), _against_score(number, setting, rows, run.metric))
    ]
    found = [text for setting, rows in settings.items() for text in _findings(setting, rows)]
    everything = [row for rows in settings.values() for row in rows]
    return Section(
        "latency",
        "Do fewer MACs save time?",
        (*latency_warnings(run), *found),
        tuple(charts),
        (_table(everything, run.metric),),
    )


def latency_warnings(run: Run) -> list[str]:
    """A sentence for each backend and setting in which MACs fall and latency does not."""
    return [
        text
        for setting, rows in _settings(run).items()
        for backend, own in _by_backend(rows).items()
        if (text := _warning(label(backend), setting, own))
    ]


def _settings(run: Run) -> dict[_Setting, list[_Row]]:
    settings: dict[_Setting, list[_Row]] = defaultdict(list)
    finals = {final.point.id: final for final in reversed(run.finals)}  # a control may be a point, too
    for measured in run.latencies:
        row = _row(measured, finals, run)
        if row is not None:
            key = _Setting(measured.machine, measured.device, measured.threads, measured.batch)
            settings[key].append(row)
    return settings


def _row(measured: Measurement, finals: Mapping[str, Final], run: Run) -> _Row | None:
    """``None`` for networks that are not of this result any more."""
    if measured.id == DENSE:
        return _Row(measured, 1.0, run.result.dense.score, DENSE)
    if measured.id not in finals:
        return None
    final = finals[measured.id]
    return _Row(measured, final.point.macs / run.result.dense.macs, final.point.score, final.kind)


def _findings(setting: _Setting, rows: Sequence[_Row]) -> list[str]:
    """For each backend: how far latency follows MACs."""
    found = []
    for name, own in _by_backend(rows).items():
        backend = label(name)
        smaller = [row for row in own if row.measured.id != DENSE]
        if not smaller:
            continue
        fastest = min(smaller, key=lambda row: row.measured.ratio)
        text = (
            f"{backend}, {setting.words}: the fastest network takes {words.share(fastest.measured.ratio, 1)} "
            f"of the dense one's time with {words.share(fastest.macs_share, 1)} of its MACs."
        )
        found.append(f"{text} {_order(own)}".strip())
    return found


def _warning(backend: str, setting: _Setting, rows: Sequence[_Row]) -> str:
    """Which networks have fewer MACs and the same latency; empty where none has."""
    lagging = [row for row in rows if _lags(row)]
    if not lagging:
        return ""
    names = "; ".join(
        f"{row.measured.id}: {words.share(row.macs_share, 1)} of the MACs, "
        f"{words.share(row.measured.ratio, 1)} of the latency"
        for row in lagging[:_MOST_NAMED]
    )
    more = f"; and {len(lagging) - _MOST_NAMED} more" if len(lagging) > _MOST_NAMED else ""
    return (
        f"Warning: with {backend}, {setting.words}, MACs fall and latency does not for "
        f"{words.plural(len(lagging), 'network')} ({names}{more})."
    )


def _lags(row: _Row) -> bool:
    return is_no_faster(row.macs_share, row.measured.ratio)


def _order(rows: Sequence[_Row]) -> str:
    """Whether networks with fewer MACs are the faster ones, over dense and all that was measured."""
    if len(rows) < _LEAST_RANKED or len({row.macs_share for row in rows}) < 2:
        return ""
    ratios = [row.measured.ratio for row in rows]
    if len(set(ratios)) < 2:
        return "All take the same time."
    tau = float(stats.kendalltau([row.macs_share for row in rows], ratios).statistic)
    number = f"Kendall's tau {words.tau_words(tau)} over {len(rows)} networks"
    if tau < 0.5:
        return f"Warning: MACs say little about latency here, {number}."
    return f"MACs and latency rise together, {number}."


def _by_backend(rows: Sequence[_Row]) -> dict[str, list[_Row]]:
    found: dict[str, list[_Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row.macs_share, row.measured.id)):
        found[row.measured.backend].append(row)
    return found


def _hover(row: _Row) -> str:
    measured = row.measured
    return (
        f"{measured.id}, {measured.backend}\n{measured.median_ms:.3g} ms (quartiles {measured.spread_ms:.2g} "
        f"ms apart)\n{words.share(measured.ratio, 1)} of dense, {words.share(row.macs_share, 1)} of its MACs"
    )


def _against_macs(number: int, setting: _Setting, rows: Sequence[_Row]) -> Chart:
    series = [Series("as the MACs", "line", (0, 100), (0, 100), "dense")]
    for backend, own in _by_backend(rows).items():
        series.append(
            Series(
                label=backend,
                kind="points",
                x=tuple(100 * row.macs_share for row in own),
                y=tuple(100 * row.measured.ratio for row in own),
                role=_ROLES.get(backend, "rung-3"),
                hover=tuple(map(_hover, own)),
            )
        )
    return Chart(
        name=f"latency-against-macs-{number}",
        title=f"Latency against MACs: {setting.words}",
        x=Axis(MACS_AXIS),
        y=Axis("Latency, % of the dense network"),
        series=tuple(series),
        note="The ratio to the dense network, measured in turns with it. On the line, time falls as MACs do.",
        description=" ".join(_findings(setting, rows)),
    )


def _against_score(number: int, setting: _Setting, rows: Sequence[_Row], metric: Metric) -> Chart:
    series = [
        Series(
            label=backend,
            kind="points",
            x=tuple(row.measured.median_ms for row in own),
            y=tuple(metric.plain(row.score) for row in own),
            role=_ROLES.get(backend, "rung-3"),
            hover=tuple(map(_hover, own)),
        )
        for backend, own in _by_backend(rows).items()
    ]
    return Chart(
        name=f"score-against-latency-{number}",
        title=f"{metric.title} against latency: {setting.words}",
        x=Axis("Median latency of one batch (ms)"),
        y=Axis(f"Holdout {metric.axis}"),
        series=tuple(series),
        note="Up and to the left is better.",
        description=f"{metric.title} on holdout against the median latency of {len(rows)} measurements.",
    )


def _table(rows: Sequence[_Row], metric: Metric) -> Table:
    columns = (
        cells.plain("id"),
        cells.plain("part"),
        cells.plain("backend"),
        cells.plain("device"),
        cells.plain("threads"),
        cells.plain("batch"),
        cells.share("macs", "MACs"),
        cells.number("score", f"holdout {metric.title}", metric.value),
        cells.number("median_ms", "median, ms", lambda value: f"{value:.3g}"),
        cells.number("spread_ms", "between quartiles, ms", lambda value: f"{value:.2g}"),
        cells.share("ratio", "of dense"),
        cells.plain("repeats"),
        cells.plain("machine"),
    )
    found = tuple(
        {
            "id": row.measured.id,
            "part": row.kind,
            "backend": row.measured.backend,
            "device": row.measured.device,
            "threads": row.measured.threads,
            "batch": row.measured.batch,
            "macs": row.macs_share,
            "score": row.score,
            "median_ms": row.measured.median_ms,
            "spread_ms": row.measured.spread_ms,
            "ratio": row.measured.ratio,
            "repeats": row.measured.repeats,
            "machine": row.measured.machine,
        }
        for row in rows
    )
    note = (
        "The ratio comes from runs in turns with the dense network, not from the quotient of the two medians."
    )
    return Table("latency", "Everything that was measured", columns, found, note)
