"""TensorBoard event files of a run: scalars for every trial, one step each."""

from __future__ import annotations

import shutil
from collections import Counter, defaultdict
from typing import TYPE_CHECKING

from tensorboardX import SummaryWriter

from evaluators.evaluation import SEARCHED
from search.front import REFERENCE, Mark, front, hypervolume

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from search.record import Record

#: Inside the run folder.
FOLDER = "tensorboard"

#: Seconds after which what a killed driver had not written is lost; a resumed one writes it again.
_FLUSH_SECONDS = 5


class Scalars:
    """Writes what every evaluation was worth; steps count the evaluations of a rung.

    A driver that resumes a run hears of everything on record again, so it begins with new files.

    Args:
        folder: The run folder.
        metric: Name of the score.
        dense_macs: Multiply-adds of the dense network.
    """

    def __init__(self, folder: Path, metric: str, dense_macs: int) -> None:
        shutil.rmtree(folder / FOLDER, ignore_errors=True)
        self._writer = SummaryWriter(str(folder / FOLDER), flush_secs=_FLUSH_SECONDS)
        self._metric, self._dense_macs = metric, dense_macs
        self._steps: Counter[int] = Counter()
        self._fronts: dict[int, list[Mark]] = defaultdict(list)

    def __enter__(self) -> Scalars:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()

    def evaluated(self, record: Record) -> None:
        """Score, size and seconds of one evaluation, and the hypervolume of its rung so far."""
        evaluation = record.evaluation
        rung, step = evaluation.rung, self._steps[evaluation.rung]
        self._steps[rung] += 1
        scalars = {
            self._metric: evaluation.score,
            "macs_share": evaluation.macs / self._dense_macs,
            "params": evaluation.params,
            "seconds": evaluation.seconds,
        }
        if evaluation.method == SEARCHED.get(rung) and not record.is_control:
            mark = Mark(evaluation.macs, evaluation.score, evaluation.candidate)
            found = self._fronts[rung] = front([*self._fronts[rung], mark])
            if (
                min(mark.score for mark in found) >= REFERENCE["score"]
            ):  # else no corner is known before the end
                scalars["hypervolume"] = hypervolume(found, self._dense_macs)
        for name, value in scalars.items():
            self._writer.add_scalar(f"rung-{rung}/{name}", value, step)
