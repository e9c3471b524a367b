"""Scores of different groups on one scale, so that one threshold can serve all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor


def none(scores: Tensor) -> Tensor:
    """As they are: for criteria that measure loss or error, and ``lamp``."""
    return scores


def mean(scores: Tensor) -> Tensor:
    """Divided by the group's mean absolute score; zeros stay zeros.

    The mean is of absolute values because a negative mean would turn the order around.
    """
    scale = scores.abs().mean()
    return scores / scale if scale > 0 else scores


def gaussian(scores: Tensor) -> Tensor:
    """Less the group's mean, divided by its (population) standard deviation; zeros where all are equal."""
    deviations = scores - scores.mean()
    scale = deviations.square().mean().sqrt()
    # Below this the differences are rounding errors of the mean.
    return deviations / scale if scale > 1e-14 * scores.abs().max() else deviations * 0


#: ``(width,) -> (width,)``; each keeps the order of the units within a group.
NORMALISATIONS: dict[str, Callable[[Tensor], Tensor]] = {"none": none, "mean": mean, "gaussian": gaussian}
