from __future__ import annotations

import copy

import nets
import numpy as np
import pytest
import torch
from torch import nn

from spaces import Architecture, cut, trace
from spaces.slots import components
from spaces.surgery import masked
from spaces.trial_cuts import random_kept


def shapes(model: nn.Module, example: torch.Tensor) -> dict[str, tuple[int, int]]:
    return {group.name: (group.width, group.unit_channels) for group in trace(model, example).groups}


def members(model: nn.Module, example: torch.Tensor, group: str) -> dict[tuple[str, int], str]:
    found = next(g for g in trace(model, example).groups if g.name == group)
    return {(member.tensor, member.dim): member.role for member in found.members}


def test_every_tensor_that_a_channel_touches_is_a_member_with_its_role() -> None:
    assert members(nets.Plain(), nets.IMAGE, "conv1") == {
        ("conv1.weight", 0): "output",
        ("conv1.bias", 0): "bias",
        ("norm1.weight", 0): "scale",
        ("norm1.bias", 0): "bias",
        ("norm1.running_mean", 0): "statistic",
        ("norm1.running_var", 0): "statistic",
        ("conv2.weight", 1): "input",
    }


def test_a_channel_that_is_flattened_owns_a_column_per_position() -> None:
    group = next(g for g in trace(nets.Plain(), nets.IMAGE).groups if g.name == "conv2")
    linear = next(member for member in group.members if member.tensor == "head.weight")
    assert group.unit_channels == 1
    np.testing.assert_array_equal(linear.slots, np.arange(6 * 16).reshape(6, 16))


def test_what_is_added_goes_together() -> None:
    assert shapes(nets.Residual(), nets.IMAGE) == {"stem": (8, 1), "inner": (12, 1)}
    assert members(nets.Residual(), nets.IMAGE, "stem") == {
        ("stem.weight", 0): "output",
        ("stem.bias", 0): "bias",
        ("inner.weight", 1): "input",
        ("outer.weight", 0): "output",
        ("outer.bias", 0): "bias",
        ("head.weight", 1): "input",
    }


def test_a_conv_group_is_one_unit() -> None:
    assert shapes(nets.Grouped(), nets.IMAGE) == {"enter": (4, 2)}


def test_zero_padded_channels_stay_and_the_others_go_with_their_shortcut() -> None:
    assert shapes(nets.OptionA(), nets.IMAGE) == {"stem": (8, 1)}


def test_a_tied_weight_ties_its_dimensions() -> None:
    assert shapes(nets.Tied(), nets.VECTOR) == {"enter": (10, 1)}


def test_a_shuffle_and_a_split_leave_units_that_keep_both_halves_equal() -> None:
    (group,) = trace(nets.Shuffled(), nets.IMAGE).groups
    assert group.name == "stem"
    assert group.width >= 2


def test_a_head_that_only_trains_is_coupled_too() -> None:
    assert ("aux.weight", 1) in members(nets.AuxiliaryHead(), nets.VECTOR, "stem")


def test_an_operator_without_a_rule_freezes_its_input_and_is_named() -> None:
    space = trace(nets.Extended(), nets.VECTOR)
    assert space.groups == ()
    assert any("nets.reverse" in warning for warning in space.warnings)
    frozen = {one.name: one for one in space.frozen}
    assert frozen["enter"].operator == "nets.reverse.default"
    assert frozen["enter"].line is not None
    assert frozen["enter"].line.startswith("nets.py:")
    assert frozen["head"].reason == "output of the model"


def test_a_group_whose_cut_can_not_run_is_frozen_and_named() -> None:
    space = trace(nets.Baked(), nets.VECTOR)
    assert "enter" not in [group.name for group in space.groups]
    assert {"head", "free"} >= {group.name for group in space.groups} > set()
    assert any("enter" in warning for warning in space.warnings)


