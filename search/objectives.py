"""What a run optimises: the score, and one cost or several (``--objectives``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from optuna.study import StudyDirection

from evaluators.options import OptionError
from search.front import Mark

if TYPE_CHECKING:
    from collections.abc import Sequence

    from evaluators.evaluation import Evaluation

#: Fields of an evaluation that a run can minimise.
COSTS = ("macs", "params", "latency_ms")

#: The score's name where the task's metric is not named.
SCORE = "score"

LATENCY = "latency_ms"


@dataclass(frozen=True, slots=True)
class Objectives:
    """Costs, lower is better, and the score, higher is better.

    Attributes:
        costs: Of :data:`COSTS`, in that order.
    """

    costs: tuple[str, ...] = ("macs",)

    @classmethod
    def of(cls, names: Sequence[str]) -> Objectives:
        """From the names on the command line, checked before."""
        return cls(tuple(cost for cost in COSTS if cost in names))

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of a point in ``front.json``."""
        return (SCORE, *self.costs)

    @property
    def directions(self) -> list[StudyDirection]:
        """Of the studies."""
        return [StudyDirection.MINIMIZE] * len(self.costs) + [StudyDirection.MAXIMIZE]

    def values(self, evaluation: Evaluation) -> list[float]:
        """Of a trial: costs, then the score."""
        return [*self._costs(evaluation), float(evaluation.score)]

    def mark(self, evaluation: Evaluation, score: float | None = None) -> Mark:
        """An evaluation as fronts see it.

        Args:
            evaluation: Says what it costs.
            score: Instead of its own.
        """
        score = evaluation.score if score is None else score
        return Mark(evaluation.macs, score, evaluation.candidate, self.beside(self._costs(evaluation)))

    def beside(self, costs: Sequence[float]) -> tuple[float, ...]:
        """The costs of a mark; none where MACs alone count."""
        return () if self == MACS else tuple(costs)

    def _costs(self, evaluation: Evaluation) -> list[float]:
        found = [getattr(evaluation, cost) for cost in self.costs]
        if None in found:
            raise ValueError(f"Candidate {evaluation.candidate} has no `latency_ms`.")
        return list(map(float, found))


#: What a run optimises unless told otherwise.
MACS = Objectives()


def parse_objectives(text: str) -> tuple[str, ...]:
    """``top1,macs,latency_ms``: the metric's name or ``score`` first, then costs in the order of ours.

    Whether the task's metric has that name is for :func:`check_metric` to say.

    Raises:
        OptionError: Unless there are one score and at least one cost.
    """
    names = [name.strip() for name in text.split(",")]
    costs = [cost for cost in COSTS if cost in names]
    scores = [name for name in names if name not in COSTS]
    if len(scores) != 1 or not scores[0] or not costs or len(set(names)) < len(names):
        rule = f"name the task's metric, or {SCORE}, and one or more of {', '.join(COSTS)}."
        raise OptionError("objectives", text, rule)
    return (scores[0], *costs)


def check_metric(objectives: tuple[str, ...], metric: str) -> tuple[str, ...]:
    """The objectives with the name of the task's metric.

    Raises:
        OptionError: If another one is named.
    """
    if objectives[0] not in (metric, SCORE):
        rule = f"the task's metric is {metric}; name it, or {SCORE}, and one or more of {', '.join(COSTS)}."
        raise OptionError("objectives", ",".join(objectives), rule)
    return (metric, *objectives[1:])
