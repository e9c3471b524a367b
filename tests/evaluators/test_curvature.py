from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from toys import PLAIN, Toy, gated, group, toy_data, toy_model, toy_task

from evaluators.statistics.curvature import curvature
from spaces import trace

if TYPE_CHECKING:
    from collections.abc import Callable

    from evaluators.task import Batch

GROUPS = (group("conv1", 6, input=[("conv2.weight", 1)]), group("conv2", 4, input=[("head.weight", 1)]))
IMAGE = torch.zeros(1, 1, 6, 6, dtype=torch.float64)


def float64_data(samples: int, cuts: tuple[int, ...] = (16,)) -> list[Batch]:
    x, y = toy_data(samples, seed=5)
    edges = [0, *cuts, samples]
    return [(x[i:j].double(), y[i:j]) for i, j in pairwise(edges)]


def found(model: nn.Module, batches: list[Batch], num_probes: int, **task: object) -> Tensor:
    """Of all groups, in one vector."""
    task = toy_task(model=model, example_inputs=IMAGE, **task)
    values = curvature(task, trace(model, IMAGE), batches, PLAIN, seed=0, num_probes=num_probes)
    return torch.cat([*values.values()])


def second_differences(
    model: nn.Module, batches: list[Batch], loss: Callable[..., Tensor], step: float = 1e-4
) -> Tensor:
    x, y = torch.cat([x for x, _ in batches]), torch.cat([y for _, y in batches])

    def at(gates: Tensor) -> float:
        with torch.no_grad(), gated(model, GROUPS, {"conv1": gates[:6], "conv2": gates[6:]}):
            return float(loss(model(x), y))

    ones = torch.ones(10, dtype=torch.float64)
    both = [at(ones - step * unit) + at(ones + step * unit) for unit in torch.eye(10, dtype=torch.float64)]
    return (torch.tensor(both, dtype=torch.float64) - 2 * at(ones)) / step**2


def brier(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss with a Hessian that is not positive."""
    return (outputs.softmax(dim=1) - F.one_hot(targets, 3)).square().sum(dim=1).mean()


@pytest.mark.parametrize("loss", [F.cross_entropy, brier])
def test_it_equals_second_differences_of_a_rectifier_network(loss: Callable[..., Tensor]) -> None:
    model, batches = toy_model().double(), float64_data(24)
    wanted = second_differences(model, batches, loss)
    torch.testing.assert_close(found(model, batches, 3, loss=loss), wanted, rtol=1e-3, atol=1e-6)


class Smooth(Toy):
    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.bn1(self.conv1(x)))
        x = torch.tanh(self.bn2(self.conv2(x)))
        return self.head(x.mean(dim=(2, 3)))


def test_it_is_the_gauss_newton_part_of_a_smooth_network() -> None:
    model = Smooth()
    model.load_state_dict(toy_model().state_dict())
    model, batches = model.double().eval(), float64_data(8, cuts=())
    (x, y), wanted = batches[0], torch.zeros(10, dtype=torch.float64)
    for sample in range(8):

        def outputs(gates: Tensor, one: Tensor = x[sample : sample + 1]) -> Tensor:
            with gated(model, GROUPS, {"conv1": gates[:6], "conv2": gates[6:]}):
                return model(one)[0]

        ones = torch.ones(10, dtype=torch.float64)
        jacobian = torch.autograd.functional.jacobian(outputs, ones)
        shares = outputs(ones).softmax(dim=0)
        hessian = torch.diag(shares) - torch.outer(shares, shares)
        wanted += (jacobian.T @ hessian @ jacobian).diagonal() / 8
    torch.testing.assert_close(found(model, [(x, y)], 3), wanted, rtol=1e-6, atol=1e-12)


class OneNumber(Toy):
    """A regression network: its outputs have no dimension beside that of the samples."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x)[:, 0]


def test_outputs_may_be_one_number_per_sample() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets.double()).square().mean()

    model, batches = OneNumber(), float64_data(24)
    model.load_state_dict(toy_model().state_dict())
    model = model.double().eval()
    wanted = second_differences(model, batches, loss)
    torch.testing.assert_close(found(model, batches, 3, loss=loss), wanted, rtol=1e-3, atol=1e-6)