def test_a_cut_that_is_silently_wrong_is_frozen() -> None:
    class MeanOverChannels(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter = nn.Linear(6, 8)
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.enter(x).relu()
            return self.head(x / x.shape[1])  # the width enters the numbers through Python

    assert trace(MeanOverChannels(), nets.VECTOR).groups == ()


def test_a_norm_over_channels_makes_a_group_inexact() -> None:
    (group,) = trace(nets.Normed(), nets.VECTOR).groups
    assert not group.exact


@pytest.mark.parametrize("name", nets.EXACT)
def test_the_callers_model_and_random_state_stay_as_they_were(name: str) -> None:
    build, example = nets.EXACT[name]
    model = build().train()
    before, state = copy.deepcopy(model.state_dict()), torch.random.get_rng_state()
    trace(model, example)
    assert model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    for key, value in model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_model_that_does_not_run_says_so() -> None:
    with pytest.raises(ValueError, match="does not run on `example_inputs`"):
        trace(nets.Plain(), torch.zeros(1, 5, 4, 4))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divisor": 0}, "`divisor` must be at least 1"),
        ({"smallest": 1.5}, r"`smallest` must be in \[0, 1\]"),
    ],
)
def test_options_are_checked(options: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        trace(nets.Plain(), nets.IMAGE, **options)  # type: ignore[arg-type]


def test_include_and_exclude_take_patterns() -> None:
    def names(**options: list[str]) -> list[str]:
        return [group.name for group in trace(nets.Plain(), nets.IMAGE, **options).groups]

    assert names() == ["conv1", "conv2"]
    assert names(include=["*1"]) == ["conv1"]
    assert names(exclude=["*1"]) == ["conv2"]


def test_inputs_may_be_a_tuple_or_a_dict() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return self.head((self.a(x) * self.b(y)).relu())

    by_tuple = trace(TwoInputs(), (nets.VECTOR, nets.VECTOR))
    by_name = trace(TwoInputs(), {"y": nets.VECTOR, "x": nets.VECTOR})
    assert [g.name for g in by_tuple.groups] == [g.name for g in by_name.groups] == ["a"]


class TwoKinds(nn.Module):
    """The units of ``c1`` fall into two groups, the second of which can not be cut."""

    def __init__(self) -> None:
        super().__init__()
        self.c1, self.a, self.b = nn.Conv2d(3, 12, 1), nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1)
        self.head = nn.Conv2d(12, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        b = self.b(x)
        return self.head((self.c1(x) + torch.cat([self.a(x), b * b.shape[1]], dim=1)).relu())


def test_of_two_groups_of_one_tensor_only_the_wrong_one_is_frozen() -> None:
    space = trace(TwoKinds(), nets.IMAGE)
    assert [group.name for group in space.groups] == ["c1"]
    assert any("c1#2" in warning for warning in space.warnings)
    assert [g.name for g in trace(TwoKinds(), nets.IMAGE, exclude=["c1"]).groups] == []


def test_groups_that_are_wrong_only_together_are_frozen_beside_one_that_is_wrong_alone() -> None:
    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.c, self.b = (nn.Linear(6, 8) for _ in range(3))
            self.heads = nn.ModuleList([nn.Linear(8, 2) for _ in range(3)])

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            a, c, b = self.a(x).relu(), self.c(x).relu(), self.b(x).relu()
            scale = 2.0 if a.shape[1] < 8 and b.shape[1] < 8 else 1.0
            return scale * (self.heads[0](a) + self.heads[1](c / c.shape[1]) + self.heads[2](b))

    names = [group.name for group in trace(Together(), nets.VECTOR).groups]
    assert "c" not in names
    assert not {"a", "b"} <= set(names)


def test_macs_are_counted_once_when_the_meta_device_fails_on_the_way() -> None:
    class LooksAtNumbers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.enter(x)
            return self.head(x.relu() if x.sum().item() > -1e9 else x)

    space = trace(LooksAtNumbers(), nets.VECTOR)
    assert space.macs(space.dense) == 6 * 8 + 8 * 3


def test_a_model_that_does_not_run_in_float64_is_verified_in_its_own_arithmetic() -> None:
    class Stubborn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.enter(x).float().relu())

    assert [group.name for group in trace(Stubborn(), nets.VECTOR).groups] == ["enter"]


