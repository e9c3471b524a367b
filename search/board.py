"""Widths as indices into what each group may keep: moves, fill-up, descent and trades by damage and MACs."""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any

import numpy as np

from spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spaces.space import Space

    #: A state: ``(groups,)`` indices into the groups' proposed widths.
    State = NDArray[np.int64]

    #: How much groups deserve a step up: of a state, some groups, and the MACs that each step adds.
    Worth = Callable[[State, NDArray[np.int64], NDArray[np.int64]], NDArray[np.float64]]

#: Steps that each side of a trade between two groups may take.
_REACH = 3

#: Trades per group that end an improvement which goes on and on.
_MOST_TRADES = 4

#: Share of all damage below which a difference is rounding.
_NOTHING = 1e-12


class Board:
    """Damage tables on their space; a state is a ``(groups,)`` array of indices into the proposed widths."""

    def __init__(self, space: Space, tables: Sequence[NDArray[np.float64]]) -> None:
        self.space = space
        self.last = np.array([len(table) - 1 for table in tables], dtype=np.int64)
        self.columns = np.arange(len(tables))
        length = int(self.last.max(initial=0)) + 1
        choices = [_padded(np.array(group.choices), length) for group in space.groups]
        self.choices: NDArray[np.int64] = np.array(choices, dtype=np.int64)
        self.damages: NDArray[np.float64] = np.array([_padded(table, length) for table in tables])

    def macs(self, states: NDArray[np.int64]) -> NDArray[np.int64]:
        """``(n,)`` MACs of ``(n, groups)`` states."""
        return self.space.macs(self.choices[self.columns, states])

    def damage(self, state: State) -> NDArray[np.float64]:
        """``(groups,)`` damage that each group has in this state."""
        return self.damages[self.columns, state]

    def moved(self, state: State, steps: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The groups that can move so many steps, and for each the state after it alone has moved."""
        groups = np.flatnonzero((state + steps >= 0) & (state + steps <= self.last))
        states = np.repeat(state[None], len(groups), axis=0)
        states[np.arange(len(groups)), groups] += steps
        return groups, states

    def filled_up(self, state: State, limit: float, worth: Worth) -> State:
        """Give single steps to the most worthy group that has room, until none has."""
        now = int(self.macs(state[None])[0])
        while True:
            groups, states = self.moved(state, 1)
            macs = self.macs(states)
            fits = np.flatnonzero(macs <= limit)
            if not len(fits):
                return state
            best = fits[worth(state, groups[fits], macs[fits] - now).argmax()]
            state, now = states[best], int(macs[best])

    def architecture(self, state: State) -> Architecture:
        """The widths of a state."""
        widths = self.choices[self.columns, state].tolist()
        return Architecture(tuple((g.name, k) for g, k in zip(self.space.groups, widths, strict=True)))


class Descent:
    """From full widths downwards, always by the cut with the least added damage per MAC saved.

    MACs are sums of products of widths, so a cut saves the less the narrower its neighbours are, and its
    ratio only grows: the ratio of an earlier state is a lower bound, and most need no second look.

    References:
        Minoux, Accelerated Greedy Algorithms for Maximizing Submodular Set Functions, 1978.
    """

    def __init__(self, board: Board) -> None:
        space, self._board = board.space, board
        self._parts = [_Part(space, index) for index in range(len(space.groups))]
        self._sizes = space.macs_cost.fixed + space.macs_cost.per_unit @ space.widths_array(space.dense)
        self._macs = space.macs(space.dense)
        self.state = board.last.copy()
        self._queue: list[tuple[float, int]] = []
        for group in range(len(self.state)):
            self._enqueue(group)

    def go_down(self, limit: float) -> None:
        """Cut until the MACs are at most ``limit``."""
        while self._macs > limit:
            _, group = heapq.heappop(self._queue)
            ratio, choice, saved = self._best(group)
            if self._queue and (ratio, group) > self._queue[0]:
                heapq.heappush(self._queue, (ratio, group))
                continue
            part = self._parts[group]
            self._sizes += part.per_unit * (part.choices[choice] - part.choices[self.state[group]])
            self._macs -= saved
            self.state[group] = choice
            self._enqueue(group)

    def _enqueue(self, group: int) -> None:
        ratio, _, saved = self._best(group)
        if saved:
            heapq.heappush(self._queue, (ratio, group))

    def _best(self, group: int) -> tuple[float, int, int]:
        """Added damage per MAC, choice and MACs saved of the best cut; the smallest of equally good ones."""
        now = int(self.state[group])
        damages = self._board.damages[group, : now + 1]
        macs = self._parts[group].macs(self._sizes, now)
        if not now or macs[0] == macs[now]:
            return np.inf, now, 0
        saved = macs[now] - macs[:now]
        ratios = (damages[:now] - damages[now]) / saved
        choice = now - 1 - int(ratios[::-1].argmin())
        return float(ratios[choice]), choice, int(saved[choice])


class _Part:
    """The terms of the MACs that one group has a part in: far fewer than all."""

    def __init__(self, space: Space, index: int) -> None:
        cost = space.macs_cost
        self.choices = np.array(space.groups[index].choices)
        self.per_unit = cost.per_unit[:, index]
        own = (self.per_unit[cost.factors] != 0).any(axis=1)
        self._factors, self._constants = cost.factors[own], cost.constants[own]
        self._per_unit = self.per_unit[self._factors]

    def macs(self, sizes: NDArray[np.int64], now: int) -> NDArray[np.int64]:
        """``(choices,)`` MACs of these terms at every width of the group, which has choice ``now``."""
        change = (self.choices - self.choices[now])[:, None, None] * self._per_unit
        products: NDArray[np.int64] = (sizes[self._factors] + change).prod(axis=2)
        return np.asarray(products @ self._constants)


def traded(board: Board, state: State, limit: float) -> State:
    """Fill up, then trade while the sum of damages falls."""

    def gain_per_mac(
        state: State, groups: NDArray[np.int64], added: NDArray[np.int64]
    ) -> NDArray[np.float64]:
        gain = board.damages[groups, state[groups]] - board.damages[groups, state[groups] + 1]
        return np.asarray(gain / np.maximum(added, 1))

    for _ in range(_MOST_TRADES * len(state)):
        state = board.filled_up(state, limit, gain_per_mac)
        better = _best_trade(board, state, limit)
        if better is None:
            break
        state = better
    return board.filled_up(state, limit, gain_per_mac)


def _best_trade(board: Board, state: State, limit: float) -> State | None:
    """The state after the trade between two groups that lowers the sum of damages most, if one does.

    MACs are sums of products, so both halves of a trade together cost at most what they cost one by one: a
    trade that fits by halves fits.
    """
    now, damage = int(board.macs(state[None])[0]), board.damage(state).sum()
    wider = [board.moved(state, steps) for steps in range(1, _REACH + 1)]
    narrower = [board.moved(state, -steps) for steps in range(1, _REACH + 1)]
    up, up_states = (np.concatenate(found) for found in zip(*wider, strict=True))
    down, down_states = (np.concatenate(found) for found in zip(*narrower, strict=True))
    if not len(up) or not len(down):
        return None
    gain = board.damages[up, state[up]] - board.damages[up, up_states[np.arange(len(up)), up]]
    loss = board.damages[down, down_states[np.arange(len(down)), down]] - board.damages[down, state[down]]
    added, saved = board.macs(up_states) - now, now - board.macs(down_states)
    fits = (added[:, None] - saved <= limit - now) & (up[:, None] != down)
    better = np.where(fits, gain[:, None] - loss, -np.inf)
    first, second = np.unravel_index(better.argmax(), better.shape)
    if better[first, second] <= _NOTHING * damage:
        return None
    found: State = up_states[first].copy()
    found[down[second]] = down_states[second, down[second]]
    return found


def _padded(values: NDArray[Any], length: int) -> NDArray[Any]:
    """Lengthened by repeating the last value."""
    return np.pad(values, (0, length - len(values)), mode="edge")
