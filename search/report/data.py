"""Collects what a report shows from a run folder, and computes what the folder does not say outright."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from dataclasses import dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING

from evaluators.options import OptionError
from search.finish import FRONT
from search.finite import is_finite
from search.latencies import read_latencies
from search.objectives import MACS, Objectives
from search.report.history import History, read_history
from search.report.names import label
from search.report.provisional import provisional_result
from search.report.trend import mean_interval
from search.report.words import Metric
from search.result import Result
from search.start import noted_start

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from search.latencies import Measurement
    from search.record import Record
    from search.result import Point
    from search.start import Start
    from search.storage import Storage


_PROVISIONAL = (
    "Provisional: the run has not finished. All scores are those on holdout: test is read once, when the "
    "front is final."
)
_OUTDATED = "The run goes on: more is to come than this front shows."


@dataclass(frozen=True, slots=True)
class Dot:
    """One candidate on one rung: its best method, mean over seeds.

    Attributes:
        id: The candidate's.
        rung: Fidelity of the score.
        macs: Multiply-adds for a batch of one.
        params: Number of parameters.
        score: Holdout score; higher is better.
        origin: Who proposed it.
    """

    id: str
    rung: int
    macs: int
    params: int
    score: float
    origin: str


@dataclass(frozen=True, slots=True)
class Final:
    """A point with the part that it plays: ``front``, ``dominated``, ``uniform`` or ``random``."""

    kind: str
    point: Point


@dataclass(frozen=True, slots=True)
class Gap:
    """Scratch training minus fine-tuning on test, paired over architectures.

    Attributes:
        method: ``scratch_e`` or ``scratch_b``.
        mean: Mean difference; positive means that training from scratch is better.
        low: Lower end of the 95% interval (Student's t over the pairs); ``None`` for fewer than two.
        high: Upper end.
        n: Number of architectures.
    """

    method: str
    mean: float
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Run:
    """What a run folder says.

    Attributes:
        folder: The folder, as it was given.
        result: ``front.json``.
        dots: Every candidate on every rung that it reached, lowest rung first.
        config: ``config.json``; empty when there is none.
        full_widths: Units of each group in the dense network.
        history: The record.
        latencies: What was measured.
        is_provisional: Whether there is no ``front.json`` yet, and ``result`` is the record read as if the
            run ended now: no test scores, and ``result.dense.test`` repeats holdout.
        is_finished: Whether nothing more is to come with the budget of ``config``.
        refresh_seconds: After so long a page should be loaded again; ``None`` for never.
    """

    folder: Path
    result: Result
    dots: tuple[Dot, ...]
    config: Mapping[str, object]
    full_widths: Mapping[str, int]
    history: History = field(default_factory=History)
    latencies: tuple[Measurement, ...] = ()
    is_provisional: bool = False
    is_finished: bool = True
    refresh_seconds: float | None = None

    @property
    def metric(self) -> Metric:
        """The score's, under a name that fits a line."""
        return Metric(label(self.result.metric))

    @property
    def remarks(self) -> tuple[str, ...]:
        """What a reader must know besides the run's own warnings."""
        found = []
        if self.is_provisional:
            found.append(_PROVISIONAL)
        elif not self.is_finished:
            found.append(_OUTDATED)
        if n := self.history.num_unusable:
            left_out = "evaluation is" if n == 1 else "evaluations are"
            found.append(f"{n} {left_out} left out: the record has no finite score, cost or time of it.")
        return tuple(found)

    @property
    def finals(self) -> tuple[Final, ...]:
        """The front, then the finals that it dominates, then the controls."""
        result = self.result
        return (
            *(Final("front", point) for point in result.points),
            *(Final("dominated", point) for point in result.dominated),
            *(Final(point.origin.removeprefix("control: "), point) for point in result.controls),
        )


class NothingYetError(ValueError):
    """A run folder has no front, and nothing was evaluated in it so far."""

    def __init__(self) -> None:
        super().__init__("holds no front.json; a finished `python -m search.run` writes it.")


def load_run(folder: Path, storage: Storage | None = None) -> Run:
    """Read a run's folder, and its record where that is elsewhere. Writes nothing and waits for no lock.

    Args:
        folder: The run folder; while the run goes on, what is on record stands in for ``front.json``.
        storage: The run's record; found by ``config.json`` when ``None``.

    Raises:
        ValueError: If there is neither a front nor a record of one, or a file or the record is not what it
            should be.
    """
    if not folder.is_dir():
        raise ValueError("there is no such folder.")
    has_front = (folder / FRONT).is_file()
    result = load_result(folder) if has_front else None
    config = load_config(folder)
    try:
        history = read_history(folder, storage)
        start = noted_start(history.notes)
    except OptionError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"the run's record can not be read ({error})") from error
    if result is None:
        result = _provisional(start, history, config)
    records = history.records
    return Run(
        folder=folder,
        result=result,
        dots=dots(records),
        config=config,
        full_widths=full_widths(result, records),
        history=history,
        latencies=read_latencies(folder),
        is_provisional=not has_front,
        is_finished=has_front and _is_finished(history, config, start),
    )


def _provisional(start: Start | None, history: History, config: Mapping[str, object]) -> Result:
    if start is None or not history.entries:
        raise NothingYetError
    seed, names = config.get("seed"), config.get("objectives")
    objectives = Objectives.of(names) if isinstance(names, list) else MACS
    try:
        result = provisional_result(start, history, objectives, seed if isinstance(seed, int) else 0)
        _check(result)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"the run's record can not be read ({error})") from error
    return result


