"""Samplers of rung 1: who proposes the next candidate. A fresh one is made for every ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from search.front_sampler import FrontSampler

if TYPE_CHECKING:
    from collections.abc import Callable

    import optuna
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from search.encoding import Encoding
    from search.limits import Budget
    from search.record import Params

#: Population of NSGA-II, and random starts of TPE and GP, where the budget is a time.
_BY_DEFAULT = 10


@dataclass(frozen=True, slots=True)
class SamplerContext:
    """What a sampler may know.

    Attributes:
        encoding: Parameters, costs and the MACs window.
        seed: Depends on the run's seed and the number of the proposal.
        population: Size that fits the budget, see :func:`population`.
    """

    encoding: Encoding
    seed: int
    population: int


def population(budget: Budget) -> int:
    """A quarter of the budget, at least 4 and at most 50, so that a few generations fit."""
    return _BY_DEFAULT if budget.evaluations is None else max(4, min(50, budget.evaluations // 4))


def _front(context: SamplerContext) -> BaseSampler:
    return FrontSampler(context.encoding, context.seed)


def _known_space(context: SamplerContext, study: optuna.Study, _: FrozenTrial) -> dict[str, BaseDistribution]:
    """Parameters that are proposed together: all, which every proposal of a run has.

    Optuna would look for what all trials so far have in common, and start anew with each fresh sampler: at
    1,000 trials that costs ten times as much as the proposal.
    """
    if not any(trial.state == TrialState.COMPLETE for trial in study.get_trials(deepcopy=False)):
        return {}
    return {name: d for name, d in sorted(context.encoding.distributions.items()) if not d.single()}


def _nsga2(context: SamplerContext) -> BaseSampler:
    sampler = NSGAIISampler(population_size=context.population, seed=context.seed)
    return _with_known_space(sampler, context)


def _tpe(context: SamplerContext) -> BaseSampler:
    sampler = TPESampler(multivariate=True, n_startup_trials=context.population, seed=context.seed)
    return _with_known_space(sampler, context)


def _with_known_space(sampler: BaseSampler, context: SamplerContext) -> BaseSampler:
    sampler.infer_relative_search_space = partial(_known_space, context)  # type: ignore[method-assign]
    return sampler


def _gp(context: SamplerContext) -> BaseSampler:
    return GPSampler(n_startup_trials=context.population, seed=context.seed)


def _random(context: SamplerContext) -> BaseSampler:
    return RandomSampler(seed=context.seed)


SAMPLERS: dict[str, Callable[[SamplerContext], BaseSampler]] = {
    "front": _front,
    "nsga2": _nsga2,
    "tpe": _tpe,
    "random": _random,
    "gp": _gp,
}


class FixedSampler(BaseSampler):
    """Proposes exactly ``params``: how seeds go through the same ask as every proposal."""

    def __init__(self, params: Params) -> None:
        self._params = params

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """Nothing is relative."""
        return {}

    def sample_relative(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Nothing is relative."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
        param_name: str,
        param_distribution: BaseDistribution,  # noqa: ARG002
    ) -> Any:
        """The given value."""
        return self._params[param_name]
