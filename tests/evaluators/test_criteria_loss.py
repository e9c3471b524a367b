"""Criteria of the loss against finite differences, those of activations against counting by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import gated, group, slow_statistics, toy_data, toy_model

from evaluators.criteria import CRITERIA, ScoringContext
from evaluators.statistics.records import Statistics

CONV1 = group("conv1", 6, output=[("conv1.weight", 0)], input=[("conv2.weight", 1)])
CONV2 = group("conv2", 4, output=[("conv2.weight", 0)], input=[("head.weight", 1)])
STEP = 1e-6


@pytest.fixture(scope="module")
def dense() -> tuple[nn.Module, Tensor, Tensor, ScoringContext]:
    """In float64, so that differences of 1e-6 mean something."""
    model = toy_model().double()
    x, y = toy_data(20, seed=9)
    statistics = slow_statistics(model, [(x.double(), y)], (CONV1, CONV2))
    return model, x.double(), y, ScoringContext(model.state_dict(), statistics, 0)


def differences_by_gates(model: nn.Module, x: Tensor, y: Tensor, unit: int) -> Tensor:
    """``(samples,)`` each sample's loss, by the gate of a unit of the first group."""
    losses = []
    for sign in (-1, 1):
        gates = torch.ones(6, dtype=torch.float64)
        gates[unit] += sign * STEP
        with torch.no_grad(), gated(model, [CONV1], {"conv1": gates}):
            losses.append(F.cross_entropy(model(x), y, reduction="none"))
    return (losses[1] - losses[0]) / (2 * STEP)


@pytest.mark.parametrize("unit", range(6))
def test_taylor_and_fisher_equal_finite_differences(
    dense: tuple[nn.Module, Tensor, Tensor, ScoringContext], unit: int
) -> None:
    model, x, y, context = dense
    slopes = differences_by_gates(model, x, y, unit)
    taylor, fisher = (CRITERIA[name](context, CONV1)[unit] for name in ("taylor", "fisher"))
    torch.testing.assert_close(taylor, slopes.mean() ** 2, rtol=1e-5, atol=1e-13)
    torch.testing.assert_close(fisher, slopes.square().mean() / 2, rtol=1e-5, atol=1e-13)


@pytest.mark.parametrize("unit", [0, 3])
def test_criteria_of_weights_equal_finite_differences(
    dense: tuple[nn.Module, Tensor, Tensor, ScoringContext], unit: int
) -> None:
    model, x, y, context = dense
    filters = model.conv1.weight.data[unit].view(-1)
    slopes = []
    for place in range(len(filters)):
        losses = []
        for sign in (-1, 1):
            before = float(filters[place])
            filters[place] = before + sign * STEP
            with torch.no_grad():
                losses.append(float(F.cross_entropy(model(x), y)))
            filters[place] = before
        slopes.append((losses[1] - losses[0]) / (2 * STEP))
    found = torch.tensor(slopes, dtype=torch.float64)
    norm, taylor = (CRITERIA[name](context, CONV1)[unit] for name in ("gradient_norm", "taylor_weights"))
    torch.testing.assert_close(norm, found.norm(), rtol=1e-5, atol=0)
    torch.testing.assert_close(taylor, (found * filters).square().sum(), rtol=1e-5, atol=0)


def test_hessian_is_half_the_curvature() -> None:
    statistics = Statistics(curvature={"conv1": torch.tensor([3.0, -1.0, 0, 0, 0, 8])})
    assert CRITERIA["hessian"](ScoringContext({}, statistics, 0), CONV1).tolist() == [1.5, -0.5, 0, 0, 0, 4]


#: Three samples of two 2x2 maps, as they are read.
MAPS = torch.tensor(
    [
        [[[1, 0], [0, 3]], [[0, 0], [0, 0]]],  # ranks 2, 0; means 1, 0
        [[[1, 2], [2, 4]], [[0, 0], [0, -4]]],  # ranks 1, 1; means 2.25, -1
        [[[0, 0], [0, 0]], [[1, 1], [1, 1]]],  # ranks 0, 1; means 0, 1
    ],
    dtype=torch.float32,
)


@pytest.fixture(scope="module")
def by_hand() -> ScoringContext:
    model = nn.Sequential(nn.Conv2d(2, 3, 1), nn.Flatten())
    targets = torch.zeros(3, dtype=torch.long)
    return ScoringContext({}, slow_statistics(model, [(MAPS, targets)], [READ], bins=3), 0)


READ = group("read", 2, input=[("0.weight", 1)])


def test_hrank_is_the_mean_rank(by_hand: ScoringContext) -> None:
    assert CRITERIA["hrank"](by_hand, READ).tolist() == [1.0, 2 / 3]


def test_apoz_is_the_share_of_activations_that_are_not_zero(by_hand: ScoringContext) -> None:
    assert CRITERIA["apoz"](by_hand, READ).tolist() == pytest.approx([6 / 12, 5 / 12])


def test_activation_mean_is_of_absolute_values(by_hand: ScoringContext) -> None:
    assert CRITERIA["activation_mean"](by_hand, READ).tolist() == pytest.approx([13 / 12, 8 / 12])


def test_entropy_is_that_of_the_mean_activation_over_samples(by_hand: ScoringContext) -> None:
    # Thirds of [0, 2.25]: 0 | 1 | 2.25, one each; of [-1, 1]: -1 | 0 | 1.
    assert CRITERIA["entropy"](by_hand, READ).tolist() == pytest.approx([math.log(3)] * 2)
    layer = nn.Sequential(nn.Conv2d(2, 1, 1), nn.Flatten())
    two = ScoringContext({}, slow_statistics(layer, BINS, [READ], bins=2), 0)
    # Halves of [0, 2.25]: 0 and 1 | 2.25; the other unit is the same for all samples.
    wanted = -(2 / 3 * math.log(2 / 3) + 1 / 3 * math.log(1 / 3))
    assert CRITERIA["entropy"](two, READ).tolist() == pytest.approx([wanted, 0.0])


BINS = [(torch.stack([MAPS[:, 0], torch.ones(3, 2, 2)], dim=1), torch.zeros(3, dtype=torch.long))]
