"""The frozen result of one evaluation, and what every evaluator promises."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from torch import nn

    from evaluators.candidate import Candidate

Method = Literal["refit", "careful", "finetune", "scratch_e", "scratch_b"]

#: How a point of the result gets its weights, by the highest rung of the run; rung 3 tries all three.
METHODS: dict[int, tuple[Method, ...]] = {
    1: ("careful",),
    2: ("finetune",),
    3: ("finetune", "scratch_e", "scratch_b"),
}

#: The method by whose scores a rung's candidates are compared and promoted: on rung 1 a quick re-fit.
SEARCHED: dict[int, Method] = {1: "refit", 2: "finetune"}

#: Methods that take no training step, so that there is nothing to go on with after a kill.
UNTRAINED: frozenset[Method] = frozenset({"refit", "careful"})


def evaluation_name(candidate: str, rung: int, method: str, seed: int) -> str:
    """Name of an evaluation, different for each of a run; it does as a file name."""
    return f"{candidate}-{rung}-{method}-{seed}"


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What one candidate was worth.

    Attributes:
        candidate: Its ``id``.
        rung: Fidelity: 1 training-free, 2 brief fine-tune, 3 final.
        method: Where the weights came from.
        seed: Seed of the training (and of nothing else).
        score: The task's metric on holdout; higher is better; a fraction for ``top1``.
        macs: Multiply-adds for a batch of one.
        params: Number of parameters.
        seconds: Wall clock of this evaluation, earlier attempts that it goes on from included.
        latency_ms: Where latency is an objective, what :class:`evaluators.latency.LatencyMeter` says.
    """

    candidate: str
    rung: int
    method: Method
    seed: int
    score: float
    macs: int
    params: int
    seconds: float
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """An evaluation together with the network that earned it."""

    evaluation: Evaluation
    model: nn.Module


class Evaluator(Protocol):
    """Turns a candidate into a value and holds no search state."""

    def evaluate(self, candidate: Candidate, *, rung: int, method: Method, seed: int) -> Outcome:
        """Build, train as the rung and method say, and score on holdout."""
        ...

    def architecture_document(self, candidate: Candidate) -> dict[str, object]:
        """What ``architecture.json`` holds: JSON from which ``spaces.rebuild`` makes the module."""
        ...

    def count_macs(self, model: nn.Module) -> int:
        """Fvcore's count for a network that reaches the front.

        Raises:
            RuntimeError: If fvcore met an operator that it can not count.
        """
        ...

    def holdout_score(self, model: nn.Module) -> float:
        """The metric on holdout in fp32; higher is better."""
        ...

    def test_score(self, model: nn.Module) -> float:
        """The metric on the test split in fp32; read once, when the front is final."""
        ...
