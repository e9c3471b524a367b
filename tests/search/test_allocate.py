"""Allocations against hand-made cases, slow references and brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from fake_problem import make_space
from hypothesis import given, settings
from hypothesis import strategies as st

from search.allocate import by_error, by_global_scores, by_threshold, ladder_by_error
from search.board import Board, Descent
from spaces.architecture import Architecture
from spaces.cost import CostBuilder
from spaces.groups import ChannelGroup
from spaces.space import Space

SEEDS = st.integers(0, 10_000)
SHARES = st.floats(0.05, 1.0)


def any_space(seed: int) -> Space:
    """A chain with what networks add to it: a wide stream that many read, a concatenation, a square."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 6))
    groups = tuple(
        ChannelGroup(f"g{i}", int(rng.integers(1, 30)), int(rng.integers(1, 6)), 1, ()) for i in range(n)
    )
    unit = [tuple(int(i == j) for j in range(n)) for i in range(n)]
    macs, params = CostBuilder(n), CostBuilder(n)
    for i in range(n):
        macs.add(int(rng.integers(1, 50)), [(0, unit[i - 1] if i else unit[0]), (0, unit[i])])
        macs.add(int(rng.integers(1, 50)), [(int(rng.integers(0, 5)), unit[0]), (3, unit[i])])
    macs.add(7, [(2, (1,) * n), (0, unit[-1])])
    return Space(groups, macs.build(), params.build())


def priced_space(widths: tuple[int, ...], prices: tuple[int, ...]) -> Space:
    """Groups whose MACs add up: a price per unit each."""
    n = len(widths)
    groups = tuple(ChannelGroup(f"g{i}", width, 1, 1, ()) for i, width in enumerate(widths))
    macs, params = CostBuilder(n), CostBuilder(n)
    for i, price in enumerate(prices):
        macs.add(price, [(0, tuple(int(i == j) for j in range(n)))])
    return Space(groups, macs.build(), params.build())


def falling(rng: np.random.Generator, length: int) -> np.ndarray:
    """Errors that fall to 0 at the end, flat stretches and cliffs included."""
    return np.append(np.cumsum(rng.exponential(size=length - 1) * rng.integers(0, 2, length - 1))[::-1], 0.0)


def convex(rng: np.random.Generator, length: int) -> np.ndarray:
    return np.append(np.cumsum(np.sort(rng.random(length - 1)))[::-1], 0.0)


def curves_of(space: Space, seed: int, make=falling) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {group.name: make(rng, group.width + 1) for group in space.groups}


def error(curves: dict[str, np.ndarray], architecture: Architecture) -> float:
    return float(sum(curves[name][width] for name, width in architecture.items))


def widths_of(space: Space, architecture: Architecture) -> tuple[int, ...]:
    return tuple(space.widths_array(architecture).tolist())


def allocate_all(space: Space, seed: int, macs: float) -> list[Architecture]:
    rng = np.random.default_rng(seed)
    return [
        by_error(space, curves_of(space, seed), macs=macs),
        by_threshold(space, {g.name: falling(rng, len(g.choices)) for g in space.groups}, macs=macs),
        by_global_scores(space, {g.name: rng.standard_normal(g.width) for g in space.groups}, macs=macs),
    ]


@settings(max_examples=150, deadline=None)
@given(seed=SEEDS, share=SHARES)
def test_every_allocation_meets_its_macs_within_one_step(seed: int, share: float) -> None:
    space = any_space(seed)
    macs = max(share, space.macs(space.smallest) / space.macs(space.dense) + 1e-9)
    for found in allocate_all(space, seed, macs):
        assert space.macs(found) <= macs * space.macs(space.dense)
        for group in space.groups:
            assert found.widths[group.name] in group.choices
            wider = next((c for c in group.choices if c > found.widths[group.name]), None)
            if wider is not None:
                grown = Architecture.of({**found.widths, group.name: wider})
                assert space.macs(grown) > macs * space.macs(space.dense)


