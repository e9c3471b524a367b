"""Criteria: which units of a group stay. To add one, write a function and put it into :data:`CRITERIA`.

A unit may live in many tensors: a residual group is computed by several layers and read by several. All
its slots go together, so they get one score, by one rule for each kind of criterion:

- weights and their gradients: the slots of *all* members of the role are laid behind one another, and the
  norm, sum or distance is taken over this one long vector. Only ``lamp`` first divides by layer, as it is
  defined, and ``bn_scale`` takes the mean, so that it does not depend on how many norms there are;
- activations: means over all slots and all readers;
- first and second derivatives by gates: one gate for the whole unit, so derivatives add up over all places
  before anything is squared;
- reconstruction: the errors of all readers add up, each output weighed by its importance.
"""

from __future__ import annotations

from evaluators.criteria.activation import activation_mean, apoz, entropy, hrank
from evaluators.criteria.context import Criterion, NotApplicable, ScoringContext
from evaluators.criteria.gradient import fisher, gradient_norm, hessian, taylor, taylor_weights
from evaluators.criteria.learned import learned
from evaluators.criteria.magnitude import bn_scale, consumer_l2, fpgm, l1, l2, lamp
from evaluators.criteria.normalise import NORMALISATIONS
from evaluators.criteria.ranking import keep_order, kept_units, score
from evaluators.criteria.reconstruction import lasso, obs, thinet
from evaluators.criteria.uninformed import random

#: In the order in which they are scored: ``learned`` reads the scores of all before it.
CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "consumer_l2": consumer_l2,
    "fpgm": fpgm,
    "lamp": lamp,
    "bn_scale": bn_scale,
    "activation_mean": activation_mean,
    "apoz": apoz,
    "entropy": entropy,
    "hrank": hrank,
    "gradient_norm": gradient_norm,
    "taylor": taylor,
    "taylor_weights": taylor_weights,
    "fisher": fisher,
    "hessian": hessian,
    "thinet": thinet,
    "lasso": lasso,
    "obs": obs,
    "random": random,
    "learned": learned,
}

#: Criteria that read ``Statistics.gradients``.
NEEDS_GRADIENTS = frozenset({"gradient_norm", "taylor", "taylor_weights"})
#: Criteria that read ``Statistics.units``.
NEEDS_UNITS = frozenset({"activation_mean", "apoz", "entropy", "hrank", "fisher"})
#: Criteria that read ``UnitStatistics.rank``, the dearest of them.
NEEDS_RANK = frozenset({"hrank"})
#: Criteria that read ``Statistics.moments``.
NEEDS_MOMENTS = frozenset({"thinet", "lasso", "obs"})
#: Criteria that read something which the one sweep over the calibration data gathers.
NEEDS_STATISTICS = NEEDS_GRADIENTS | NEEDS_UNITS | NEEDS_MOMENTS
#: Criteria that read ``Statistics.curvature``, a probe of its own.
NEEDS_CURVATURE = frozenset({"hessian"})
#: Criteria that read ``Statistics.removals``, a probe of its own.
NEEDS_REMOVALS = frozenset({"learned"})
#: Criteria that read ``ScoringContext.scores`` and ``groups``: to be scored after all others.
NEEDS_SCORES = frozenset({"learned"})

__all__ = [
    "CRITERIA",
    "NEEDS_CURVATURE",
    "NEEDS_GRADIENTS",
    "NEEDS_MOMENTS",
    "NEEDS_RANK",
    "NEEDS_REMOVALS",
    "NEEDS_SCORES",
    "NEEDS_STATISTICS",
    "NEEDS_UNITS",
    "NORMALISATIONS",
    "Criterion",
    "NotApplicable",
    "ScoringContext",
    "keep_order",
    "kept_units",
    "score",
]
