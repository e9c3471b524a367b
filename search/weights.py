"""Weights of the highest rung, kept until the front stands: ``finals/<id>/<method>-<seed>/``.

They are written before their evaluation is recorded, so that what is recorded can be scored on test
without training again.
"""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from spaces.surgery import write_architecture

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from evaluators.evaluation import Evaluation
    from search.problem import Problem
    from search.record import Record

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Weights:
    """The ``finals`` folder of a run; removed when the run is finished."""

    folder: Path
    problem: Problem

    def keep(self, record: Record, weights: Mapping[str, Tensor]) -> None:
        """Save the network that earned an evaluation; it appears whole or not at all."""
        document = self.problem.evaluator.architecture_document(record.candidate)
        write_architecture(self._path(record.evaluation), document, weights)

    def load(self, record: Record) -> nn.Module:
        """The network that earned an evaluation; made again where its weights are gone."""
        evaluation = record.evaluation
        path = self._path(evaluation)
        if (path / "architecture.json").exists():
            return self.problem.rebuild(path).eval()
        logger.info(
            "%s %s: its weights are gone, so it is made again", evaluation.candidate, evaluation.method
        )
        outcome = self.problem.evaluator.evaluate(
            record.candidate, rung=evaluation.rung, method=evaluation.method, seed=evaluation.seed
        )
        self.keep(record, outcome.model.state_dict())
        return outcome.model.eval()

    def drop_all_but(self, candidates: Iterable[str]) -> None:
        """Delete the weights of every other candidate."""
        keep = set(candidates)
        for path in self.folder.iterdir() if self.folder.exists() else ():
            if path.name not in keep:
                shutil.rmtree(path)

    def clear(self) -> None:
        """Delete everything: test scores are noted, and the front's weights lie in ``architectures``."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, evaluation: Evaluation) -> Path:
        return self.folder / evaluation.candidate / f"{evaluation.method}-{evaluation.seed}"