def test_macs_that_no_width_reaches_are_refused_with_what_can_be_met() -> None:
    space = make_space()
    least = space.macs(space.smallest) / space.macs(space.dense)
    for call in range(3):
        with pytest.raises(ValueError, match=f"`macs` must be at least {least:.4f}"):
            allocate_all(space, 0, [least / 2, 0.0, -1.0][call])


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, shares=st.lists(SHARES, min_size=1, max_size=5))
def test_a_ladder_has_what_each_target_gets_alone(seed: int, shares: list[float]) -> None:
    space = any_space(seed)
    least = space.macs(space.smallest) / space.macs(space.dense) + 1e-9
    targets = [max(share, least) for share in shares]
    curves = curves_of(space, seed)
    assert ladder_by_error(space, curves, targets) == [by_error(space, curves, macs=t) for t in targets]


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, share=SHARES)
def test_the_descent_equals_one_that_looks_at_every_cut_each_time(seed: int, share: float) -> None:
    space = any_space(seed)
    curves = curves_of(space, seed)
    tables = [curves[group.name][list(group.choices)] for group in space.groups]
    limit = max(share * space.macs(space.dense), space.macs(space.smallest))
    descent = Descent(Board(space, tables))
    descent.go_down(limit)

    state = [len(table) - 1 for table in tables]
    choices = [group.choices for group in space.groups]

    def macs(indices):
        widths = [some[i] for some, i in zip(choices, indices, strict=True)]
        return int(space.macs(np.array([widths]))[0])

    while macs(state) > limit:
        cuts = []
        for group, now in enumerate(state):
            for lower in range(now):
                saved = macs(state) - macs([*state[:group], lower, *state[group + 1 :]])
                ratio = (tables[group][lower] - tables[group][now]) / saved
                cuts.append((ratio, group, -lower))
        _, group, lower = min(cuts)
        state[group] = -lower
    assert descent.state.tolist() == state


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, widths=st.lists(st.integers(1, 7), min_size=2, max_size=3), share=st.floats(0.45, 1.0))
def test_convex_errors_at_equal_prices_are_allocated_as_brute_force_does(
    seed: int, widths: list[int], share: float
) -> None:
    space = priced_space(tuple(widths), (5,) * len(widths))
    share = max(share, len(widths) / sum(widths))
    curves = curves_of(space, seed, convex)
    every = np.array(list(itertools.product(*(group.choices for group in space.groups))))
    fitting = every[space.macs(every) <= share * space.macs(space.dense)]
    errors = sum(curves[g.name][fitting[:, i]] for i, g in enumerate(space.groups))
    assert error(curves, by_error(space, curves, macs=share)) == pytest.approx(errors.min())


@pytest.mark.parametrize(("widths", "divisor"), [((8, 6, 10), 2), ((16, 16, 32, 32), 4)])
def test_where_macs_multiply_brute_force_is_met_in_most_cases(widths: tuple[int, ...], divisor: int) -> None:
    """It is a knapsack then, which a descent and trades need not solve: three in four, 3% on average."""
    space = make_space(widths, divisor)
    every = np.array(list(itertools.product(*(group.choices for group in space.groups))))
    fitting = every[space.macs(every) <= 0.5 * space.macs(space.dense)]
    excess = []
    for seed in range(50):
        curves = curves_of(space, seed, convex)
        least = sum(curves[g.name][fitting[:, i]] for i, g in enumerate(space.groups)).min()
        excess.append(error(curves, by_error(space, curves, macs=0.5)) / least - 1)
    assert np.mean(excess) < 0.03
    assert np.mean(np.array(excess) < 1e-9) > 0.75


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS, share=SHARES)
def test_no_single_step_from_one_group_to_another_would_help(seed: int, share: float) -> None:
    space = any_space(seed)
    share = max(share, space.macs(space.smallest) / space.macs(space.dense) + 1e-9)
    limit = share * space.macs(space.dense)
    curves = curves_of(space, seed)
    found = by_error(space, curves, macs=share)
    macs, before = space.macs(found), error(curves, found)
    for up, down in itertools.permutations(space.groups, 2):
        wider = next((c for c in up.choices if c > found.widths[up.name]), None)
        narrower = next((c for c in reversed(down.choices) if c < found.widths[down.name]), None)
        if wider and narrower:
            grown = Architecture.of({**found.widths, up.name: wider})
            shrunk = Architecture.of({**found.widths, down.name: narrower})
            if space.macs(grown) + space.macs(shrunk) - macs <= limit:
                both = Architecture.of({**grown.widths, down.name: narrower})
                assert error(curves, both) >= before * (1 - 1e-9)


def test_a_flat_stretch_behind_a_cliff_is_found() -> None:
    space = priced_space((8, 8), (1, 1))
    curves = {
        "g0": np.array([9.0, 1, 1, 1, 1, 1, 1, 1, 0]),  # the first unit costs 1, six more are free
        "g1": np.array([9.0, 2.1, 1.8, 1.5, 1.2, 0.9, 0.6, 0.3, 0]),
    }
    assert widths_of(space, by_error(space, curves, macs=9 / 16)) == (1, 8)


def test_an_error_that_falls_as_units_go_is_levelled() -> None:
    space = priced_space((4, 4), (1, 1))
    curves = {"g0": np.array([9.0, 0.1, 5.0, 0.3, 0.0]), "g1": np.array([9.0, 3, 2, 1, 0])}
    assert widths_of(space, by_error(space, curves, macs=5 / 8)) == (1, 4)


