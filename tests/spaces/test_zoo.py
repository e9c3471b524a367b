"""Every CNN of torchvision's classification zoo: a cut is never wrong, and its cost is known beforehand."""

from __future__ import annotations

import pytest
import torch
import zoo
from torch.utils import _pytree as pytree

from evaluators.flops import count_macs
from spaces import Architecture, Space, cut, trace
from spaces.surgery import masked
from spaces.trial_cuts import random_kept
from spaces.verify import randomised

pytestmark = pytest.mark.zoo

#: 645 M parameters: masked and cut copies in float64 do not fit into a small machine's memory.
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


def check_exact(model: torch.nn.Module, space: Space, example: torch.Tensor) -> None:
    """A random cut equals the masked network and trains one step; a cut that keeps all is bit-equal."""
    generator = torch.Generator().manual_seed(7)
    kept = random_kept(space.groups, generator)
    everything = {group.name: torch.arange(group.width) for group in space.groups}
    example = example.double()
    with torch.no_grad():
        real = randomised(model, generator, ((example,), {}))
        small = cut(real, space, kept)
        expected, found = masked(real, space, kept)(example), small(example)
        assert torch.equal(cut(real, space, everything)(example), real(example))
    assert found.shape == expected.shape
    if all(group.exact for group in space.groups):
        assert (found - expected).abs().max() <= 1e-8 * expected.abs().max()
    train_one_step(small, torch.cat([example, example.flip(3)]))


def train_one_step(small: torch.nn.Module, batch: torch.Tensor) -> None:
    """Forward, backward and update in train mode: every parameter has a finite gradient, and weights move."""
    small.train()
    outputs = [o for o in pytree.tree_leaves(small(batch)) if isinstance(o, torch.Tensor)]
    torch.stack([o.logsumexp(1).mean() for o in outputs]).sum().backward()
    before = [p.detach().clone() for p in small.parameters()]
    assert all(p.grad is not None and p.grad.isfinite().all() for p in small.parameters())
    torch.optim.SGD(small.parameters(), lr=0.1).step()
    assert any(not torch.equal(a, b) for a, b in zip(before, small.parameters(), strict=True))


def traced(name: str) -> tuple[torch.nn.Module, torch.Tensor, Space]:
    """Model, input and space, in which freezing was no way out."""
    model, example = zoo.make(name), zoo.example(name)
    space = trace(model, example)
    assert not [w for w in space.warnings if "Frozen" in w or "no rule" in w or "train mode" in w]
    assert 1 - space.macs(space.uniform(0.5)) / space.macs(space.dense) >= 0.6
    assert all(group.exact for group in space.groups) != name.startswith("convnext")
    return model, example, space


@pytest.mark.parametrize("family", zoo.FAMILIES)
def test_family(family: str) -> None:
    model, example, space = traced(zoo.FAMILIES[family])
    check_exact(model, space, example)
    check_costs(model, space, example, num_architectures=20)


@pytest.mark.parametrize("name", [n for n in zoo.ALL if n not in REPRESENTATIVES and n != HUGE])
def test_every_other_model(name: str) -> None:
    model, example, space = traced(name)
    check_exact(model, space, example)
    check_costs(model, space, example, num_architectures=2)
