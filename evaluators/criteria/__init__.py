"""Criteria: which units of a group stay. To add one, write a function and put it into :data:`CRITERIA`."""

from __future__ import annotations

from evaluators.criteria.context import Criterion, NotApplicable, ScoringContext, gather_gradients
from evaluators.criteria.gradient import taylor
from evaluators.criteria.magnitude import bn_scale, l1, l2
from evaluators.criteria.ranking import keep_order, kept_units, score
from evaluators.criteria.uninformed import random

CRITERIA: dict[str, Criterion] = {
    "l1": l1,
    "l2": l2,
    "bn_scale": bn_scale,
    "taylor": taylor,
    "random": random,
}

#: Criteria that read ``ScoringContext.gradients``.
NEEDS_GRADIENTS = frozenset({"taylor"})

__all__ = [
    "CRITERIA",
    "NEEDS_GRADIENTS",
    "Criterion",
    "NotApplicable",
    "ScoringContext",
    "gather_gradients",
    "keep_order",
    "kept_units",
    "score",
]
