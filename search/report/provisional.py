"""What can be said of a run that has no ``front.json`` yet: its record, read as if it ended now."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from search.correlation import rung_correlations
from search.finals import CONTROLS
from search.finish import compare, summarise
from search.front import REFERENCE, front, hypervolume, reference_score
from search.jobs import phase_of
from search.journal import RUNGS
from search.objectives import LATENCY, SCORE
from search.report.volume import busy_seconds
from search.result import Dense, Hypervolume, Point, Result

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from search.objectives import Objectives
    from search.report.history import Entry, History
    from search.start import Start

#: Fewer candidates on a rung are no front: the rung below it has a better one.
_LEAST_ON_RUNG = 3

_HIGHEST = max(RUNGS)


def provisional_result(start: Start, history: History, objectives: Objectives, seed: int) -> Result:
    """The front of the highest rung that some candidates have reached, on holdout.

    Test is not read before the front is final: points have no test scores, and ``dense.test`` repeats the
    score on holdout. A control that is the network of another point, too, is on record once; it is missing.

    Args:
        start: The network that came in.
        history: The record so far.
        objectives: Of the run.
        seed: Of the run, for intervals.

    Raises:
        ValueError: If latency is an objective and the record lacks one.
    """
    rung, points = _points(history)
    proposed = sorted((p for p in points if p.control_of is None), key=lambda p: (p.macs, p.score, p.id))
    evaluations = {e.record.evaluation.candidate: e.record.evaluation for e in _on(history, rung)}
    marks = front(objectives.mark(evaluations[point.id], point.score) for point in proposed)
    ids = {mark.id for mark in marks}
    worst = reference_score([start.score, *(point.score for point in points)])
    dense = Dense(start.score, start.score, start.macs, start.params, start.widths, start.latency_ms)
    costs = [float(getattr(dense, cost) or 0) for cost in objectives.costs]
    if not all(costs):
        raise ValueError(f"the dense network's `{LATENCY}` is missing")
    return Result(
        task=start.task,
        metric=start.metric,
        dense=dense,
        points=tuple(p for p in proposed if p.id in ids),
        dominated=tuple(p for p in proposed if p.id not in ids) if rung == _HIGHEST else (),
        controls=tuple(p for p in points if p.control_of is not None),
        hypervolume=Hypervolume(
            hypervolume(marks, *costs, least_score=worst),
            dict.fromkeys(objectives.costs, REFERENCE["macs"]) | {SCORE: worst},
        ),
        objectives=objectives.names,
        comparisons=tuple(compare(points, kind, "holdout") for kind in CONTROLS if rung == _HIGHEST),
        counts={f"rung-{r}": _count(history, r) for r in RUNGS},
        seconds={phase_of(r): busy_seconds(_on(history, r)) for r in RUNGS},
        warnings=start.warnings,
        correlations=rung_correlations(history.records, seed),
    )


def _points(history: History) -> tuple[int, list[Point]]:
    """The rung, and its candidates; controls too where they stand beside one of them."""
    for rung in reversed(RUNGS):
        proposed = _candidates(e for e in _on(history, rung) if rung == _HIGHEST or e.is_searched)
        points = [_point(entries) for entries in proposed.values()]
        own = {point.id for point in points if point.control_of is None}
        if len(own) >= _LEAST_ON_RUNG or rung == min(RUNGS):
            return rung, [p for p in points if p.control_of is None or p.control_of in own]
    raise AssertionError("the lowest rung is always returned")


def _candidates(entries: Iterable[Entry]) -> dict[tuple[str, str | None], list[Entry]]:
    found: dict[tuple[str, str | None], list[Entry]] = defaultdict(list)
    for entry in entries:
        found[entry.record.evaluation.candidate, entry.record.control_of].append(entry)
    return found


def _point(entries: Sequence[Entry]) -> Point:
    """One candidate with what was evaluated of it so far."""
    scores: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        scores[entry.record.evaluation.method].append(entry.record.evaluation.score)
    summaries = {method: summarise(values) for method, values in scores.items()}
    best = max(summaries, key=lambda name: summaries[name].mean)
    record = entries[0].record
    return Point(
        id=record.evaluation.candidate,
        macs=record.evaluation.macs,
        params=record.evaluation.params,
        score=summaries[best].mean,
        rung=record.evaluation.rung,
        weights=best,
        scores=summaries,
        test={},
        saved_test=None,
        criteria=record.criteria,
        widths=record.widths,
        origin=record.origin,
        control_of=record.control_of,
        latency_ms=record.evaluation.latency_ms,
    )


def _on(history: History, rung: int) -> list[Entry]:
    return [entry for entry in history.entries if entry.record.evaluation.rung == rung]


def _count(history: History, rung: int) -> int:
    """Trainings; without training, candidates: one that was re-fitted twice counts once."""
    found = [entry.record.evaluation for entry in _on(history, rung)]
    return len({(e.candidate, e.method if rung > 1 else "", e.seed) for e in found})