def test_fewer_probes_take_the_largest_directions() -> None:
    model, batches = toy_model().double(), float64_data(24)
    one, two, all_of_them = (found(model, batches, count) for count in (1, 2, 3))
    assert (one < two).all()
    # The shares of three classes add up to one: two directions say everything.
    torch.testing.assert_close(two, all_of_them)


class Flattened(nn.Module):
    """Maps are flattened before they are read, nine columns per unit, by two layers; many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 3, 4)
        self.one, self.other = nn.Linear(27, 20), nn.Linear(27, 30)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv(x)).flatten(1)
        return torch.cat([self.one(x), self.other(x)], dim=1)


@pytest.mark.parametrize(("num_probes", "tolerance"), [(50, 1e-6), (32, 0.02)])
def test_it_adds_up_over_slots_and_readers_and_sketches_many_outputs(
    num_probes: int, tolerance: float
) -> None:
    torch.manual_seed(0)
    model = Flattened().double().eval()
    ((x, y),) = float64_data(12, cuts=())
    with torch.no_grad():
        model.one.bias[:3] += 8  # it wavers between three of the fifty classes

    def loss(gates: Tensor) -> Tensor:
        maps = torch.relu(model.conv(x)) * gates[:, None, None]
        return F.cross_entropy(torch.cat([model.one(maps.flatten(1)), model.other(maps.flatten(1))], 1), y)

    wanted = torch.autograd.functional.hessian(loss, torch.ones(3, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(found(model, [(x, y)], num_probes), wanted, rtol=tolerance, atol=0)


class FirstOrder(torch.autograd.Function):
    """As operators do that torch can differentiate only once."""

    @staticmethod
    def forward(_: torch.autograd.function.FunctionCtx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(_: torch.autograd.function.FunctionCtx, gradient: Tensor) -> Tensor:
        if gradient.requires_grad:
            raise RuntimeError("the derivative for 'x' is not implemented")
        return gradient


class DifferentiableOnce(Toy):
    def forward(self, x: Tensor) -> Tensor:
        return FirstOrder.apply(super().forward(x))


def test_a_unit_has_a_channel_in_every_conv_group_that_becomes_narrower() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 12, 3), nn.ReLU(), nn.Conv2d(12, 4, 3, groups=2), nn.Flatten())
    model = nn.Sequential(*model, nn.Linear(16, 3)).double().eval()
    ((x, y),) = float64_data(12, cuts=())

    def loss(gates: Tensor) -> Tensor:
        return F.cross_entropy(model[2:](model[:2](x) * gates.tile(2)[:, None, None]), y)

    wanted = torch.autograd.functional.hessian(loss, torch.ones(6, dtype=torch.float64)).diagonal()
    torch.testing.assert_close(found(model, [(x, y)], 3)[:6], wanted, rtol=1e-6, atol=1e-12)


def test_the_network_is_differentiated_but_once() -> None:
    model, batches = DifferentiableOnce(), float64_data(24)
    model.load_state_dict(toy_model().state_dict())
    torch.testing.assert_close(
        found(model.double().eval(), batches, 3), found(toy_model().double(), batches, 3)
    )


def test_a_loss_that_can_be_differentiated_once_has_no_curvature(caplog: pytest.LogCaptureFixture) -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(FirstOrder.apply(outputs.exp()), targets)

    task = toy_task(loss=loss)
    assert curvature(task, trace(task.model, task.example_inputs), [*task.calibration], PLAIN, 0) == {}
    assert "The loss of task toy has no second derivatives: the derivative for 'x'" in caplog.text


def test_a_linear_loss_has_none() -> None:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return outputs.gather(1, targets[:, None]).mean()

    assert found(toy_model().double(), float64_data(24), 3, loss=loss).tolist() == [0.0] * 10


class Behind(Toy):
    """Uses a layer's weights without running the layer."""

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.bn1(self.conv1(x)))
        x = torch.relu(self.bn2(F.conv2d(x, self.conv2.weight, padding=1)))
        return self.head(x.mean(dim=(2, 3)))


def test_a_group_whose_readers_can_not_be_watched_is_left_out() -> None:
    task = toy_task(model=Behind().eval())
    values = curvature(task, trace(task.model, task.example_inputs), [*task.calibration], PLAIN, 0)
    assert list(values) == ["conv2"]
