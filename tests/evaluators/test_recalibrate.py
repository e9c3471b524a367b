from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from toys import PLAIN, same_state, state, toy_data, toy_model

from evaluators.recalibrate import recalibrate

IMAGES, TARGETS = toy_data(50, seed=5)
#: Of unequal sizes, so that a mean of batch means would be wrong.
BATCHES = [(IMAGES[:32], TARGETS[:32]), (IMAGES[32:], TARGETS[32:])]


def test_statistics_are_those_of_all_samples_pooled() -> None:
    model = toy_model()
    recalibrate(model, BATCHES, PLAIN)
    seen = model.conv1(IMAGES).double()
    torch.testing.assert_close(
        model.bn1.running_mean.double(), seen.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.bn1.running_var.double(), seen.var(dim=(0, 2, 3), correction=0), rtol=1e-5, atol=1e-6
    )


def test_deeper_layers_see_inputs_normalised_by_each_batch() -> None:
    model = toy_model()
    recalibrate(model, BATCHES, PLAIN)
    reference = toy_model().train()
    seen = torch.cat(
        [reference.conv2(torch.relu(reference.bn1(reference.conv1(x)))) for x, _ in BATCHES]
    ).double()
    torch.testing.assert_close(
        model.bn2.running_mean.double(), seen.mean(dim=(0, 2, 3)), rtol=1e-5, atol=1e-6
    )
    torch.testing.assert_close(
        model.bn2.running_var.double(), seen.var(dim=(0, 2, 3), correction=0), rtol=1e-5, atol=1e-6
    )


def test_the_old_statistics_do_not_matter_even_when_they_are_nan() -> None:
    model, broken = toy_model(), toy_model()
    nn.init.constant_(broken.bn1.running_var, torch.nan)
    for each in (model, broken):
        recalibrate(each, BATCHES, PLAIN)
    assert same_state(state(model), state(broken))


@pytest.mark.parametrize("momentum", [0.1, None])
def test_modes_momenta_and_weights_are_restored(momentum: float | None) -> None:
    model = toy_model().train()
    model.bn2.eval()
    model.bn1.momentum = momentum
    before = [p.clone() for p in model.parameters()]
    recalibrate(model, BATCHES, PLAIN)
    assert [model.training, model.bn1.training, model.bn2.training] == [True, True, False]
    assert model.bn1.momentum == momentum
    assert not model.bn1._forward_hooks
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_dropout_is_off_and_no_random_number_is_drawn() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm2d(1)).train()
    before = torch.get_rng_state()
    recalibrate(model, BATCHES, PLAIN)
    torch.testing.assert_close(model[1].running_mean, IMAGES.mean().reshape(1))
    assert torch.equal(before, torch.get_rng_state())


def test_every_dimension_of_batchnorm_is_covered() -> None:
    class Flat(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm1d, self.norm3d = nn.BatchNorm1d(36), nn.BatchNorm3d(1)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm1d(x.flatten(1)).sum() + self.norm3d(x[:, None]).sum()

    model = Flat()
    recalibrate(model, BATCHES, PLAIN)
    torch.testing.assert_close(model.norm1d.running_mean, IMAGES.flatten(1).mean(dim=0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(model.norm3d.running_mean, IMAGES.mean().reshape(1), rtol=1e-5, atol=1e-6)


def test_a_layer_that_no_batch_reaches_stays_and_a_failure_leaves_no_hook() -> None:
    model = toy_model()
    model.spare = nn.BatchNorm2d(3)
    nn.init.constant_(model.spare.running_mean, 7.0)
    recalibrate(model, BATCHES, PLAIN)
    assert model.spare.running_mean.tolist() == [7.0, 7.0, 7.0]
    before = state(model)
    with pytest.raises(RuntimeError):
        recalibrate(model, [(torch.zeros(4, 2, 6, 6), TARGETS[:4])], PLAIN)
    assert not model.bn1._forward_hooks
    assert model.bn1.momentum == 0.1
    assert torch.equal(before["bn1.running_mean"], model.bn1.running_mean)


def test_a_network_without_batchnorm_is_not_even_run() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1))
    recalibrate(model, BATCHES, PLAIN)  # would fail on 36 features


def test_cutting_statistics_wrong_and_recalibrating_restores_the_outputs() -> None:
    model = toy_model()
    recalibrate(model, BATCHES, PLAIN)
    wanted = model(IMAGES)
    nn.init.uniform_(model.bn1.running_mean, -3, 3)
    nn.init.uniform_(model.bn2.running_var, 1, 9)
    assert not torch.allclose(model(IMAGES), wanted)
    recalibrate(model, BATCHES, PLAIN)
    assert torch.equal(model(IMAGES), wanted)
