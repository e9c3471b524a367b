"""From contenders to ``front.json``: the front on holdout, then test, read once, then the verdict."""

from __future__ import annotations

import logging
import shutil
import statistics
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from scipy import stats

from evaluators.evaluation import METHODS
from search.correlation import rung_correlations
from search.finals import CONTROLS
from search.front import front, hypervolume, reference_score
from search.journal import RUNGS
from search.objectives import MACS, SCORE
from search.result import Comparison, Dense, Hypervolume, Point, Result, Summary
from spaces.surgery import write_architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from torch import nn

    from evaluators.evaluation import Method
    from search.finals import Contender
    from search.front import Mark
    from search.jobs import Run
    from search.objectives import Objectives
    from search.record import Record

logger = logging.getLogger(__name__)

FRONT = "front.json"


@dataclass(frozen=True, slots=True)
class Judged:
    """A contender after holdout.

    Attributes:
        contender: Candidate and evaluations.
        holdout: Holdout score of each method.
        method: The best one of them.
        saved: The evaluation of that method whose weights are saved: its best seed.
        mark: As fronts see it.
    """

    contender: Contender
    holdout: dict[str, Summary]
    method: Method
    saved: Record
    mark: Mark


def finish(run: Run, contenders: Sequence[Contender], folder: Path, warnings: Sequence[str]) -> Result:
    """Compute the front on holdout, save its networks, read test and write ``front.json``.

    Raises:
        RuntimeError: If fvcore counts other MACs for a network of the front than the closed form.
    """
    scores, objectives = NotedScores(run), run.encoding.objectives
    with run.clock.phase("finals"):
        judged = [judge(contender, scores, run.encoding.objectives) for contender in contenders]
        final = front(j.mark for j in judged if j.contender.control_of is None)
        _save_front(run, [j for j in judged if j.mark in final and j.contender.control_of is None], folder)
    run.problem.unseal()
    with run.clock.phase("test"):
        dense = _dense(run, scores)
        points = [_point(j, scores, saved=j.mark in final) for j in judged]
    proposed = sorted((p for p in points if p.control_of is None), key=lambda p: (p.macs, p.score, p.id))
    ids = {mark.id for mark in final}
    worst = reference_score([dense.score, *(j.mark.score for j in judged)])
    result = Result(
        task=run.problem.task,
        metric=run.problem.metric,
        dense=dense,
        points=tuple(p for p in proposed if p.id in ids),
        dominated=tuple(p for p in proposed if p.id not in ids),
        controls=tuple(p for p in points if p.control_of is not None),
        hypervolume=Hypervolume(
            hypervolume(final, *run.encoding.dense_costs, least_score=worst),
            dict.fromkeys(objectives.costs, 1.0) | {SCORE: worst},
        ),
        objectives=objectives.names,
        comparisons=tuple(compare(points, kind, split) for kind in CONTROLS for split in ("holdout", "test")),
        counts={f"rung-{rung}": _count(run.book.records(rung)) for rung in RUNGS},
        seconds={},
        warnings=tuple(warnings),
        correlations=rung_correlations(run.book.all_records(), run.config.seed),
    )
    return write_front(result, run.clock.totals(), folder)


def write_front(result: Result, seconds: dict[str, float], folder: Path) -> Result:
    """Write ``front.json``, whole or not at all, with the seconds so far."""
    result = replace(result, seconds={name: round(value, 3) for name, value in seconds.items()})
    partial = folder / f"{FRONT}.partial"
    partial.write_text(result.to_json())
    partial.replace(folder / FRONT)
    return result


def judge(contender: Contender, scores: NotedScores, objectives: Objectives = MACS) -> Judged:
    """Choose method and weights on holdout; of equals the first method and the lowest seed."""
    holdout = {method: summarise(map(scores.holdout, rs)) for method, rs in contender.records.items()}
    method = max(holdout, key=lambda name: holdout[name].mean)
    saved = max(contender.records[method], key=lambda r: (scores.holdout(r), -r.evaluation.seed))
    mark = objectives.mark(saved.evaluation, holdout[method].mean)
    return Judged(contender, {str(name): summary for name, summary in holdout.items()}, method, saved, mark)


def compare(points: Sequence[Point], control: str, split: str) -> Comparison:
    """Search minus control, paired over points, with Student's 95% interval.

    Args:
        points: Points and controls.
        control: ``uniform`` or ``random``.
        split: ``holdout``, on which points were chosen, or ``test``, which chose nothing.
    """
    by_id = {p.id: p for p in points if p.control_of is None}
    controls = [(p, p.control_of) for p in points if p.control_of and p.origin == f"control: {control}"]
    differences = [_score(by_id[beside], split) - _score(p, split) for p, beside in controls]
    n, alike = len(differences), sum(p.id == beside for p, beside in controls)
    mean = statistics.fmean(differences) if n else 0.0
    if n < 2:
        return Comparison(control, split, mean, None, None, n, alike)
    margin = float(stats.t.ppf(0.975, n - 1)) * statistics.stdev(differences) / n**0.5
    return Comparison(control, split, mean, mean - margin, mean + margin, n, alike)


