"""The search space: groups, the widths that each may keep, and what each choice costs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

import numpy as np
import torch

from spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from spaces.attributes import Mend
    from spaces.cost import Cost
    from spaces.frozen import Frozen
    from spaces.groups import ChannelGroup
    from spaces.slots import SiteKey

#: Common scales that :meth:`Space.fit` tries at once.
_NUM_SCALES = 512


@dataclass(frozen=True, eq=False)
class Space:
    """Everything that a search may choose, made by :func:`spaces.trace`.

    Attributes:
        groups: What may be pruned, in the order of the network's parameters.
        macs_cost: Multiply-adds for a batch of one; one multiply-add counts one, as fvcore does.
        params_cost: Parameters.
        warnings: What could not be pruned, and which operator is the cause.
        frozen: Layers whose outputs stay whole, and why.
        mends: Integers that modules keep of widths, and how they follow a cut.
        splits: Splits of dimensions of which another part than the default may shrink; for verification.
    """

    groups: tuple[ChannelGroup, ...]
    macs_cost: Cost
    params_cost: Cost
    warnings: tuple[str, ...] = ()
    frozen: tuple[Frozen, ...] = ()
    mends: tuple[Mend, ...] = ()
    splits: tuple[tuple[SiteKey, int], ...] = ()

    @cached_property
    def dense(self) -> Architecture:
        """The network as it came."""
        return Architecture(tuple((group.name, group.width) for group in self.groups))

    @cached_property
    def smallest(self) -> Architecture:
        """Every group at its smallest proposed width."""
        return Architecture(tuple((group.name, group.choices[0]) for group in self.groups))

    def uniform(self, ratio: float) -> Architecture:
        """The same keep ratio in every group, each rounded to the nearest proposed width.

        Raises:
            ValueError: If ``ratio`` is not in (0, 1].
        """
        if not 0 < ratio <= 1:
            raise ValueError(f"`ratio` must be in (0, 1], got {ratio=}.")
        return self._architecture(self._rounded(np.full((1, len(self.groups)), ratio))[0])

    def sample(self, generator: torch.Generator, *, macs: float | None = None) -> Architecture:
        """Random widths.

        Args:
            generator: Source of randomness.
            macs: Share of the dense MACs to meet as :meth:`fit` does; free when ``None``.

        Raises:
            ValueError: If even the smallest widths need more than ``macs``.
        """
        draws = torch.rand(len(self.groups), generator=generator, dtype=torch.float64).numpy()
        lowest = np.array([group.choices[0] / group.width for group in self.groups])
        ratios = lowest + draws * (1 - lowest)
        if macs is None:
            return self._architecture(self._rounded(ratios[None])[0])
        return self.fit(dict(zip(self._names, ratios.tolist(), strict=True)), macs=macs)

    def fit(self, ratios: Mapping[str, float], *, macs: float) -> Architecture:
        """Scale keep ratios by one common factor until the MACs fit.

        Args:
            ratios: Keep ratio of each group; only their proportions count.
            macs: Largest share of the dense MACs, in (0, 1].

        Returns:
            Widths with at most that share; one step more in any group would exceed it.

        Raises:
            ValueError: If even the smallest widths need more than ``macs``.
        """
        limit = macs * self.macs(self.dense)
        wanted = np.array([ratios[name] for name in self._names])
        scales = np.geomspace(1e-3, 1 / min(wanted.min(initial=1.0), 1.0), _NUM_SCALES)
        widths = self._rounded(np.minimum(scales[:, None] * wanted, 1.0))
        fitting = np.flatnonzero(self.macs(widths) <= limit)
        if not len(fitting):
            least = self.macs(self.smallest) / self.macs(self.dense)
            raise ValueError(
                f"`macs` must be at least {least:.4f}, the share of the smallest widths, got {macs=}."
            )
        return self._architecture(self._widen(widths[fitting[-1]], wanted, limit))

    def ratios(self, architecture: Architecture) -> dict[str, float]:
        """Keep ratio of each group."""
        widths = architecture.widths
        return {group.name: widths[group.name] / group.width for group in self.groups}

    def nearest(self, ratios: Mapping[str, float]) -> Architecture:
        """The architecture whose widths are nearest to these keep ratios."""
        wanted = np.array([[ratios[name] for name in self._names]])
        return self._architecture(self._rounded(wanted)[0])

    def ordered(self, architecture: Architecture) -> Architecture:
        """The same widths in the order of :attr:`groups`, which makes equal architectures equal.

        Raises:
            ValueError: As :meth:`widths_array`.
        """
        return self._architecture(self.widths_array(architecture))

    def widths_array(self, architecture: Architecture) -> NDArray[np.int64]:
        """``(groups,)`` kept widths in the order of :attr:`groups`.

        Raises:
            ValueError: If a group is missing or unknown, or keeps less than one or more than all units.
        """
        widths = architecture.widths
        if set(widths) != set(self._names):
            odd = sorted(set(widths) ^ set(self._names))
            raise ValueError(
                f"`architecture` must name every group of the space once, got a difference in {odd}."
            )
        for group in self.groups:
            if not 1 <= widths[group.name] <= group.width:
                raise ValueError(
                    f"`architecture`: {group.name!r} keeps 1 to {group.width}, got {widths[group.name]}."
                )
        return np.array([widths[name] for name in self._names], dtype=np.int64)

    @overload
    def macs(self, widths: Architecture) -> int: ...
    @overload
    def macs(self, widths: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def macs(self, widths: Architecture | NDArray[np.int64]) -> int | NDArray[np.int64]:
        """Multiply-adds of one architecture, or of ``(n, groups)`` kept widths at once; exact."""
        return self._cost(self.macs_cost, widths)

    @overload
    def params(self, widths: Architecture) -> int: ...
    @overload
    def params(self, widths: NDArray[np.int64]) -> NDArray[np.int64]: ...
    def params(self, widths: Architecture | NDArray[np.int64]) -> int | NDArray[np.int64]:
        """Parameters of one architecture, or of ``(n, groups)`` kept widths at once; exact."""
        return self._cost(self.params_cost, widths)

    def _cost(self, cost: Cost, widths: Architecture | NDArray[np.int64]) -> int | NDArray[np.int64]:
        if isinstance(widths, Architecture):
            return int(cost(self.widths_array(widths)[None])[0])
        return cost(widths)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        return tuple(group.name for group in self.groups)

    def _architecture(self, widths: NDArray[np.int64]) -> Architecture:
        return Architecture(tuple(zip(self._names, widths.tolist(), strict=True)))

    def _rounded(self, ratios: NDArray[np.float64]) -> NDArray[np.int64]:
        """``(n, groups)`` keep ratios to the nearest proposed widths."""
        rounded = np.empty(ratios.shape, dtype=np.int64)
        for column, group in enumerate(self.groups):
            choices = np.array(group.choices)
            middles = (choices[1:] + choices[:-1]) / 2
            rounded[:, column] = choices[np.searchsorted(middles, ratios[:, column] * group.width)]
        return rounded

    def _widen(
        self, widths: NDArray[np.int64], wanted: NDArray[np.float64], limit: float
    ) -> NDArray[np.int64]:
        """Give single steps to the groups that are furthest below their wanted share while they fit."""
        full = np.array([group.width for group in self.groups])
        steps = np.array([group.step for group in self.groups])
        while True:
            wider = np.minimum(widths + steps, full)
            trials = np.where(np.eye(len(widths), dtype=bool), wider, widths)
            fits = (self.macs(trials) <= limit) & (wider > widths)
            if not fits.any():
                return widths
            lag = np.where(fits, widths / (full * wanted), np.inf)
            widths = trials[int(lag.argmin())]
