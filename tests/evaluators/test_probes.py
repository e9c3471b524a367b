from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import PLAIN, gated, group, same_state, state, toy_model, toy_task

from evaluators.calibration import calibration_batches
from evaluators.statistics.probes import curvature, removals
from spaces import trace

if TYPE_CHECKING:
    from evaluators.task import Batch

GROUPS = (group("conv1", 6, input=[("conv2.weight", 1)]), group("conv2", 4, input=[("head.weight", 1)]))


def gated_loss(model: nn.Module, batches: list[Batch], gates: Tensor) -> float:
    """Mean loss of all samples, with the gates of both groups in one vector."""
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])
    values = {"conv1": gates[:6], "conv2": gates[6:]}
    with torch.no_grad(), gated(model, GROUPS, values):
        return float(F.cross_entropy(model(x), y))


def test_removals_are_losses_of_masked_networks() -> None:
    task = toy_task()
    batches = list(calibration_batches(task, PLAIN))[:3]
    batches[2] = (batches[2][0][:5], batches[2][1][:5])
    found = removals(task, trace(task.model, task.example_inputs), None, batches, PLAIN, seed=0)
    ones = torch.ones(10)
    dense = gated_loss(task.model, batches, ones)
    for name, start in (("conv1", 0), ("conv2", 6)):
        units, rises = found[name].unbind(1)
        assert units.tolist() == list(range(len(units)))
        wanted = []
        for unit in range(len(units)):
            gates = ones.clone()
            gates[start + unit] = 0
            wanted.append(gated_loss(task.model, batches, gates) - dense)
        torch.testing.assert_close(rises.tolist(), wanted, rtol=1e-4, atol=1e-6)
    assert [len(rises) for rises in found.values()] == [6, 4]


@pytest.mark.parametrize(("num_units", "counts"), [(7, [3, 4]), (4, [2, 2]), (1, [1]), (0, [])])
def test_removals_spread_over_the_groups(num_units: int, counts: list[int]) -> None:
    task = toy_task()
    space = trace(task.model, task.example_inputs)
    batches = list(calibration_batches(task, PLAIN))[:1]
    found = removals(task, space, None, batches, PLAIN, 0, num_units)
    assert sorted(len(rises) for rises in found.values()) == counts
    again, other = (removals(task, space, None, batches, PLAIN, seed, num_units) for seed in (0, 5))
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert all(len(set(rises[:, 0].tolist())) == len(rises) for rises in other.values())
    assert list(removals(task, space, ["conv2"], batches, PLAIN, 0, 4)) == ["conv2"]


def test_removals_of_another_seed_are_of_other_units() -> None:
    task = toy_task()
    space, batches = trace(task.model, task.example_inputs), list(calibration_batches(task, PLAIN))[:1]
    chosen = {
        tuple(removals(task, space, ["conv1"], batches, PLAIN, seed, 2)["conv1"][:, 0].tolist())
        for seed in range(8)
    }
    assert len(chosen) > 2


@pytest.mark.parametrize("probe", [curvature, removals])
def test_a_probe_leaves_the_model_and_the_random_state_as_they_were(probe: object) -> None:
    task = toy_task(model=toy_model().train())
    task.model.conv1.weight.requires_grad_(False)
    space, batches = trace(task.model, task.example_inputs), list(calibration_batches(task, PLAIN))[:1]
    before, random = state(task.model), torch.get_rng_state()
    if probe is curvature:
        curvature(task, space, batches, PLAIN, 0)
    else:
        removals(task, space, None, batches, PLAIN, 0)
    assert same_state(before, state(task.model))
    assert torch.equal(random, torch.get_rng_state())
    assert all(module.training for module in task.model.modules())
    assert [name for name, p in task.model.named_parameters() if not p.requires_grad] == ["conv1.weight"]
    assert all(parameter.grad is None for parameter in task.model.parameters())


def test_removals_put_weights_back_when_the_loss_fails() -> None:
    task = toy_task()
    space, before = trace(task.model, task.example_inputs), state(task.model)
    calls = iter(range(3))

    def failing(outputs: Tensor, targets: Tensor) -> Tensor:
        if next(calls) == 2:
            raise FloatingPointError("enough")
        return F.cross_entropy(outputs, targets)

    broken = toy_task(model=task.model, loss=failing)
    with pytest.raises(FloatingPointError):
        removals(broken, space, None, list(calibration_batches(task, PLAIN))[:1], PLAIN, 0)
    assert same_state(before, state(task.model))