def _count(records: Sequence[Record]) -> int:
    """Trainings; without training, candidates: one that was re-fitted twice counts once."""
    evaluations = [record.evaluation for record in records]
    trained = {m for rung in (2, 3) for m in METHODS[rung]}
    return len({(e.candidate, e.method if e.method in trained else "", e.seed) for e in evaluations})


class NotedScores:
    """Scores of recorded networks in fp32, measured once and noted in the record.

    Args:
        run: Whose networks.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._exact = run.config.max_rung == 3 or run.problem.exact_scores

    def holdout(self, record: Record) -> float:
        """On holdout: as recorded where that is fp32, else measured again."""
        if self._exact:
            return record.evaluation.score
        return self._of("holdout", record, self._run.problem.evaluator.holdout_score)

    def test(self, record: Record) -> float:
        """On test; only after the front is final."""
        return self._of("test", record, self._run.problem.evaluator.test_score)

    def noted(self, key: str, measure: Callable[[], float]) -> float:
        """What the record says, or measured now and noted."""
        value = self._run.book.noted(key)
        if value is None:
            value = measure()
            self._run.book.note(key, value)
        return float(value)

    def _of(self, split: str, record: Record, score: Callable[[nn.Module], float]) -> float:
        e = record.evaluation
        key = f"{split} {e.candidate} rung-{e.rung} {e.method} {e.seed}"
        return self.noted(key, lambda: score(self._run.weights.load(record)))


def summarise(values: Sequence[float] | map[float]) -> Summary:
    """Mean and sample standard deviation."""
    values = list(values)
    return Summary(
        statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None, len(values)
    )


def _dense(run: Run, scores: NotedScores) -> Dense:
    problem, architecture = run.problem, run.problem.space.dense
    return Dense(
        score=problem.dense_score,
        test=scores.noted("test dense", lambda: problem.evaluator.test_score(problem.dense_model)),
        macs=problem.space.macs(architecture),
        params=problem.space.params(architecture),
        widths=dict(architecture.items),
        latency_ms=run.encoding.dense_latency_ms,
    )


def _point(judged: Judged, scores: NotedScores, *, saved: bool) -> Point:
    contender, evaluation = judged.contender, judged.saved.evaluation
    return Point(
        id=contender.candidate.id,
        macs=evaluation.macs,
        params=evaluation.params,
        score=judged.holdout[judged.method].mean,
        rung=evaluation.rung,
        weights=judged.method,
        scores=judged.holdout,
        test={method: summarise(map(scores.test, records)) for method, records in contender.records.items()},
        saved_test=scores.test(judged.saved) if saved else None,
        criteria=dict(contender.candidate.chosen),
        widths=dict(contender.candidate.architecture.items),
        origin=contender.origin,
        control_of=contender.control_of,
        latency_ms=evaluation.latency_ms,
    )


def _save_front(run: Run, points: Sequence[Judged], folder: Path) -> None:
    """Write the networks of the front, and remove those of an earlier budget that left it."""
    folder = folder / "architectures"
    for judged in points:
        _save(run, judged, folder / judged.contender.candidate.id)
    ids = {judged.contender.candidate.id for judged in points}
    known = {record.evaluation.candidate for record in run.book.all_records()}
    for path in sorted(folder.iterdir()):
        if path.name in known - ids:
            logger.info("%s is on the front no more", path.name)
            shutil.rmtree(path)


def _save(run: Run, judged: Judged, target: Path) -> None:
    """Write one network, its MACs counted by fvcore; what is there already stays."""
    candidate, evaluation = judged.contender.candidate, judged.saved.evaluation
    how = f"rung-{evaluation.rung} {evaluation.method} {evaluation.seed}"
    key = f"saved {candidate.id}"
    if run.book.noted(key) == how and (target / "architecture.json").exists():
        return
    model = run.weights.load(judged.saved)
    counted = run.problem.evaluator.count_macs(model)
    if counted != evaluation.macs:
        raise RuntimeError(
            f"Candidate {candidate.id}: fvcore counts {counted} MACs, the closed form says {evaluation.macs}."
        )
    write_architecture(target, run.problem.evaluator.architecture_document(candidate), model.state_dict())
    run.book.note(key, how)


def _score(point: Point, split: str) -> float:
    return point.score if split == "holdout" else point.test[point.weights].mean
