"""How a study opens: widths from what is known, uniform and random ones, on a ladder of MACs targets."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from itertools import cycle, islice
from typing import TYPE_CHECKING

import numpy as np
import torch

from search.allocate import by_global_scores, by_threshold, ladder_by_error
from search.encoding import share_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from search.encoding import Encoding
    from search.limits import Budget
    from spaces.architecture import Architecture

    #: Architectures for shares of the dense MACs.
    Allocation = Callable[[Sequence[float]], list[Architecture]]

_LEAST, _MOST = 1, 8

#: Targets where a time budget does not say how many evaluations there will be.
_BY_DEFAULT = 5

_SEEDS_PER_TARGET = 3

#: Error curves come from it, and where layers are re-fitted its choice of units loses least.
_FOREMOST = "obs"

#: One threshold over random scores gives uniform widths with noise: the last one that is worth a seed.
_LAST = "random"

#: Targets tried, from the window's lower end upwards, to lift an allocation into it.
_NUM_LIFTS = 32

_GOLDEN = (5**0.5 - 1) / 2

#: Shares of MACs that draw different random widths.
_SHARES = 10**6


@dataclass(frozen=True, slots=True, eq=False)
class Knowledge:
    """What is known about the groups before the first evaluation; each may be empty or lack groups.

    Attributes:
        curves: Group -> ``(width + 1,)`` errors when ``k`` units are kept, comparable across groups.
        sensitivities: Group -> ``(choices,)`` damages when it alone is cut to each proposed width.
        scores: Criterion -> group -> ``(width,)`` scores that compare across groups; higher means keep.
    """

    curves: Mapping[str, NDArray[np.float64] | Tensor] = field(default_factory=dict)
    sensitivities: Mapping[str, NDArray[np.float64] | Tensor] = field(default_factory=dict)
    scores: Mapping[str, Mapping[str, NDArray[np.float64] | Tensor]] = field(default_factory=dict)


NOTHING_KNOWN = Knowledge()


@dataclass(frozen=True, slots=True)
class Seed:
    """One opening move."""

    origin: str
    architecture: Architecture
    criterion: str


@dataclass(frozen=True, slots=True)
class _Kind:
    """A way to allocate, and the criterion that belongs to it; ``None`` where criteria take turns."""

    name: str
    allocate: Allocation
    criterion: str | None = None


def num_targets(budget: Budget) -> int:
    """Length of the ladder: a sixth of the budget, so that three seeds per target take at most half of it."""
    if budget.evaluations is None:
        return _BY_DEFAULT
    return min(_MOST, max(_LEAST, budget.evaluations // (2 * _SEEDS_PER_TARGET)))


def opening(
    encoding: Encoding, num_targets: int, seed: int, knowledge: Knowledge = NOTHING_KNOWN
) -> list[Seed]:
    """Up to ``3 * num_targets`` seeds that are different candidates, the most promising kinds first.

    Error curves and sensitivities give a seed at every target. The other kinds take turns over targets:
    uniform, random, and for each criterion one threshold over all units. Where there are neither curves nor
    sensitivities, uniform and random widths are at every target. Targets go evenly from the upper end of
    the window to the lower one; without kinds that take turns there are more of them.

    Seeds of curves and sensitivities choose units by ``obs`` if it is allowed, those of a threshold by its
    criterion; for the others criteria take turns.

    Args:
        encoding: The searched space, its window and criteria.
        num_targets: Length of the ladder, see :func:`num_targets`.
        seed: Of random widths.
        knowledge: What there is to allocate by.
    """
    known, plain, thresholds = _kinds(encoding, knowledge, seed)
    # A single target must have room for uniform and random widths.
    everywhere = known[: 2 if num_targets > 1 else 1] or plain
    turns = (plain if known else []) + thresholds
    in_all = _SEEDS_PER_TARGET * num_targets
    targets = _ladder(encoding, num_targets if turns else in_all // len(everywhere))
    plan = [(kind, targets) for kind in everywhere]
    for number, kind in enumerate(islice(cycle(turns), in_all - len(everywhere) * len(targets)), 1):
        # Multiples of the golden ratio lie evenly: all of them, and those of each kind.
        plan.append((kind, [targets[int(number * _GOLDEN % 1 * len(targets))]]))
    in_turn = cycle(_ordered(encoding.criteria))
    found: dict[str, Seed] = {}
    for kind, some in plan:
        for architecture in _in_window(encoding, kind.allocate, some):
            one = Seed(f"seed: {kind.name}", architecture, kind.criterion or next(in_turn))
            found.setdefault(encoding.build(architecture, one.criterion).id, one)
    return list(found.values())


def derived_seed(*numbers: int) -> int:
    """A 32-bit seed that depends on all ``numbers``, the same in every process."""
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])


def seeded_generator(*numbers: int) -> torch.Generator:
    """A torch generator seeded by all ``numbers``."""
    return torch.Generator().manual_seed(derived_seed(*numbers))


def _ordered(criteria: Sequence[str]) -> list[str]:
    return sorted(criteria, key=lambda name: (name != _FOREMOST, name == _LAST))


def _ladder(encoding: Encoding, length: int) -> list[float]:
    """MACs from the upper end of the window to the lower one, as far as the space has them.

    Steps are those of the window, so that round windows give round shares; only the last ones are lifted
    to what the space can reach.
    """
    least, dense = (encoding.space.macs(a) for a in (encoding.space.smallest, encoding.space.dense))
    steps = np.linspace(encoding.window.high, encoding.window.low, length).clip(least, dense)
    return list(dict.fromkeys(steps.tolist()))


def _kinds(
    encoding: Encoding, knowledge: Knowledge, seed: int
) -> tuple[list[_Kind], list[_Kind], list[_Kind]]:
    """Kinds from what is known of each group, those that need no knowledge, and one per criterion."""
    space = encoding.space
    foremost = _FOREMOST if _FOREMOST in encoding.criteria else None
    equal = dict.fromkeys(space.ratios(space.dense), 1.0)

    def random(share: float) -> Architecture:
        return space.sample(seeded_generator(seed, round(share * _SHARES)), macs=share)

    def threshold(name: str) -> _Kind:
        scores = knowledge.scores[name]
        return _Kind(f"global {name}", _each(lambda share: by_global_scores(space, scores, macs=share)), name)

    known = []
    if knowledge.curves:
        known.append(_Kind("error curve", partial(ladder_by_error, space, knowledge.curves), foremost))
    if knowledge.sensitivities:
        damages = knowledge.sensitivities
        known.append(
            _Kind("sensitivity", _each(lambda share: by_threshold(space, damages, macs=share)), foremost)
        )
    plain = [
        _Kind("uniform", _each(lambda share: space.fit(equal, macs=share))),
        _Kind("random", _each(random)),
    ]
    thresholds = [threshold(name) for name in _ordered(encoding.criteria) if knowledge.scores.get(name)]
    return known, plain, thresholds


def _each(one: Callable[[float], Architecture]) -> Allocation:
    """An allocation for one share at a time."""
    return lambda shares: [one(share) for share in shares]


def _in_window(encoding: Encoding, allocate: Allocation, targets: Sequence[float]) -> list[Architecture]:
    """Allocations for MACs targets, for a higher one where coarse steps lead below the window."""
    space, window = encoding.space, encoding.window
    dense = space.macs(space.dense)
    found = allocate([share_of(target, dense) for target in targets])
    for index, target in enumerate(targets):
        for lifted in np.geomspace(target, max(window.high, target), _NUM_LIFTS)[1:]:
            if space.macs(found[index]) >= window.low:
                break
            found[index] = allocate([share_of(float(lifted), dense)])[0]
    return [encoding.into_window(space.ratios(architecture)) for architecture in found]
