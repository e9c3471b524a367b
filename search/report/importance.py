"""How much each parameter of rung 1 had to do with being among the best: PED-ANOVA, held against chance."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution

    from search.record import Params

#: Evaluations that are looked at; of more, so many are drawn, since the estimate hardly moves.
MOST = 400

#: Fewer leave too few among the best.
LEAST = 20

#: Shuffles of the values: what exceeds all of them would do so by chance once in twenty times.
SHUFFLES = 19

_LEAST_AMONG_BEST = 5

_BEST_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Importances:
    """What sets the best apart.

    Attributes:
        shares: Of each parameter, the largest first; they sum to 1.
        chance: Share that the most important of all parameters had in the luckiest of the shuffles; above 0.
        others: Shares for the second kind of values; empty where nothing sets the best by them apart.
    """

    shares: Mapping[str, float]
    chance: float
    others: Mapping[str, float]

    @property
    def beyond_chance(self) -> list[str]:
        """Parameters that no shuffle made as important as they are."""
        return [name for name, share in self.shares.items() if share > self.chance]


def best_share(num: int) -> float:
    """Share of so many evaluations that counts as the best: a tenth, more where that would be a handful."""
    return max(_BEST_SHARE, _LEAST_AMONG_BEST / num)


def importances(
    params: Sequence[Params],
    values: Sequence[float],
    others: Sequence[float],
    distributions: Mapping[str, BaseDistribution],
) -> Importances | None:
    """How far the parameters of the best differ from those of all.

    Args:
        params: ``(n,)``, of each evaluation.
        values: ``(n,)``, higher is better.
        others: ``(n,)``, a second kind of values, for comparison.
        distributions: Of the parameters.

    Returns:
        ``None`` where there are fewer than :data:`LEAST` evaluations with all parameters, where all values
        are equal, or where nothing sets the best apart.

    References:
        Watanabe, Bansal & Hutter, PED-ANOVA: Efficiently Quantifying Hyperparameter Importance in Arbitrary
        Subspaces, IJCAI 2023.
    """
    whole = [i for i, given in enumerate(params) if given.keys() == distributions.keys()]
    if not distributions or len(whole) < LEAST:
        return None
    generator = np.random.default_rng(0)
    if len(whole) > MOST:
        whole = sorted(generator.choice(whole, MOST, replace=False).tolist())
    wanted = np.array([values[i] for i in whole])
    if len(np.unique(wanted)) < 2:
        return None
    study = _study([params[i] for i in whole], distributions)
    found = _raw(study, wanted)
    if sum(found.values()) <= 0:
        return None
    shuffled = [max(_raw(study, generator.permutation(wanted)).values()) for _ in range(SHUFFLES)]
    # Of shuffled values nothing may set the best apart at all; a multiple of that would be infinite.
    chance = max(*shuffled, 1e-9) / sum(found.values())
    return Importances(_shares(found), chance, _shares(_raw(study, np.array([others[i] for i in whole]))))


def _shares(raw: Mapping[str, float]) -> dict[str, float]:
    total = sum(raw.values())
    return {name: value / total for name, value in raw.items()} if total > 0 else {}


def _study(params: Sequence[Params], distributions: Mapping[str, BaseDistribution]) -> optuna.Study:
    """A study in memory whose values do not matter."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(storage=optuna.storages.InMemoryStorage())
    finally:
        optuna.logging.set_verbosity(verbosity)
    known = dict(distributions)
    study.add_trials(create_trial(params=dict(given), distributions=known, value=0.0) for given in params)
    return study


def _raw(study: optuna.Study, values: NDArray[np.float64]) -> dict[str, float]:
    """Unscaled importances, the largest first."""
    lower_is_better = (-values).tolist()
    evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(len(values)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Optuna says each time that low targets are taken for the good ones
        return get_param_importances(
            study,
            evaluator=evaluator,
            target=lambda trial: lower_is_better[trial.number],
            normalize=False,
        )