def test_scalar_and_integer_parameters_are_counted_and_left_alone() -> None:
    model = nets.Plain()
    model.temperature = nn.Parameter(torch.tensor(2.0))
    model.steps = nn.Parameter(torch.arange(3), requires_grad=False)
    space = trace(model, nets.IMAGE)
    assert space.params(space.dense) == sum(p.numel() for p in model.parameters())


def test_a_cut_that_can_not_train_is_frozen() -> None:
    class FixedHead(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.aux, self.head = nn.Linear(6, 8), nn.Linear(4, 3), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
            x = self.enter(x).relu()
            return (self.head(x), self.aux(x.view(-1, 4))) if self.training else self.head(x)

    assert trace(FixedHead(), nets.VECTOR).groups == ()


def test_a_model_that_keeps_an_activation_is_traced() -> None:
    model = nets.Residual()
    model.last = model.stem(nets.IMAGE)  # not a leaf: copy.deepcopy refuses it
    assert [group.name for group in trace(model, nets.IMAGE).groups] == ["stem", "inner"]


def test_an_input_without_a_batch_is_traced() -> None:
    class OneImage(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 2, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.enter(x).relu())

    assert [group.name for group in trace(OneImage(), nets.IMAGE[0]).groups] == ["enter"]


@pytest.mark.parametrize(
    ("layers", "shape"),
    [
        ([nn.Conv1d(3, 8, 3), nn.AvgPool1d(2), nn.Conv1d(8, 2, 1)], (2, 3, 9)),
        ([nn.Conv3d(3, 8, 1), nn.MaxPool3d(2), nn.Conv3d(8, 2, 1)], (2, 3, 4, 4, 4)),
        ([nn.Conv2d(3, 8, 1), nn.ConvTranspose2d(8, 6, 3), nn.Conv2d(6, 2, 1)], (2, 3, 4, 4)),
        ([nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 6, 3, groups=2), nn.Conv2d(6, 2, 1)], (2, 3, 4, 4)),
        ([nn.Conv2d(3, 8, 1), nn.LocalResponseNorm(3), nn.Conv2d(8, 2, 1)], (2, 3, 4, 4)),
        ([nn.Conv2d(3, 8, 1), nn.GroupNorm(2, 8), nn.Conv2d(8, 2, 1)], (2, 3, 4, 4)),
    ],
    ids=["conv1d", "conv3d", "transposed", "transposed-grouped", "lrn", "group-norm"],
)
def test_other_layers_trace_and_cuts_equal_the_masked_network(
    layers: list[nn.Module], shape: tuple[int, ...]
) -> None:
    model, example = nn.Sequential(*layers).double().eval(), torch.randn(shape).double()
    space = trace(model, example)
    kept = random_kept(space.groups, torch.Generator().manual_seed(0))
    torch.testing.assert_close(cut(model, space, kept)(example), masked(model, space, kept)(example))
    small = cut(model, space, kept)
    assert space.params(Architecture.of({g.name: len(kept[g.name]) for g in space.groups})) == sum(
        p.numel() for p in small.parameters()
    )


def test_components_are_named_by_their_smallest_label() -> None:
    rng = np.random.default_rng(0)
    left, right = rng.integers(0, 60, size=(2, 40))
    expected = list(range(60))
    for _ in range(60):  # slow reference: spread the smallest label until nothing moves
        for a, b in zip(left, right, strict=True):
            expected[a] = expected[b] = min(expected[a], expected[b])
    np.testing.assert_array_equal(components(60, left, right), expected)