def _is_finished(history: History, config: Mapping[str, object], start: Start | None) -> bool:
    """Whether the driver noted so, with the budget that the run has now; older versions noted nothing."""
    extent = history.notes.get("finished")
    if not isinstance(extent, dict):
        return start is None
    return all(extent[name] == config.get(name) for name in extent)


def load_result(folder: Path) -> Result:
    """Read ``front.json``.

    Raises:
        ValueError: If the folder is none, has no front, or one that can not be read.
    """
    if not folder.is_dir():
        raise ValueError("there is no such folder.")
    if not (folder / FRONT).is_file():
        raise NothingYetError
    try:
        result = Result.load(folder)
        _check(result)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"front.json can not be read ({error})") from error
    return result


def _check(result: Result) -> None:
    """Refuse what would break a page or lead out of the folder; JSON says nothing about types."""
    dense, volume = result.dense, result.hypervolume
    if not (dense.macs >= 1 and dense.params >= 1):
        raise ValueError("the dense network needs positive `macs` and `params`")
    told = (dense.macs, dense.params, dense.score, dense.test, *dense.widths.values())
    if not all(map(is_finite, told)) or not _is_known(dense.latency_ms):
        raise ValueError("the dense network needs finite numbers")
    if not all(map(is_finite, (volume.value, *volume.reference.values(), *result.seconds.values()))):
        raise ValueError("`hypervolume` and `seconds` need finite numbers")
    for found in result.correlations:
        if not all(map(_is_known, (found.tau, found.low, found.high))):
            raise ValueError("a correlation needs finite numbers")
    for compared in result.comparisons:
        counted = (compared.mean, compared.n, compared.alike)
        if not all(map(is_finite, counted)) or not all(map(_is_known, (compared.low, compared.high))):
            raise ValueError("a comparison needs finite numbers")
    if not all(isinstance(text, str) for text in (result.task, result.metric, *result.warnings)):
        raise ValueError("`task`, `metric` and `warnings` must be text")
    for point in (*result.points, *result.dominated, *result.controls):
        numbers = (point.macs, point.params, point.score, *point.widths.values())
        summaries = (*point.scores.values(), *point.test.values())
        numbers += tuple(number for summary in summaries for number in (summary.mean, summary.sd or 0))
        if not all(map(is_finite, numbers)) or not all(map(_is_known, (point.saved_test, point.latency_ms))):
            raise ValueError(f"point {label(point.id)!r} needs finite numbers")
        if re.fullmatch(r"\w[\w.-]{0,99}", point.id) is None:
            raise ValueError(f"{label(point.id)!r} is no id: it names a folder under architectures/")
        texts = (point.weights, point.origin, point.control_of or "", *point.criteria.values())
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f"`weights`, `origin` and criteria of point {point.id} must be text")


def _is_known(number: object) -> bool:
    """A number that may be missing."""
    return number is None or is_finite(number)


def load_config(folder: Path) -> dict[str, object]:
    """Read ``config.json``; empty when there is none.

    Raises:
        ValueError: If it is no JSON object.
    """
    path = folder / "config.json"
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"config.json can not be read ({error})") from error
    if not isinstance(config, dict):
        raise ValueError("config.json must hold a JSON object.")
    return config


def dots(records: Iterable[Record]) -> tuple[Dot, ...]:
    """One dot per candidate and rung: mean over seeds of each method, then the best method."""
    scores: dict[tuple[int, str], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    first: dict[tuple[int, str], Record] = {}
    for record in records:
        evaluation = record.evaluation
        key = (evaluation.rung, evaluation.candidate)
        scores[key][evaluation.method].append(evaluation.score)
        first.setdefault(key, record)
    return tuple(
        Dot(
            id=candidate,
            rung=rung,
            macs=first[rung, candidate].evaluation.macs,
            params=first[rung, candidate].evaluation.params,
            score=max(fmean(values) for values in by_method.values()),
            origin=first[rung, candidate].origin,
        )
        for (rung, candidate), by_method in sorted(scores.items(), key=lambda item: item[0])
    )


def full_widths(result: Result, records: Sequence[Record]) -> dict[str, int]:
    """Units of each group in the dense network; the widest ever built of a group that it does not name."""
    widest = dict(result.dense.widths)
    built = [point.widths for point in (*result.points, *result.dominated, *result.controls)]
    for widths in (*built, *(record.widths for record in records)):
        for name, width in widths.items():
            widest[name] = max(width, widest.get(name, 0))
    return widest


def training_gaps(result: Result) -> tuple[Gap, ...]:
    """Fine-tune or scratch? Over every final architecture, controls too, on test; each counts once."""
    points = {p.id: p for p in (*result.points, *result.dominated, *result.controls)}.values()
    gaps = []
    for method in ("scratch_e", "scratch_b"):
        differences = [
            point.test[method].mean - point.test["finetune"].mean
            for point in points
            if {method, "finetune"} <= set(point.test)
        ]
        if differences:
            gaps.append(_gap(method, differences))
    return tuple(gaps)


def _gap(method: str, differences: Sequence[float]) -> Gap:
    found = mean_interval(differences)
    return Gap(method, found.mean, found.low, found.high, found.n)
