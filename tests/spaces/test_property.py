"""Random networks: a trace never fails, a cut is never wrong, costs are exact."""

from __future__ import annotations

import random

import pytest
import random_nets
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from rightness import check

from spaces import trace

#: Reproducible in CI, without a database of earlier failures.
PROFILE = settings(
    derandomize=True, deadline=None, max_examples=60, database=None, suppress_health_check=list(HealthCheck)
)
RANDOM = st.randoms(use_true_random=False)


@PROFILE
@given(RANDOM, st.integers(0, 2**31 - 1))
def test_a_random_network_is_traced_and_its_cuts_are_right(rng: random.Random, seed: int) -> None:
    net, inputs = random_nets.build(rng)
    note(repr(net))
    check(net, inputs, seed)


BLOCKS = [(kind, name) for kind, blocks in random_nets.BLOCKS.items() for name in blocks]
#: What may stay whole in a network of one block: layers whose widths the block's code fixes.
MAY_STAY = {
    "padded_shortcut": {"trunk.0.branch.0"},  # meets the padded zeros
    "token_mixer": {"trunk.0.out"},  # makes as many tokens as there were
    "unequal": {"trunk.0.wide"},
    "windows": {"trunk.0.qkv"},
}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "name"), BLOCKS, ids=["-".join(pair) for pair in BLOCKS])
def test_every_block_leaves_its_choices_and_its_cuts_are_right(kind: str, name: str, seed: int) -> None:
    net, inputs = random_nets.single(kind, name, random.Random(seed))
    space = check(net, inputs, seed)
    assert "stems.0" in {group.name for group in space.groups}
    assert {one.name for one in space.frozen} <= {"heads.logits"} | MAY_STAY.get(name, set())


def test_random_networks_do_have_choices() -> None:
    """So that the properties above speak of something."""
    shares = []
    for seed in range(20):
        net, inputs = random_nets.build(random.Random(seed))
        space = trace(net, inputs)
        shares.append(1 - space.params(space.smallest) / space.params(space.dense))
    assert sum(share > 0 for share in shares) >= 18
    assert sorted(shares)[10] > 0.3
