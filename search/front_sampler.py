"""The default sampler: small steps away from the front that was found so far."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from evaluators.evaluation import SEARCHED
from search.encoding import share_of
from search.front import Mark, coarse, ranks
from spaces.architecture import Architecture

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    import optuna
    from numpy.typing import NDArray
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial

    from evaluators.candidate import Candidate
    from search.encoding import Encoding

#: Where the front has fewer parents, the next ranks fill up.
_LEAST_PARENTS = 4
_NUM_TRIES = 64
_MOST_STEPS = 3

#: Share of the dense MACs between the aim and the nearest parent from which the child moves to the aim first.
_GAP = 0.02

#: Halvings of the scale with which :meth:`FrontSampler._restore` pays for a whole group.
_BISECTIONS = 8

#: Chance of each further move on the same child.
_AGAIN = 0.25

#: Ranks with which a trial speaks for its criteria: the front's, and the one behind it.
_GOOD_RANKS = 2

#: Widths as indices into the choices of each group, and a criterion for each group.
Genome = tuple[tuple[int, ...], tuple[str, ...]]


class FrontSampler(BaseSampler):
    """Children of non-dominated evaluations, seeds included.

    A parent is the member of the front whose MACs are nearest to a share drawn evenly from the window,
    so that all of the window is worked on; where the front has a gap at that share, it is scaled into the
    gap first. A child is a parent after one or more moves: step a width up or down, trade MACs between
    groups, make a group whole at the others' cost, change a criterion, recombine with another parent.
    Children outside the window or known already are drawn again.

    Criteria are drawn by their record, so that many of them do not eat a small budget: in proportion to
    ``(successes + 1) / (trials + 2)``, the rate of success to be expected of each. A trial counts for the
    criteria that chose its units; it is a success where its rank, MACs taken coarsely, is 0 or 1.

    Unlike Optuna's NSGA-II this takes seeds as parents and has no generations, which suits budgets of
    some dozens of evaluations.

    Args:
        encoding: Parameters, costs and the window.
        seed: Of this one proposal.
    """

    def __init__(self, encoding: Encoding, seed: int) -> None:
        self._encoding = encoding
        self._space = encoding.space
        self._choices = [group.choices for group in self._space.groups]
        self._names = [group.name for group in self._space.groups]
        self._rng = np.random.default_rng(seed)
        self._movable = [index for index, choices in enumerate(self._choices) if len(choices) > 1]
        self._chances = dict.fromkeys(encoding.criteria, 1 / len(encoding.criteria))

    def infer_relative_search_space(
        self,
        study: optuna.Study,  # noqa: ARG002
        trial: FrozenTrial,  # noqa: ARG002
    ) -> dict[str, BaseDistribution]:
        """All parameters: they are proposed together."""
        return self._encoding.distributions

    def sample_relative(
        self,
        study: optuna.Study,
        trial: FrozenTrial,  # noqa: ARG002
        search_space: dict[str, BaseDistribution],  # noqa: ARG002
    ) -> dict[str, Any]:
        """Parameters of a new child that lies in the window."""
        known, parents = self._history(study)
        for _ in range(_NUM_TRIES if parents else 0):
            child = self._child(parents)
            candidate = self._candidate(child)
            if (
                candidate.id not in known
                and self._space.macs(candidate.architecture) in self._encoding.window
            ):
                break
        else:
            child = self._random()
        return self._encoding.params(self._architecture(child), dict(zip(self._names, child[1], strict=True)))

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Never needed: everything is sampled together."""
        raise AssertionError(
            f"{param_name} of {study.study_name}, trial {trial.number}: {param_distribution}"
        )

    def _history(self, study: optuna.Study) -> tuple[set[str], list[tuple[int, Genome]]]:
        """Ids that are known, and ``(macs, genome)`` of the parents in the order of their trials.

        The record of the criteria is taken on the way.
        """
        trials = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.RUNNING))
        proposals = [t for t in trials if set(self._encoding.distributions) <= set(t.params)]
        known = {self._encoding.candidate(trial.params).id for trial in proposals}
        known |= {
            t.user_attrs["record"]["evaluation"]["candidate"] for t in trials if "record" in t.user_attrs
        }
        scored = [t for t in proposals if _is_parent(t)]
        marks = [self._mark(trial) for trial in scored]
        rank_of = ranks(coarse(marks, *self._encoding.steps))
        order = np.argsort(rank_of, kind="stable")
        size = max(int((rank_of == 0).sum()), _LEAST_PARENTS)
        used = [set(trial.user_attrs["record"]["criteria"].values()) for trial in scored]
        self._chances = chances(self._encoding.criteria, used, rank_of < _GOOD_RANKS)
        return known, [(marks[i].macs, self._genome(scored[i])) for i in sorted(order[:size])]

    def _mark(self, trial: FrozenTrial) -> Mark:
        *costs, score = trial.values
        macs = trial.user_attrs["record"]["evaluation"]["macs"]
        return Mark(macs, score, str(trial.number), self._encoding.objectives.beside(costs))

    def _genome(self, trial: FrozenTrial) -> Genome:
        candidate = self._encoding.candidate(trial.params)
        return self._indices(candidate.architecture), tuple(
            self._criterion_of(trial, name) for name in self._names
        )

    def _criterion_of(self, trial: FrozenTrial, group: str) -> str:
        key = f"criterion:{group}" if self._encoding.per_group else "criterion"
        return str(trial.params.get(key, self._encoding.criteria[0]))

    def _child(self, parents: list[tuple[int, Genome]]) -> Genome:
        window = self._encoding.window
        aim = self._rng.uniform(window.low, min(window.high, self._space.macs(self._space.dense)))
        macs = np.array([macs for macs, _ in parents])
        nearest = int(np.abs(macs - aim).argmin())
        first = parents[nearest][1]
        moves = [self._step, self._step, self._trade, self._restore, self._recriterion]
        child = first
        if len(parents) > 1 and self._rng.random() < 0.25:
            child = self._recombine(first, parents[self._rng.integers(len(parents))][1])
        if abs(macs[nearest] - aim) > _GAP * self._space.macs(self._space.dense):
            child = self._slide(child, aim)
        while True:
            move: Callable[[Genome], Genome] = moves[self._rng.integers(len(moves))]
            child = move(child)
            if self._rng.random() >= _AGAIN:
                return child

    def _slide(self, genome: Genome, aim: float) -> Genome:
        """The same proportions at other MACs: crosses a gap that no parent lies in."""
        ratios = self._space.ratios(self._architecture(genome))
        least, dense = self._space.macs(self._space.smallest), self._space.macs(self._space.dense)
        return self._indices(self._space.fit(ratios, macs=share_of(max(aim, least), dense))), genome[1]

    def _step(self, genome: Genome) -> Genome:
        """One group wider or narrower by one or a few steps."""
        widths, criteria = genome
        group = int(self._rng.choice(self._movable))
        return self._moved(widths, group, self._distance(group) * int(self._rng.choice([-1, 1]))), criteria

    def _trade(self, genome: Genome) -> Genome:
        """One group a little wider, others narrower until the MACs are no more than before."""
        widths, criteria = genome
        limit = self._macs(widths)
        order = self._rng.permutation(self._movable).tolist()
        child = self._moved(widths, order[0], self._distance(order[0], most=1))
        for group in order[1:]:
            while self._macs(child) > limit and child[group] > 0:
                child = self._moved(child, group, -1)
        return child, criteria

    def _restore(self, genome: Genome) -> Genome:
        """One group whole, the others narrower by one scale: finds layers worth more than their MACs."""
        widths, criteria = genome
        group = int(self._rng.choice(self._movable))
        smallest = tuple(len(c) - 1 if i == group else 0 for i, c in enumerate(self._choices))
        limit = self._macs(widths)
        if self._macs(smallest) > limit:
            return genome
        wanted = self._space.ratios(self._architecture(genome))
        low, high = 0.0, 1.0
        child = smallest
        for _ in range(_BISECTIONS):
            scale = (low + high) / 2
            ratios = {n: 1.0 if n == self._names[group] else scale * r for n, r in wanted.items()}
            trial = self._indices(self._space.nearest(ratios))
            low, high, child = (scale, high, trial) if self._macs(trial) <= limit else (low, scale, child)
        return child, criteria

    def _recriterion(self, genome: Genome) -> Genome:
        """A criterion by its record, for one group where each has its own (or for all, one time in four)."""
        widths, criteria = genome
        name = str(self._rng.choice(list(self._chances), p=list(self._chances.values())))
        if self._encoding.per_group and self._rng.random() < 0.75:
            group = int(self._rng.choice(self._movable))
            return widths, (*criteria[:group], name, *criteria[group + 1 :])
        return widths, (name,) * len(criteria)

    def _recombine(self, first: Genome, second: Genome) -> Genome:
        """Uniform crossover, group by group."""
        take = self._rng.random(len(self._choices)) < 0.5
        widths = tuple(b if t else a for a, b, t in zip(first[0], second[0], take, strict=True))
        if not self._encoding.per_group:
            return widths, first[1] if self._rng.random() < 0.5 else second[1]
        return widths, tuple(b if t else a for a, b, t in zip(first[1], second[1], take, strict=True))

    def _random(self) -> Genome:
        """Random widths in the window and a random criterion."""
        ratios = {
            n: float(self._rng.uniform(c[0] / c[-1], 1))
            for n, c in zip(self._names, self._choices, strict=True)
        }
        criterion = str(self._rng.choice(self._encoding.criteria))
        return self._indices(self._encoding.into_window(ratios)), (criterion,) * len(self._names)

    def _indices(self, architecture: Architecture) -> tuple[int, ...]:
        widths = architecture.widths
        return tuple(c.index(widths[n]) for c, n in zip(self._choices, self._names, strict=True))

    def _distance(self, group: int, most: int = _MOST_STEPS) -> int:
        """One to ``most`` steps, or up to a fifth of a wide group's choices."""
        return int(self._rng.integers(1, max(most, len(self._choices[group]) // 5) + 1))

    def _moved(self, widths: tuple[int, ...], group: int, steps: int) -> tuple[int, ...]:
        index = min(max(widths[group] + steps, 0), len(self._choices[group]) - 1)
        return (*widths[:group], index, *widths[group + 1 :])

    def _macs(self, indices: tuple[int, ...]) -> int:
        widths = [[choices[index] for choices, index in zip(self._choices, indices, strict=True)]]
        return int(self._space.macs(np.array(widths, dtype=np.int64))[0])

    def _architecture(self, genome: Genome) -> Architecture:
        widths = (choices[index] for choices, index in zip(self._choices, genome[0], strict=True))
        return Architecture(tuple(zip(self._names, widths, strict=True)))

    def _candidate(self, genome: Genome) -> Candidate:
        criteria = dict(zip(self._names, genome[1], strict=True))
        return self._encoding.build(self._architecture(genome), criteria)


def _is_parent(trial: FrozenTrial) -> bool:
    """Whether its score came from its own evaluation as a proposal."""
    record = trial.user_attrs.get("record")
    return (
        trial.state == TrialState.COMPLETE
        and record is not None
        and not record["origin"].startswith("control")
        and record["evaluation"]["method"] == SEARCHED[1]
    )


def chances(
    criteria: Sequence[str], used: Sequence[Collection[str]], succeeded: Sequence[bool] | NDArray[np.bool_]
) -> dict[str, float]:
    """Probability with which each criterion is drawn: its expected rate of success, over the sum of all.

    Args:
        criteria: To choose from.
        used: Of each trial, the criteria that chose its units.
        succeeded: Whether each trial was a success.

    References:
        Laplace's rule of succession: a rate of ``(successes + 1) / (trials + 2)``.
    """
    rates = []
    for name in criteria:
        outcomes = [good for names, good in zip(used, succeeded, strict=True) if name in names]
        rates.append((sum(outcomes) + 1) / (len(outcomes) + 2))
    return {name: float(rate / sum(rates)) for name, rate in zip(criteria, rates, strict=True)}
