"""Sensitivities on a hand-made space, where the loss of every network is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from evaluators.sensitivity import sensitivities
from spaces.cost import CostBuilder
from spaces.groups import ChannelGroup
from spaces.space import Space


class Cut(nn.Module):
    """Remembers what was kept."""

    def __init__(self, kept):
        super().__init__()
        self.kept = kept


class Measured:
    """A loss by the units that stay, and the networks that it was asked for."""

    def __init__(self, loss):
        self._loss, self.asked = loss, []

    def __call__(self, model):
        self.asked.append({name: units.tolist() for name, units in model.kept.items()})
        return self._loss(model.kept)


def make_space(widths, divisor=1, prices=None):
    n = len(widths)
    groups = tuple(ChannelGroup(f"g{i}", width, divisor, 1, ()) for i, width in enumerate(widths))
    macs = CostBuilder(n)
    for i, price in enumerate(prices or (1,) * n):
        macs.add(price, [(0, tuple(int(i == j) for j in range(n)))])
    return Space(groups, macs.build(), macs.build())


def orders_of(space):
    return {g.name: torch.arange(g.width - 1, -1, -1) for g in space.groups}


def removed(space):
    """A loss of 1 and a tenth of the units that are gone, times the number of the group and one."""

    def loss(kept):
        gone = {g.name: g.width - len(kept.get(g.name, range(g.width))) for g in space.groups}
        return 1 + 0.1 * sum((i + 1) * gone[g.name] for i, g in enumerate(space.groups))

    return loss


def test_each_group_is_cut_alone_and_keeps_its_best_units() -> None:
    space = make_space((4, 3))
    loss = Measured(removed(space))
    found = sensitivities(space, Cut, orders_of(space), loss)
    assert loss.asked == [
        {},
        *({"g0": list(range(4 - k, 4))} for k in (1, 2, 3)),
        *({"g1": list(range(3 - k, 3))} for k in (1, 2)),
    ]
    assert found["g0"].tolist() == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert found["g1"].tolist() == pytest.approx([0.4, 0.2, 0.0])
    assert all(values.dtype == torch.float64 for values in found.values())


def test_widths_between_the_measured_ones_are_interpolated() -> None:
    space = make_space((13,))
    square = {k: (13 - k) ** 2 for k in range(14)}
    loss = Measured(lambda kept: square[len(kept.get("g0", range(13)))])
    found = sensitivities(space, Cut, orders_of(space), loss, most_per_group=4)["g0"]
    assert [len(kept["g0"]) for kept in loss.asked[1:]] == [1, 4, 7, 10]
    assert found.tolist() == pytest.approx(np.interp(range(1, 14), [1, 4, 7, 10, 13], [144, 81, 36, 9, 0]))


def test_groups_with_one_width_or_without_an_order_are_skipped() -> None:
    space = make_space((4, 1, 4))
    orders = orders_of(space)
    del orders["g2"]
    assert list(sensitivities(space, Cut, orders, Measured(removed(space)))) == ["g0"]


def test_all_measurements_together_are_capped_and_the_costliest_groups_come_first() -> None:
    space = make_space((9,) * 10, prices=(1, 9, 2, 8, 3, 7, 4, 6, 5, 5))
    fewer = Measured(removed(space))
    found = sensitivities(space, Cut, orders_of(space), fewer, most=30)
    assert list(found) == [f"g{i}" for i in range(10)]
    assert len(fewer.asked) == 1 + 30
    fewest = Measured(removed(space))
    found = sensitivities(space, Cut, orders_of(space), fewest, most=9)
    assert list(found) == ["g1", "g3", "g5", "g7"]
    assert len(fewest.asked) == 1 + 8
    assert {len(kept["g3"]) for kept in fewest.asked if "g3" in kept} == {1, 5}


def test_a_cut_that_lowers_the_loss_does_no_damage() -> None:
    space = make_space((4,))
    found = sensitivities(space, Cut, orders_of(space), Measured(lambda kept: 1.0 - 0.1 * len(kept)))
    assert found["g0"].tolist() == [0.0] * 4


def test_a_loss_that_is_not_finite_counts_as_the_worst_one() -> None:
    space = make_space((4, 4))

    def loss(kept):
        return math.nan if len(kept.get("g0", [0] * 4)) == 1 else removed(space)(kept)

    found = sensitivities(space, Cut, orders_of(space), loss=lambda model: loss(model.kept))
    assert found["g0"].tolist() == pytest.approx([0.6, 0.2, 0.1, 0.0])


def test_a_dense_loss_that_is_not_finite_is_refused() -> None:
    space = make_space((4,))
    with pytest.raises(FloatingPointError, match="loss of the dense network is inf"):
        sensitivities(space, Cut, orders_of(space), lambda _: math.inf)