def test_a_group_without_a_curve_is_taken_for_an_average_one() -> None:
    space = make_space(widths=(8, 8, 16), divisor=2)
    rng = np.random.default_rng(0)
    known = {"layer0": convex(rng, 9), "layer1": convex(rng, 9)}
    mean = (known["layer0"] + known["layer1"]) / 2
    stand_in = np.interp(np.arange(17) / 16, np.arange(9) / 8, mean)
    for share in (0.8, 0.5, 0.3):
        whole = by_error(space, {**known, "layer2": stand_in}, macs=share)
        assert by_error(space, known, macs=share) == whole


def test_one_threshold_takes_the_narrowest_widths_below_it() -> None:
    space = priced_space((4, 4, 4), (1, 1, 1))
    sensitivities = {
        "g0": np.array([0.9, 0.5, 0.3, 0.0]),
        "g1": torch.tensor([0.2, 0.1, 0.05, 0.0]),
        "g2": np.array([0.8, 0.7, 0.6, 0.0]),
    }
    # A threshold of 0.2 leaves 4 + 1 + 4 units, one of 0.3 leaves 3 + 1 + 4.
    assert widths_of(space, by_threshold(space, sensitivities, macs=9 / 12)) == (4, 1, 4)
    assert widths_of(space, by_threshold(space, sensitivities, macs=8 / 12)) == (3, 1, 4)
    # 0.6 is the lowest that leaves at most 6 units, 2 + 1 + 3 of them.
    assert widths_of(space, by_threshold(space, sensitivities, macs=6 / 12)) == (2, 1, 3)


def test_what_a_threshold_leaves_over_goes_to_the_greatest_damage() -> None:
    space = priced_space((4, 4), (3, 1))
    sensitivities = {"g0": np.array([0.5, 0.5, 0.5, 0.0]), "g1": np.array([0.4, 0.3, 0.2, 0.0])}
    # 0.5 leaves 3 + 1 MACs where 10 may be spent: 0.5 stays one until g0 is full, so g0 gets its two steps.
    assert widths_of(space, by_threshold(space, sensitivities, macs=10 / 16)) == (3, 1)


@settings(max_examples=100, deadline=None)
@given(seed=SEEDS, share=SHARES)
def test_units_above_the_global_threshold_stay(seed: int, share: float) -> None:
    """Against a reference that tries every threshold."""
    space = any_space(seed)
    share = max(share, space.macs(space.smallest) / space.macs(space.dense) + 1e-9)
    rng = np.random.default_rng(seed)
    scores = {g.name: rng.standard_normal(g.width) for g in space.groups}
    for threshold in sorted([-np.inf, *np.concatenate(list(scores.values()))]):
        above = {g.name: int((scores[g.name] > threshold).sum()) for g in space.groups}
        nearest = {
            g.name: min(g.choices, key=lambda c, g=g: (abs(c - above[g.name]), c)) for g in space.groups
        }
        reference = Architecture.of(nearest)
        if space.macs(reference) <= share * space.macs(space.dense):
            break
    found = by_global_scores(space, scores, macs=share)
    assert all(found.widths[name] >= width for name, width in reference.items)
    if all(
        space.macs(Architecture.of({**reference.widths, g.name: c})) > share * space.macs(space.dense)
        for g in space.groups
        for c in g.choices
        if c > reference.widths[g.name]
    ):
        assert found == reference


def test_a_global_threshold_cuts_the_groups_with_low_scores() -> None:
    space = priced_space((4, 4), (1, 1))
    scores = {"g0": np.array([4.0, 1.0, 3.0, 2.0]), "g1": np.array([0.1, 2.5, 0.3, 0.2])}
    assert widths_of(space, by_global_scores(space, scores, macs=5 / 8)) == (4, 1)
    assert widths_of(space, by_global_scores(space, scores, macs=4 / 8)) == (3, 1)


@settings(max_examples=60, deadline=None)
@given(seed=SEEDS)
def test_a_lower_target_never_widens_what_one_threshold_leaves(seed: int) -> None:
    """With one price and no left-overs the widths of falling targets are nested."""
    space = priced_space((6, 9, 7), (2, 2, 2))
    rng = np.random.default_rng(seed)
    scores = {g.name: rng.standard_normal(g.width) for g in space.groups}
    found = [by_global_scores(space, scores, macs=units / 22) for units in range(22, 2, -1)]
    for wide, narrow in itertools.pairwise(found):
        assert all(narrow.widths[name] <= width for name, width in wide.items)
