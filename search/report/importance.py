"""How much each parameter of rung 1 had to do with being among the best: PED-ANOVA."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import create_trial

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from optuna.distributions import BaseDistribution

    from search.study import Params

#: Evaluations that are looked at; of more, so many are drawn, since the estimate hardly moves.
MOST = 1000

#: Fewer leave too few among the best.
LEAST = 20

_LEAST_AMONG_BEST = 5

_BEST_SHARE = 0.1


def best_share(num: int) -> float:
    """Share of so many evaluations that counts as the best: a tenth, more where that would be a handful."""
    return max(_BEST_SHARE, _LEAST_AMONG_BEST / num)


def importances(
    params: Sequence[Params], values: Sequence[float], distributions: Mapping[str, BaseDistribution]
) -> dict[str, float] | None:
    """Share of the importance that each parameter has, the largest first; they sum to 1.

    Args:
        params: ``(n,)``, of each evaluation.
        values: ``(n,)``, higher is better.
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
    if len(whole) > MOST:
        whole = sorted(np.random.default_rng(0).choice(whole, MOST, replace=False).tolist())
    if len({values[i] for i in whole}) < 2:
        return None
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        study = optuna.create_study(direction="maximize", storage=optuna.storages.InMemoryStorage())
        study.add_trials(
            create_trial(params=dict(params[i]), distributions=dict(distributions), value=values[i])
            for i in whole
        )
        evaluator = PedAnovaImportanceEvaluator(target_quantile=best_share(len(whole)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = get_param_importances(study, evaluator=evaluator)
    finally:
        optuna.logging.set_verbosity(verbosity)
    return dict(found) if sum(found.values()) > 0 else None
