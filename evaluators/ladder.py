"""The ladder: what one candidate is worth on each rung. It knows no other candidate and no search."""

from __future__ import annotations

import time
from functools import cached_property
from typing import TYPE_CHECKING

from evaluators.cache import fingerprint
from evaluators.criteria import keep_order, kept_units
from evaluators.evaluation import METHODS, SEARCHED, UNTRAINED, Evaluation, Method, Outcome, evaluation_name
from evaluators.flops import count_macs
from evaluators.precision import at_rest
from evaluators.scoring import evaluate
from evaluators.scratch import fresh, scratch_b_epochs
from evaluators.seeding import training_seed
from evaluators.shards import ALONE, Shards
from evaluators.train import OnStep, train
from spaces import cut, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor, nn

    from evaluators.candidate import Candidate
    from evaluators.checkpoint import Checkpoints
    from evaluators.latency import LatencyMeter
    from evaluators.precision import Precision
    from evaluators.reconstruct.refit import Refit
    from evaluators.task import Loader, Task
    from spaces import Space


class Ladder:
    """Implements :class:`evaluators.evaluation.Evaluator`.

    Args:
        task: Its ``model`` is the trained dense network, which is never changed.
        space: Traced from that model.
        scores: Group -> criterion -> scores, as in :class:`evaluators.prepare.Prepared`.
        refit: Mends networks after the cut.
        precision: How networks are trained and scored below rung 3.
        on_step: Called after each training step with the steps done and the steps in all.
        checkpoints: Name of an evaluation -> where its training leaves its state, so that it can be
            interrupted. Without, an interrupted training starts over. The state stays when the training is
            done: whoever has put the evaluation on record deletes it.
        shards: Who shares the trainings; all evaluate the same.
        latency: Times networks, where latency is an objective.
    """

    def __init__(
        self,
        task: Task,
        space: Space,
        scores: Mapping[str, Mapping[str, Tensor]],
        refit: Refit,
        precision: Precision,
        on_step: OnStep | None = None,
        checkpoints: Callable[[str], Checkpoints] | None = None,
        shards: Shards = ALONE,
        latency: LatencyMeter | None = None,
    ) -> None:
        self.task, self.space, self.scores, self.precision = task, space, scores, precision
        self.refit = refit
        self.on_step, self.checkpoints, self.shards = on_step, checkpoints, shards
        self.latency = latency
        self._orders: dict[tuple[str, str], Tensor] = {}

    def evaluate(self, candidate: Candidate, *, rung: int, method: Method, seed: int) -> Outcome:
        """Build, train as the rung and method say, and score on holdout.

        The network is handed over in eval mode, on the CPU, in the default memory layout. The score is in
        the run's precision on rungs 1 and 2 and in fp32 on rung 3.

        Raises:
            FloatingPointError: If training diverges or the metric is not finite.
        """
        assert method in METHODS[rung] or method == SEARCHED.get(rung)
        start = time.monotonic()
        kept = self.kept(candidate)
        model = cut(self.task.model, self.space, kept)
        if method == "refit":
            self.refit.quick(model, kept)
        elif method in ("careful", "finetune"):
            self.refit.thorough(model, kept)
        else:
            fresh(model, self.task, training_seed(method, seed))
        before = 0.0
        if method not in UNTRAINED:
            name = evaluation_name(candidate.id, rung, method, seed)
            checkpoints = self.checkpoints(name) if self.checkpoints else None
            units = {group: k.tolist() for group, k in kept.items()}
            origin = fingerprint(name, self._dense_fingerprint, units) if checkpoints else ""
            before = self._train(model, candidate, rung, method, seed, checkpoints, origin)
        precision = self.precision.exact if rung == 3 else self.precision
        score = evaluate(model, self.task, self.task.holdout, precision)
        at_rest(model)
        latency_ms = None
        if self.latency is not None and self.shards.rank == 0:
            latency_ms = self.latency.latency_ms(candidate.architecture, model)
        evaluation = Evaluation(
            candidate=candidate.id,
            rung=rung,
            method=method,
            seed=seed,
            score=score,
            macs=self.space.macs(candidate.architecture),
            params=self.space.params(candidate.architecture),
            seconds=time.monotonic() - start + before,
            latency_ms=latency_ms,
        )
        return Outcome(evaluation, model)

    def kept(self, candidate: Candidate) -> dict[str, Tensor]:
        """Sorted ``(k,)`` LongTensor of the units that stay, for each group that loses some."""
        widths = candidate.architecture.widths
        return {
            group: kept_units(self._order(group, criterion), widths[group])
            for group, criterion in candidate.chosen
        }

    def architecture_document(self, candidate: Candidate) -> dict[str, object]:
        """What ``architecture.json`` holds: JSON from which ``spaces.rebuild`` makes the module."""
        return describe(self.space, self.kept(candidate), candidate.criteria, self.task.model)

    def count_macs(self, model: nn.Module) -> int:
        """Multiply-adds by fvcore for a network that reaches the front.

        Raises:
            RuntimeError: If fvcore met an operator that it can not count.
        """
        return count_macs(model, self.task.example_inputs)

    def holdout_score(self, model: nn.Module) -> float:
        """The metric on holdout in fp32; higher is better."""
        return self._exact_score(model, self.task.holdout)

    def test_score(self, model: nn.Module) -> float:
        """The metric on the test split in fp32; read once, when the front is final."""
        return self._exact_score(model, self.task.test)

    def _exact_score(self, model: nn.Module, loader: Loader) -> float:
        score = evaluate(model, self.task, loader, self.precision.exact)
        at_rest(model)
        return score

    def _train(
        self,
        model: nn.Module,
        candidate: Candidate,
        rung: int,
        method: Method,
        seed: int,
        checkpoints: Checkpoints | None,
        origin: str,
    ) -> float:
        """Wall clock of earlier attempts."""
        recipe = self.task.recipe
        if method == "finetune":
            epochs = recipe.brief_epochs if rung == 2 else recipe.finetune_epochs
        elif method == "scratch_e":
            epochs = recipe.epochs
        else:
            pruned_macs = self.space.macs(candidate.architecture)
            epochs = scratch_b_epochs(recipe.epochs, dense_macs=self._dense_macs, pruned_macs=pruned_macs)
        return train(
            model,
            self.task,
            epochs=epochs,
            lr=recipe.finetune_lr if method == "finetune" else recipe.lr,
            seed=training_seed(method, seed),
            precision=self.precision,
            on_step=self.on_step,
            checkpoints=checkpoints,
            origin=origin,
            shards=self.shards,
        )

    def _order(self, group: str, criterion: str) -> Tensor:
        key = group, criterion
        if key not in self._orders:
            self._orders[key] = keep_order(self.scores[group][criterion])
        return self._orders[key]

    @cached_property
    def _dense_macs(self) -> int:
        return self.space.macs(self.space.dense)

    @cached_property
    def _dense_fingerprint(self) -> str:
        return fingerprint(self.task.model.state_dict())
