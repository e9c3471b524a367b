"""Allocations: how many units each group keeps at a MACs target, from what is known before any evaluation.

Every function returns widths with at most the wanted share of the dense MACs; one step more in any group
would exceed it. What is known about a group becomes a *damage* for each proposed width, which falls as the
group grows. A group that nothing is known about is taken for an average one: it gets the mean of the others
at equal keep ratios.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from search.board import Board, Descent, traded

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from spaces.architecture import Architecture
    from spaces.groups import ChannelGroup
    from spaces.space import Space

    Values = Mapping[str, NDArray[np.float64] | Tensor]


def by_error(space: Space, curves: Values, *, macs: float) -> Architecture:
    """Widths that add little error at one MACs target; see :func:`ladder_by_error`.

    Raises:
        ValueError: If even the smallest widths need more than ``macs``.
    """
    return ladder_by_error(space, curves, [macs])[0]


def ladder_by_error(space: Space, curves: Values, targets: Sequence[float]) -> list[Architecture]:
    """Widths that add little error, at every MACs target, in one descent from the dense network.

    The cut with the least added error per MAC saved comes next, over all groups and all their lower widths,
    so that a flat stretch behind a steep one is found. At each target MACs that are left over are given
    back where they save most; then pairs of groups trade MACs for as long as the sum of errors falls,
    because a cut saves less once its neighbours have shrunk, and an early one may have become a bad one.

    Args:
        space: Groups and costs.
        curves: For each group the ``(width + 1,)`` errors when ``k`` units are kept, comparable across
            groups; lower is better. An error that falls as units go is noise and is levelled.
        targets: Shares of the dense MACs, in any order.

    Returns:
        One architecture per target.

    Raises:
        ValueError: If even the smallest widths need more than a target.

    References:
        Fox, Discrete Optimization via Marginal Analysis, 1966: each state that the descent passes is optimal
        for its MACs where errors are convex and MACs add up over groups.
    """
    known = _arrays(space, curves, lambda g: g.width + 1)
    complete = _completed(space, known, lambda g: np.arange(g.width + 1))
    tables = [curve[list(group.choices)] for curve, group in zip(complete, space.groups, strict=True)]
    board = Board(space, [_levelled(table) for table in tables])
    limits = {target: _limit(space, target) for target in targets}
    descent, found = Descent(board), {}
    for target in sorted(limits, reverse=True):
        descent.go_down(limits[target])
        found[target] = board.architecture(traded(board, descent.state, limits[target]))
    return [found[target] for target in targets]


def by_threshold(space: Space, sensitivities: Values, *, macs: float) -> Architecture:
    """The narrowest widths with a damage of at most one threshold, the least that meets the MACs.

    Args:
        space: Groups and costs.
        sensitivities: For each group the ``(choices,)`` damages when it alone is cut to each proposed
            width; lower is better. A damage that falls as units go is noise and is levelled.
        macs: Share of the dense MACs.

    Raises:
        ValueError: If even the smallest widths need more than ``macs``.

    References:
        FastNAS of NVIDIA Model Optimizer allocates by single-layer sensitivities under one threshold.
    """
    known = _arrays(space, sensitivities, lambda g: len(g.choices))
    tables = _completed(space, known, lambda g: np.array(g.choices))
    return _under_one_threshold(Board(space, [_levelled(table) for table in tables]), _limit(space, macs))


def by_global_scores(space: Space, scores: Values, *, macs: float) -> Architecture:
    """The units above one threshold for all groups stay, their numbers rounded to proposed widths.

    Args:
        space: Groups and costs.
        scores: For each group ``(width,)`` scores, normalised so that they compare across groups; higher
            means keep.
        macs: Share of the dense MACs.

    Raises:
        ValueError: If even the smallest widths need more than ``macs``.

    References:
        Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017.
    """
    falling = {name: np.sort(s)[::-1] for name, s in _arrays(space, scores, lambda g: g.width).items()}
    complete = _completed(space, falling, lambda g: np.arange(g.width) + 0.5)
    tables = [_removing_thresholds(s, g.choices) for s, g in zip(complete, space.groups, strict=True)]
    return _under_one_threshold(Board(space, tables), _limit(space, macs))


def _under_one_threshold(board: Board, limit: float) -> Architecture:
    """The state of the lowest threshold that meets the limit, filled up from the greatest damage on."""
    levels = np.unique(board.damages)
    low, high = 0, len(levels) - 1
    while low < high:
        middle = (low + high) // 2
        fits = int(board.macs(_narrowest(board, levels[middle])[None])[0]) <= limit
        low, high = (low, middle) if fits else (middle + 1, high)
    state = _narrowest(board, levels[low])
    return board.architecture(board.filled_up(state, limit, lambda s, groups, _: board.damage(s)[groups]))


def _narrowest(board: Board, threshold: float) -> NDArray[np.int64]:
    """Each group's narrowest width with a damage of at most ``threshold``; damages fall as groups grow."""
    above: NDArray[np.int64] = (board.damages > threshold).sum(axis=1)
    return np.minimum(above, board.last)


def _removing_thresholds(falling: NDArray[np.float64], choices: Sequence[int]) -> NDArray[np.float64]:
    """``(choices,)`` thresholds from which on so few units lie above that each width is the nearest one.

    Args:
        falling: ``(width,)`` scores, highest first.
        choices: Proposed widths, ascending; full width needs no threshold, which is minus infinity.
    """
    ends = np.array(choices, dtype=np.int64)
    middles = (ends[:-1] + ends[1:]) // 2
    return np.append(falling[middles], -np.inf)


def _levelled(damages: NDArray[np.float64]) -> NDArray[np.float64]:
    """Damages that never fall as the group shrinks: a wider choice is at most as bad as any narrower one."""
    return np.minimum.accumulate(damages)


def _arrays(
    space: Space, values: Values, length: Callable[[ChannelGroup], int]
) -> dict[str, NDArray[np.float64]]:
    """Values of the groups that have some, of the length that each must have."""
    found = {g.name: np.asarray(values[g.name], dtype=np.float64) for g in space.groups if g.name in values}
    for group in space.groups:
        if group.name in found:
            assert found[group.name].shape == (length(group),), group.name
            assert np.isfinite(found[group.name]).all(), group.name
    return found


def _completed(
    space: Space,
    known: Mapping[str, NDArray[np.float64]],
    positions: Callable[[ChannelGroup], NDArray[np.floating] | NDArray[np.integer]],
) -> list[NDArray[np.float64]]:
    """The values of every group; where they are missing the mean of the others at equal keep ratios.

    Args:
        space: Groups.
        known: Values of some groups.
        positions: Of a group, the kept units that its values belong to, ascending.
    """
    assert known or not space.groups
    ratios = {group.name: positions(group) / group.width for group in space.groups}

    def average(name: str) -> NDArray[np.float64]:
        others = [np.interp(ratios[name], ratios[other], values) for other, values in known.items()]
        return np.asarray(np.mean(others, axis=0), dtype=np.float64)

    return [known[g.name] if g.name in known else average(g.name) for g in space.groups]


def _limit(space: Space, macs: float) -> float:
    """MACs that a share of dense allows.

    Raises:
        ValueError: If even the smallest widths need more.
    """
    dense, least = space.macs(space.dense), space.macs(space.smallest)
    if least > macs * dense:
        raise ValueError(
            f"`macs` must be at least {least / dense:.4f}, the share of the smallest widths, got {macs=}."
        )
    return macs * dense
