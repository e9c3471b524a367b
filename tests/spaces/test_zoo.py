"""Every CNN of torchvision's classification zoo: a cut is never wrong, and its cost is known beforehand."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch.utils import _pytree as pytree

from evaluators.flops import count_macs
from spaces import Architecture, Space, cut, trace
from spaces.surgery import masked
from spaces.verify import random_kept, randomised

pytestmark = pytest.mark.zoo

#: Half a million widths can not be held twice in float64 by a small machine.
HUGE = "regnet_y_128gf"

REPRESENTATIVES = set(zoo.FAMILIES.values())


def check_costs(model: torch.nn.Module, space: Space, example: torch.Tensor, num_architectures: int) -> None:
    """Closed form against fvcore and against the real number of parameters, for random architectures."""
    generator = torch.Generator().manual_seed(5)
    for _ in range(num_architectures):
        kept = random_kept(space.groups, generator)
        small = cut(model, space, kept)
        architecture = Architecture.of({name: len(units) for name, units in kept.items()})
        assert space.macs(architecture) == count_macs(small, example)
        assert space.params(architecture) == sum(p.numel() for p in small.parameters())


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_family(family: str) -> None:
    name = zoo.FAMILIES[family]
    model, example = zoo.make(name), zoo.example(name)
    space = trace(model, example)

    half = 1 - space.macs(space.uniform(0.5)) / space.macs(space.dense)
    assert half >= 0.6, "freezing is no way out"

    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        real = randomised(model, generator, ((example.double(),), {}))
        kept = random_kept(space.groups, generator)
        expected = masked(real, space, kept)(example.double())
        small = cut(real, space, kept)
        found = small(example.double())
        dense = cut(real, space, space_full(space))(example.double())
        assert torch.equal(dense, real(example.double()))
    if all(group.exact for group in space.groups):
        assert (found - expected).abs().max() <= 1e-8 * expected.abs().max()
    else:
        assert family == "ConvNeXt"
        assert found.shape == expected.shape

    train_one_step(small, torch.cat([example, example.flip(3)]).double())
    check_costs(model, space, example, num_architectures=20)


def space_full(space: Space) -> dict[str, torch.Tensor]:
    return {group.name: torch.arange(group.width) for group in space.groups}


def train_one_step(small: torch.nn.Module, batch: torch.Tensor) -> None:
    """Forward, backward and update in train mode; every parameter that got a gradient moves."""
    small.train()
    outputs = [o for o in pytree.tree_leaves(small(batch)) if isinstance(o, torch.Tensor)]
    sum(o.logsumexp(1).mean() for o in outputs).backward()  # type: ignore[union-attr]
    before = [p.detach().clone() for p in small.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


@pytest.mark.parametrize("name", [n for n in zoo.ALL if n not in REPRESENTATIVES and n != HUGE])
def test_every_other_model(name: str) -> None:
    """Tracing compares a random cut with the masked network by itself and freezes what differs."""
    model, example = zoo.make(name), zoo.example(name)
    space = trace(model, example)
    assert not [warning for warning in space.warnings if "differed" in warning or "no rule" in warning]
    assert 1 - space.macs(space.uniform(0.5)) / space.macs(space.dense) >= 0.6
    check_costs(model, space, example, num_architectures=2)
