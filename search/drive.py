"""The course of a run, from the first proposal to the report; it may be killed and started again anywhere."""

from __future__ import annotations

import shlex
import shutil
from typing import TYPE_CHECKING

from evaluators.checkpoint import TRAININGS, CheckpointFolder
from search.finals import Finals
from search.finish import FRONT, finish, write_front
from search.forecast import expected_counts
from search.jobs import Executor, NothingSucceededError, Run, phase_of
from search.journal import RUNGS
from search.local import execute as execute_here
from search.record import find_study
from search.report import write_report
from search.result import Result
from search.schedule import Schedule
from search.start import note_start
from search.storage import storage_of
from search.study import Book
from search.weights import Weights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from search.config import RunConfig
    from search.encoding import Encoding
    from search.problem import Clock, Problem
    from search.progress import Progress
    from search.storage import Storage

_FINISHED = "finished"


def drive(
    problem: Problem,
    config: RunConfig,
    encoding: Encoding,
    folder: Path,
    progress: Progress,
    clock: Clock,
    warnings: Sequence[str] = (),
    execute: Executor = execute_here,
    gpus: Mapping[int, float] | None = None,
    storage: Storage | None = None,
    on_front: Callable[[Result], None] | None = None,
) -> Result:
    """Search, train the finals, judge and report, continuing whatever the folder holds.

    Args:
        problem: The prepared task.
        config: Settings, as they are saved in the folder.
        encoding: Parameters of the search.
        folder: The run folder; the caller holds its driver lock.
        progress: Who is told.
        clock: Started by the caller.
        warnings: Go into the result.
        execute: Makes the evaluations.
        gpus: That one evaluation occupies, by rung.
        storage: The record, locked by the caller; that of ``config`` when ``None``.
        on_front: Called with the result before the report is written.

    Raises:
        NothingSucceededError: If no candidate came through a rung; continued, it is tried again.
        RuntimeError: If fvcore's count differs from the closed form.
    """
    storage = storage or storage_of(folder, config)
    book = Book(storage.open(), encoding.distributions, storage.study_name, encoding.objectives)
    weights = Weights(folder / "finals", problem)
    trainings = CheckpointFolder(folder / TRAININGS)
    run = Run(problem, config, encoding, book, weights, progress, trainings, clock, gpus or {})
    note_start(book, problem, encoding, warnings)
    progress.expect(expected_counts(config))
    for record in book.all_records():
        progress.evaluated(record)
    for rung in RUNGS:
        clock.before[phase_of(rung)] += book.busy_seconds([rung])
    try:
        execute(run, Schedule(run))
        contenders = Finals(run).contenders(execute)
    except NothingSucceededError as error:
        book.try_again(error.rung)
        raise
    progress.begin("the front is final: scoring on test")
    result = finish(run, contenders, folder, warnings)
    if on_front is not None:
        with clock.phase("latency"):
            on_front(result)
        write_front(result, clock.totals(), folder)  # the report tells this phase, too
    progress.begin("writing the report")
    with clock.phase("report"):
        try:
            write_report(folder, storage, ends_run=True)
        except ValueError as error:  # what somebody put into the folder: peers.json, latency.json
            again = f"python -m search.report {shlex.quote(str(folder))}"
            progress.say(f"warning: no report: {error}; {again} writes it")
    result = write_front(result, clock.totals(), folder)
    run.weights.clear()
    shutil.rmtree(folder / TRAININGS, ignore_errors=True)
    book.note(_FINISHED, _extent(config))
    return result


def finished_result(folder: Path, config: RunConfig, storage: Storage | None = None) -> Result | None:
    """The result of a run that is finished with these settings, else ``None``. Reads only."""
    storage = storage or storage_of(folder, config)
    if not (folder / FRONT).exists() or not storage.exists():
        return None
    study = find_study(storage.read(), storage.study_name(1))
    if study is None or study.user_attrs.get(_FINISHED) != _extent(config):
        return None
    return Result.load(folder)


def _extent(config: RunConfig) -> dict[str, object]:
    return {"budget": config.budget, "final": config.final}
