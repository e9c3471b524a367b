from __future__ import annotations

import math

import nets
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spaces import Architecture, Space, trace
from spaces.groups import ChannelGroup


@pytest.fixture(scope="module")
def space() -> Space:
    return trace(nets.Residual(), nets.IMAGE)


def by_hand(stem: int, inner: int) -> tuple[int, int]:
    """MACs and parameters of ``nets.Residual`` on 4x4 images."""
    macs = 16 * (27 * stem + 9 * stem * inner + inner * stem) + 4 * stem
    params = 28 * stem + (9 * stem + 1) * inner + (inner + 1) * stem + 4 * stem + 4
    return macs, params


@given(stem=st.integers(1, 8), inner=st.integers(1, 12))
def test_costs_equal_those_counted_by_hand(space: Space, stem: int, inner: int) -> None:
    architecture = Architecture.of({"stem": stem, "inner": inner})
    assert (space.macs(architecture), space.params(architecture)) == by_hand(stem, inner)


def test_many_architectures_cost_what_each_costs_alone(space: Space) -> None:
    widths = np.stack(np.meshgrid(np.arange(1, 9), np.arange(1, 13)), axis=-1).reshape(-1, 2)
    widths = np.tile(widths, (50, 1))  # more than one chunk
    assert space.macs(widths).tolist() == [by_hand(a, b)[0] for a, b in widths.tolist()]
    assert space.params(widths).tolist() == [by_hand(a, b)[1] for a, b in widths.tolist()]


def test_uniform_keeps_the_same_share_everywhere(space: Space) -> None:
    assert dict(space.uniform(0.5).widths) == {"stem": 4, "inner": 6}
    assert space.uniform(1.0) == space.dense


@pytest.mark.parametrize("ratio", [0.0, -1.0, 1.1])
def test_uniform_refuses_ratios_outside_zero_to_one(space: Space, ratio: float) -> None:
    with pytest.raises(ValueError, match=r"`ratio` must be in \(0, 1\]"):
        space.uniform(ratio)


@settings(max_examples=60)
@given(seed=st.integers(0, 10_000), share=st.floats(0.05, 1.0))
def test_a_sample_meets_its_macs_within_one_step(space: Space, seed: int, share: float) -> None:
    limit = share * space.macs(space.dense)
    found = space.sample(torch.Generator().manual_seed(seed), macs=share)
    assert space.macs(found) <= limit
    for group in space.groups:
        k = found.widths[group.name]
        wider = next((c for c in group.choices if c > k), None)
        if wider is not None:
            assert space.macs(Architecture.of({**found.widths, group.name: wider})) > limit


def test_a_sample_depends_on_its_generator_alone(space: Space) -> None:
    draws = [space.sample(torch.Generator().manual_seed(seed), macs=0.6) for seed in (0, 0, 1, 2, 3)]
    assert draws[0] == draws[1]
    assert len(set(draws)) > 1


def test_macs_that_no_width_reaches_are_refused_with_what_can_be_met(space: Space) -> None:
    least = space.macs(space.smallest) / space.macs(space.dense)
    with pytest.raises(ValueError, match=f"at least {least:.4f}"):
        space.fit(dict.fromkeys(space.dense.widths, 1.0), macs=least / 2)


def test_nearest_undoes_ratios(space: Space) -> None:
    for seed in range(10):
        architecture = space.sample(torch.Generator().manual_seed(seed))
        assert space.nearest(space.ratios(architecture)) == architecture


@pytest.mark.parametrize("widths", [{"stem": 8}, {"stem": 8, "inner": 0}, {"stem": 9, "inner": 1}, {"x": 1}])
def test_an_architecture_of_another_space_is_refused(space: Space, widths: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="`architecture`"):
        space.macs(Architecture.of(widths))


@given(st.integers(1, 80), st.integers(1, 20), st.integers(1, 9), st.integers(1, 80))
def test_proposed_widths_are_multiples_of_the_divisor_or_full(
    width: int, divisor: int, unit: int, smallest: int
) -> None:
    group = ChannelGroup("g", width, divisor, unit, (), smallest=min(smallest, width))
    assert group.choices[-1] == width
    assert list(group.choices) == sorted(set(group.choices))
    for choice in group.choices[:-1]:
        assert choice >= group.smallest
        assert choice % math.ceil(divisor / unit) == 0
        assert choice * unit >= divisor


@pytest.mark.parametrize(("width", "divisor"), [(0, 1), (4, 0)])
def test_a_group_checks_its_numbers(width: int, divisor: int) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        ChannelGroup("g", width, divisor, 1, ())
