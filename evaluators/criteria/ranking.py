"""From scores to kept units."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from evaluators.criteria.context import Criterion, ScoringContext
    from spaces.groups import ChannelGroup


def score(criterion: Criterion, context: ScoringContext, group: ChannelGroup) -> Tensor:
    """The criterion's scores, checked: ``(group.width,)`` float64; higher means keep.

    Raises:
        NotApplicable: If the criterion does not apply to the group.
        ValueError: If a score is NaN or infinite.
    """
    scores = criterion(context, group)
    assert scores.shape == (group.width,)
    assert scores.dtype == torch.float64
    if not scores.isfinite().all():
        units = torch.nonzero(~scores.isfinite()).flatten().tolist()
        raise ValueError(f"ChannelGroup {group.name!r}: scores of units {units[:5]} are not finite.")
    return scores


def keep_order(scores: Tensor) -> Tensor:
    """Units by falling score: ``(width,)`` int64; the lower index stays where two are equal."""
    return scores.argsort(descending=True, stable=True)


def removal_scores(order: Tensor, increases: Tensor) -> Tensor:
    """Scores whose :func:`keep_order` is ``order`` backwards: ``(width,)`` float64; higher means keep.

    A unit's score is the increase at which it goes, or the largest one before it, so that scores never
    fall along the order; what makes them differ is at most ``1e-12 * width`` of the largest score.

    Args:
        order: ``(width,)`` int64 units, first removed first.
        increases: ``(width,)`` what each removal costs, in the same order.
    """
    rising = increases.double().cummax(0).values
    largest = float(rising.abs().max())
    # Nothing is lost with any unit: differences that no threshold sees.
    smallest = 1e-12 * largest if largest > 0 else torch.finfo(torch.float64).tiny
    scores = torch.empty_like(rising)
    scores[order] = rising + smallest * torch.arange(len(order), dtype=torch.float64)
    return scores


def kept_units(order: Tensor, width: int) -> Tensor:
    """The first ``width`` units of :func:`keep_order`, ascending: ``(width,)`` int64."""
    return order[:width].sort().values
