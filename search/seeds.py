"""How a study opens: uniform and random widths on a ladder of MACs targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from search.encoding import share_of

if TYPE_CHECKING:
    from search.encoding import Encoding
    from search.limits import Budget
    from spaces.architecture import Architecture

_LEAST, _MOST = 1, 8

#: Targets where a time budget does not say how many evaluations there will be.
_BY_DEFAULT = 5


@dataclass(frozen=True, slots=True)
class Seed:
    """One opening move."""

    origin: str
    architecture: Architecture
    criterion: str


def num_targets(budget: Budget) -> int:
    """Length of the ladder: a fifth of the budget, so that all seeds together take at most half of it."""
    if budget.evaluations is None:
        return _BY_DEFAULT
    return min(_MOST, max(_LEAST, round(budget.evaluations / 5)))


def opening(encoding: Encoding, num_targets: int, seed: int) -> list[Seed]:
    """``2 * num_targets`` seeds: at each MACs target uniform widths, then random ones.

    Targets go evenly from the upper end of the window to the lower one; criteria take turns.
    """
    space, window, criteria = encoding.space, encoding.window, encoding.criteria
    dense, least = space.macs(space.dense), space.macs(space.smallest)
    equal = dict.fromkeys(space.ratios(space.dense), 1.0)
    seeds = []
    for index, target in enumerate(np.linspace(min(window.high, dense), max(window.low, least), num_targets)):
        share = share_of(float(target), dense)
        uniform = space.fit(equal, macs=share)
        random = space.sample(seeded_generator(seed, index), macs=share)
        for shift, (origin, widths) in enumerate((("seed: uniform", uniform), ("seed: random", random))):
            inside = encoding.into_window(space.ratios(widths))
            seeds.append(Seed(origin, inside, criteria[(index + shift) % len(criteria)]))
    return seeds


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed that depends on all ``numbers``, the same in every process."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seeded_generator(*numbers: int) -> torch.Generator:
    """A torch generator seeded by all ``numbers``."""
    return torch.Generator().manual_seed(derived_seed(*numbers))
