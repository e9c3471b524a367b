from __future__ import annotations

import pytest
import torch
from torch import nn
from toys import PLAIN, same_state, state, toy_model, toy_task

from evaluators.scratch import fresh, scratch_b_epochs
from evaluators.train import train
from spaces import cut, trace

KEPT = {"conv1": torch.tensor([0, 2, 5]), "conv2": torch.tensor([1, 3])}


def scratch_start(dense_seed: int, seed: int) -> nn.Module:
    """A dense network with its own weights and statistics, cut and made fresh."""
    task = toy_task(dense_seed)
    nn.init.uniform_(task.model.bn1.running_mean, -dense_seed - 1, dense_seed + 1)
    small = cut(task.model, trace(task.model, task.example_inputs), KEPT)
    fresh(small, task, seed)
    return small


def test_nothing_of_the_inherited_weights_is_left() -> None:
    one, other = scratch_start(dense_seed=0, seed=3), scratch_start(dense_seed=1, seed=3)
    assert one.conv1.weight.shape == (3, 1, 3, 3)
    assert same_state(state(one), state(other))
    for model in (one, other):
        train(model, toy_task(), epochs=1, lr=0.1, seed=0, precision=PLAIN)
    assert same_state(state(one), state(other))


def test_what_a_parent_sets_in_its_children_has_the_last_word() -> None:
    class ZeroOut(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(3, 2)
            self.reset_parameters()

        def reset_parameters(self) -> None:
            nn.init.zeros_(self.inner.weight)

    model = nn.Sequential(ZeroOut())
    fresh(model, toy_task(), seed=0)
    assert model[0].inner.weight.abs().sum() == 0
    assert model[0].inner.bias.abs().sum() > 0


def test_the_seed_decides_the_weights() -> None:
    assert not same_state(state(scratch_start(0, seed=3)), state(scratch_start(0, seed=4)))


def test_the_callers_random_state_is_neither_used_nor_touched() -> None:
    torch.manual_seed(1)
    one = scratch_start(0, seed=3)
    torch.manual_seed(2)
    before = torch.get_rng_state()
    model = toy_model()
    fresh(model, toy_task(), 3)
    assert torch.equal(before, torch.get_rng_state())
    assert same_state(state(one), state(scratch_start(0, seed=3)))


def test_batchnorm_starts_over() -> None:
    model = scratch_start(0, seed=3)
    assert model.bn1.running_mean.tolist() == [0.0] * 3
    assert model.bn1.running_var.tolist() == [1.0] * 3
    assert model.bn1.weight.tolist() == [1.0] * 3


def test_the_tasks_own_initialisation_has_the_last_word() -> None:
    model = toy_model()
    fresh(model, toy_task(initialise=lambda m: nn.init.constant_(m.conv1.weight, 0.25)), 0)
    assert (model.conv1.weight == 0.25).all()
    assert not (model.conv2.weight == 0.25).any()


class WithToken(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.ones(3))
        self.head = nn.Linear(3, 3)


def test_a_parameter_that_nothing_draws_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match=r"no `reset_parameters` draws token anew; give `Task.initialise`"):
        fresh(WithToken(), toy_task(), 0)


def test_initialise_may_draw_what_reset_parameters_does_not() -> None:
    model = WithToken()
    fresh(model, toy_task(initialise=lambda m: nn.init.normal_(m.token)), 0)
    assert model.token.isfinite().all()


@pytest.mark.parametrize(("pruned_macs", "epochs"), [(100, 10.0), (80, 12.5), (50, 20.0), (25, 20.0)])
def test_scratch_b_spends_the_dense_compute_up_to_twice_the_epochs(pruned_macs: int, epochs: float) -> None:
    assert scratch_b_epochs(10, dense_macs=100, pruned_macs=pruned_macs) == epochs


def test_the_cap_of_scratch_b_can_be_lifted() -> None:
    assert scratch_b_epochs(10, dense_macs=100, pruned_macs=25, cap=float("inf")) == 40
