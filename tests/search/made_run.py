"""A run folder made by hand: five networks on a front, controls beside two of them, a real journal."""

from __future__ import annotations

import json
from dataclasses import replace

import optuna

from evaluators.evaluation import Evaluation
from search.journal import open_journal
from search.record import Record
from search.result import Comparison, Dense, Hypervolume, Point, Result, RungCorrelation, Summary
from search.study import Book

GROUPS = {"stem": 8, "block.conv1": 16, "block.conv2": 32}
DENSE = Dense(score=0.97, test=0.96, macs=1_000_000, params=50_000, widths=GROUPS)


def make_point(id_, macs, score, *, test=None, origin="sampler: front", control_of=None, params=None):
    """Fine-tuning wins on holdout by construction: Scratch-E is 2, Scratch-B 1 point behind."""
    test = score - 0.01 if test is None else test
    behind = {"finetune": 0.0, "scratch_e": 0.02, "scratch_b": 0.01}
    return Point(
        id=id_,
        macs=macs,
        params=macs // 20 if params is None else params,
        score=score,
        rung=3,
        weights="finetune",
        scores={name: Summary(score - gap, 0.002, 3) for name, gap in behind.items()},
        test={name: Summary(test - gap, 0.003, 3) for name, gap in behind.items()},
        saved_test=test + 0.001,
        criteria={"block.conv1": "taylor", "block.conv2": "l1"},
        widths={"stem": 8, "block.conv1": 7, "block.conv2": 11},
        origin=origin,
        control_of=control_of,
    )


POINTS = (
    make_point("a1", 210_000, 0.8973),
    make_point("b2", 290_000, 0.9305),
    make_point("c3", 480_000, 0.9582),
    make_point("d4", 710_000, 0.9676),
    make_point("e5", 880_000, 0.9725),
)


def make_result(**changes):
    result = Result(
        task="digits",
        metric="top1",
        dense=DENSE,
        points=POINTS,
        dominated=(make_point("f6", 900_000, 0.95),),
        controls=(
            make_point("u7", 475_000, 0.9482, origin="control: uniform", control_of="c3"),
            make_point("r8", 479_000, 0.9382, origin="control: random", control_of="c3"),
        ),
        hypervolume=Hypervolume(0.6543, {"macs": 1.0, "score": 0.0}),
        comparisons=(
            Comparison("uniform", "holdout", 0.0061, 0.0012, 0.0110, 5),
            Comparison("uniform", "test", 0.0011, -0.0040, 0.0062, 5),
            Comparison("random", "holdout", 0.02, 0.01, 0.03, 5),
            Comparison("random", "test", 0.0181, 0.0090, 0.0272, 5),
        ),
        counts={"rung-1": 24, "rung-2": 8, "rung-3": 24},
        seconds={"dense": 12.4, "finals": 200.0},
        warnings=("aten::foo has no rule.",),
        correlations=(
            RungCorrelation(0.714, 0.302, 0.902, 8, rungs=(1, 2)),
            RungCorrelation(0.2, -0.45, 0.72, 5, rungs=(2, 3)),
        ),
    )
    return replace(result, **changes)


EMPTY = make_result(
    points=(),
    dominated=(),
    controls=(),
    comparisons=(),
    hypervolume=Hypervolume(0.0, {"macs": 1.0, "score": 0.0}),
)


def make_run(folder, result=None, *, config=None, candidate="0123456789", journal=True):
    """Write what a finished run leaves, but for the report."""
    result = result or make_result()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "front.json").write_text(result.to_json())
    config = (
        {"task": "digits", "budget": "24", "seed": 3, "criteria": ["l1", "taylor"]}
        if config is None
        else config
    )
    (folder / "config.json").write_text(json.dumps(config))
    for point in result.points:
        saved = folder / "architectures" / point.id
        saved.mkdir(parents=True)
        (saved / "architecture.json").write_text(json.dumps({"widths": point.widths}))
        (saved / "weights.safetensors").write_bytes(point.id.encode() * 100)
    if journal:
        _write_journal(folder, result, candidate)
    return folder


def _write_journal(folder, result, candidate):
    """Three cheap candidates whose order is the same on rungs 1 and 2, and the finals."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    book = Book(open_journal(folder), {})
    for i, score in enumerate((0.2, 0.5, 0.93)):
        for rung, method, gain in ((1, "refit", 0.0), (2, "finetune", 0.02)):
            evaluation = Evaluation(
                f"{candidate}{i}", rung, method, 0, score + gain, 300_000 + i, 10_000, 1.0
            )
            book.add(Record(evaluation, "seed: random", dict(GROUPS), {}), {})
    for point in (*result.points, *result.dominated, *result.controls):
        for method, summary in point.scores.items():
            evaluation = Evaluation(point.id, 3, method, 0, summary.mean, point.macs, point.params, 2.0)
            book.add(Record(evaluation, point.origin, point.widths, point.criteria, point.control_of), {})
