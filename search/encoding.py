"""Between candidates and the parameters that samplers see."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from evaluators.candidate import Candidate
from search.objectives import LATENCY, MACS, Objectives

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.limits import Window
    from search.record import Params
    from spaces.architecture import Architecture
    from spaces.space import Space

#: Steps of MACs that promotions and parents tell apart.
_NUM_STEPS = 16

#: Targets tried, from the window's lower end upwards, to lift an architecture into it.
_NUM_TARGETS = 16


@dataclass(frozen=True, eq=False)
class Encoding:
    """The searched part of a space.

    Parameters are ``keep:<group>``, a keep ratio, and ``criterion``, or ``criterion:<group>`` for each.

    Attributes:
        space: Groups and costs.
        window: MACs that candidates may have.
        criteria: Names to choose from.
        per_group: Whether each group has a criterion of its own.
        applicable: Criteria that each group can be scored by; all of them where a group is missing.
        objectives: What candidates are compared by.
        dense_latency_ms: Of the dense network, where latency is an objective.
    """

    space: Space
    window: Window
    criteria: tuple[str, ...]
    per_group: bool = False
    applicable: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    objectives: Objectives = MACS
    dense_latency_ms: float | None = None

    @property
    def grid(self) -> int:
        """MACs that are too few to be worth a worse score: see :func:`search.front.coarse`."""
        return max(1, (self.window.high - self.window.low) // _NUM_STEPS)

    @cached_property
    def dense_costs(self) -> tuple[float, ...]:
        """Costs of the dense network that are objectives."""
        space = self.space
        costs: dict[str, float] = {"macs": space.macs(space.dense), "params": space.params(space.dense)}
        if LATENCY in self.objectives.costs:
            assert self.dense_latency_ms is not None
            costs[LATENCY] = self.dense_latency_ms
        return tuple(costs[cost] for cost in self.objectives.costs)

    @cached_property
    def steps(self) -> tuple[float, ...]:
        """The :attr:`grid` of each cost: as large a share of dense as that of MACs."""
        share = self.grid / self.space.macs(self.space.dense)
        costs = zip(self.objectives.costs, self.dense_costs, strict=True)
        return tuple(self.grid if name == "macs" else share * dense for name, dense in costs)

    @cached_property
    def free(self) -> tuple[str, ...]:
        """Groups with more than one width to choose from."""
        return tuple(group.name for group in self.space.groups if len(group.choices) > 1)

    @cached_property
    def distributions(self) -> dict[str, BaseDistribution]:
        """Every parameter with its range."""
        least = {group.name: group.choices[0] / group.width for group in self.space.groups}
        found: dict[str, BaseDistribution] = {
            f"keep:{n}": FloatDistribution(least[n], 1.0) for n in self.free
        }
        choice = CategoricalDistribution(self.criteria)
        return found | dict.fromkeys(self._criterion_names, choice)

    def params(self, architecture: Architecture, criteria: str | Mapping[str, str]) -> Params:
        """Parameters that decode to these widths exactly; groups without a criterion get the first one."""
        ratios = self.space.ratios(architecture)
        params: Params = {f"keep:{name}": ratios[name] for name in self.free}
        if isinstance(criteria, str):
            return params | dict.fromkeys(self._criterion_names, criteria)
        default = next(iter(criteria.values()), self.criteria[0])
        names = {name: name.removeprefix("criterion:") for name in self._criterion_names}
        return params | {name: criteria.get(group, default) for name, group in names.items()}

    def candidate(self, params: Mapping[str, float | str]) -> Candidate:
        """The candidate nearest to these parameters, moved into the window by one common scale."""
        ratios = dict.fromkeys(self.space.ratios(self.space.dense), 1.0)
        ratios |= {name: float(params[f"keep:{name}"]) for name in self.free}
        return self.build(self.into_window(ratios), self._criteria_of(params))

    def build(self, architecture: Architecture, criteria: str | Mapping[str, str]) -> Candidate:
        """A candidate; groups that a criterion does not apply to take their first one that does."""
        wanted = criteria if not isinstance(criteria, str) else {g.name: criteria for g in self.space.groups}
        allowed = {name: self.applicable.get(name, self.criteria) for name in wanted}
        chosen = {name: c if c in allowed[name] else allowed[name][0] for name, c in wanted.items()}
        return Candidate.of(self.space, architecture, chosen)

    def into_window(self, ratios: Mapping[str, float]) -> Architecture:
        """The widths nearest to ``ratios``, scaled until they lie in the window.

        Where the steps are so coarse that the scale jumps over the window, the result lies outside;
        rung 0 refuses it.
        """
        space, window = self.space, self.window
        nearest = space.nearest(ratios)
        macs, dense = space.macs(nearest), space.macs(space.dense)
        if macs > window.high:
            return space.fit(ratios, macs=share_of(window.high, dense))
        if macs < window.low:
            least = max(window.low, space.macs(space.smallest))
            for target in np.linspace(least, min(window.high, dense), _NUM_TARGETS):
                nearest = space.fit(ratios, macs=share_of(float(target), dense))
                if space.macs(nearest) in window:
                    break
        return nearest

    @cached_property
    def _criterion_names(self) -> tuple[str, ...]:
        return tuple(f"criterion:{name}" for name in self.free) if self.per_group else ("criterion",)

    def _criteria_of(self, params: Mapping[str, float | str]) -> str | dict[str, str]:
        if not self.per_group:
            return str(params["criterion"])
        return {name: str(params[f"criterion:{name}"]) for name in self.free}


def share_of(macs: float, dense_macs: int) -> float:
    """Share of dense that admits ``macs`` itself in spite of rounding, at most 1."""
    return min(1.0, (macs + 0.5) / dense_macs)
