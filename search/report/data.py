"""Collects what a report shows from a run folder, and computes what the folder does not say outright."""

from __future__ import annotations

import json
import math
import re
from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import TYPE_CHECKING

from scipy import stats

from evaluators.options import OptionError
from search.result import Result
from search.study import read_evaluations

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from pathlib import Path

    from search.result import Point
    from search.storage import Storage
    from search.study import Record


#: Columns of ``front.csv`` that are a point's own fields.
CSV_FIELDS = ("id", "macs", "params", "score", "rung", "weights", "saved_test", "origin", "control_of")


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
    """

    folder: Path
    result: Result
    dots: tuple[Dot, ...]
    config: Mapping[str, object]
    full_widths: Mapping[str, int]

    @property
    def finals(self) -> tuple[Final, ...]:
        """The front, then the finals that it dominates, then the controls."""
        result = self.result
        return (
            *(Final("front", point) for point in result.points),
            *(Final("dominated", point) for point in result.dominated),
            *(Final(point.origin.removeprefix("control: "), point) for point in result.controls),
        )


def load_run(folder: Path, storage: Storage | None = None) -> Run:
    """Read a finished run's folder, and its record where that is elsewhere.

    Args:
        folder: The run folder.
        storage: The run's record; found by ``config.json`` when ``None``.

    Raises:
        ValueError: If ``front.json`` is missing, or a file or the record is not what it should be.
    """
    result = load_result(folder)
    config = load_config(folder)
    try:
        records = read_evaluations(folder, storage)
    except OptionError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"the run's record can not be read ({error})") from error
    return Run(folder, result, dots(records), config, full_widths(result, records))


def load_result(folder: Path) -> Result:
    """Read ``front.json``.

    Raises:
        ValueError: If the folder is none, has no front, or one that can not be read.
    """
    if not folder.is_dir():
        raise ValueError("there is no such folder.")
    if not (folder / "front.json").is_file():
        raise ValueError("holds no front.json; a finished `python -m search.run` writes it.")
    try:
        result = Result.load(folder)
        _check(result)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"front.json can not be read ({error})") from error
    return result


def _check(result: Result) -> None:
    """Refuse what would break a page or lead out of the folder; JSON says nothing about types."""
    if not (result.dense.macs >= 1 and result.dense.params >= 1):
        raise ValueError("the dense network needs positive `macs` and `params`")
    for found in result.correlations:
        if not all(number is None or _is_finite(number) for number in (found.tau, found.low, found.high)):
            raise ValueError("a correlation needs finite numbers")
    for point in (*result.points, *result.dominated, *result.controls):
        numbers = (point.macs, point.params, point.score, *point.widths.values())
        summaries = (*point.scores.values(), *point.test.values())
        numbers += tuple(number for summary in summaries for number in (summary.mean, summary.sd or 0))
        if not all(map(_is_finite, numbers)):
            raise ValueError(f"point {point.id!r} needs finite numbers")
        if re.fullmatch(r"\w[\w.-]*", point.id) is None:
            raise ValueError(f"{point.id!r} is no id: it names a folder under architectures/")


def _is_finite(number: object) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


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
    """Fine-tune or scratch? Over every final architecture, controls too, on test."""
    points = (*result.points, *result.dominated, *result.controls)
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
    mean, n = fmean(differences), len(differences)
    if n < 2:
        return Gap(method, mean, None, None, n)
    half = float(stats.t.ppf(0.975, n - 1)) * stdev(differences) / n**0.5
    return Gap(method, mean, mean - half, mean + half, n)


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
