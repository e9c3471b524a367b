"""The re-fit on the cut network's own activations, against least squares written out by hand."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck
from toys import (
    PLAIN,
    Branched,
    Grouped,
    Winding,
    every_site,
    first_units,
    randomised,
    same_state,
    state,
    toy_data,
    toy_model,
    unfolded,
)

from evaluators.precision import Precision
from evaluators.reconstruct import problem
from evaluators.reconstruct.careful import Lesson, refit_carefully
from evaluators.reconstruct.problem import Problem
from evaluators.reconstruct.solve import best_solution
from evaluators.statistics import targets
from evaluators.statistics.layers import find_layers
from spaces import Space, cut, trace
from spaces.surgery import kept_slots

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

INPUTS = toy_data(160, seed=4)[0].double()


@pytest.fixture
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All positions, and a ridge that is next to nothing."""
    monkeypatch.setattr(targets, "draw_sites", every_site)
    monkeypatch.setattr(problem, "best_solution", partial(best_solution, ridges=(1e-11,)))


def dense(made: nn.Module, inputs: Tensor = INPUTS) -> tuple[nn.Module, Space]:
    model = randomised(made).to(inputs.dtype)
    return model, trace(model, inputs[:1])


def lesson_of(model: nn.Module, inputs: Tensor = INPUTS, *, rectified: bool = True) -> Lesson:
    layers = find_layers(model, inputs)
    if not rectified:
        layers = {name: replace(layer, rectified=False) for name, layer in layers.items()}
    return Lesson.of(model, layers, inputs, seed=0)


def refitted(
    model: nn.Module, space: Space, kept: Mapping[str, Tensor], lesson: Lesson | None = None
) -> nn.Module:
    small = cut(model, space, kept)
    lesson = lesson or lesson_of(model)
    assert refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN) == []
    return small


def fitted(
    layer: nn.Module, inputs: Tensor, wanted: Tensor, *, constant: bool = True
) -> tuple[Tensor, Tensor]:
    """Least squares on three positions of four, centred by the means of all: weights and constant."""
    rows = unfolded(layer, inputs)[0][:, :-1]
    y = wanted.movedim(1, -1).flatten(0, -2)
    if not constant:
        solution = torch.linalg.lstsq(rows[fit_rows(rows)], y[fit_rows(rows)], driver="gelsd").solution
        return solution.T.reshape(-1, *layer.weight.shape[1:]), torch.zeros(y.shape[1], dtype=torch.float64)
    x_mean, y_mean = rows.mean(0), y.mean(0)
    chosen = fit_rows(rows)
    solution = torch.linalg.lstsq((rows - x_mean)[chosen], (y - y_mean)[chosen], driver="gelsd").solution
    return solution.T.reshape(-1, *layer.weight.shape[1:]), y_mean - x_mean @ solution


def fit_rows(rows: Tensor) -> Tensor:
    return torch.arange(len(rows)) % 4 != 3


def before_norm(norm: nn.Module, values: Tensor) -> Tensor:
    """What the norm maps to ``values``."""
    mean, shift = (t.detach()[:, None, None] for t in (norm.running_mean, norm.bias))
    gain = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()[:, None, None]
    return (values - shift) / gain + mean


def assert_near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.detach(), wanted, rtol=1e-5, atol=1e-7)


@pytest.mark.usefixtures("exact")
@torch.no_grad()
def test_a_chain_is_fitted_layer_by_layer_on_its_own_activations() -> None:
    torch.manual_seed(0)
    model, space = dense(Winding())
    kept = first_units(space)
    small = refitted(model, space, kept, lesson_of(model, rectified=False))
    raw = cut(model, space, kept)
    assert same_state(state(small.stem), state(raw.stem))
    assert same_state(state(small.norm), state(raw.norm))
    wide, x = (torch.relu(m.norm(m.stem(INPUTS))) for m in (model, raw))

    # Neither bias nor norm: nothing may be shifted.
    wide = model.bare(wide)
    weights, _ = fitted(raw.bare, x, wide[:, :3], constant=False)
    assert_near(small.bare.weight, weights)

    # A norm alone: its mean takes the constant.
    wide, x = model.middle(model.normed(torch.relu(wide))), torch.relu(small.bare(x))
    weights, constant = fitted(raw.normed, x, before_norm(raw.middle, wide[:, :2]))
    assert_near(small.normed.weight, weights)
    assert_near(small.middle.running_mean, raw.middle.running_mean - constant)

    # A bias takes the constant also where there is a norm.
    wide, x = model.last(model.both(torch.relu(wide))), torch.relu(small.middle(small.normed(x)))
    weights, constant = fitted(raw.both, x, before_norm(raw.last, wide[:, :2]))
    assert_near(small.both.weight, weights)
    assert_near(small.both.bias, constant)
    assert_near(small.last.running_mean, raw.last.running_mean)

    wide, x = torch.relu(wide).flatten(1), torch.relu(small.last(small.both(x))).flatten(1)
    weights, constant = fitted(raw.head, x, model.head(wide))
    assert_near(small.head.weight, weights)
    assert_near(small.head.bias, constant)


@pytest.mark.usefixtures("exact")
@torch.no_grad()
def test_at_a_sum_a_layer_makes_up_for_the_shortcut() -> None:
    torch.manual_seed(0)
    model, space = dense(Branched())
    kept = first_units(space)
    small = refitted(model, space, kept, lesson_of(model, rectified=False))
    raw = cut(model, space, kept)
    wide, x = (torch.relu(m.norm(m.stem(INPUTS))) for m in (model, raw))
    wide_inner, inner = model.inner(wide), small.inner(x)
    weights, constant = fitted(raw.inner, x, wide_inner[:, :2])
    assert_near(small.inner.weight, weights)
    assert_near(small.inner.bias, constant)

    total = (wide + model.outer_norm(model.outer(torch.relu(wide_inner))))[:, :3]
    weights, constant = fitted(raw.outer, torch.relu(inner), before_norm(raw.outer_norm, total - x))
    assert_near(small.outer.weight, weights)
    assert_near(small.outer.bias, constant)
    assert not torch.allclose(total - x, raw.outer_norm(raw.outer(torch.relu(raw.inner(x)))), atol=0.1)


@torch.no_grad()
def test_the_sums_of_the_cut_network_come_nearer_to_the_dense_ones() -> None:
    torch.manual_seed(0)
    model, space = dense(Branched())
    kept = first_units(space)
    raw, small = cut(model, space, kept), refitted(model, space, kept)
    fresh = toy_data(200, seed=9)[0].double()
    wanted, before, after = (m(fresh) for m in (model, raw, small))
    assert (after - wanted).square().mean() < 0.1 * (before - wanted).square().mean()


class Chain(nn.Module):
    """As the toy, with copies among the channels of both convolutions."""

    def __init__(self, *, in_float: bool = False) -> None:
        super().__init__()
        self.net = randomised(toy_model())
        with torch.no_grad():
            for conv, norm in ((self.net.conv1, self.net.bn1), (self.net.conv2, self.net.bn2)):
                half = len(conv.weight) // 2
                for tensor in (conv.weight, conv.bias, norm.weight, norm.bias, *norm.buffers()):
                    if tensor is not None and tensor.dim():
                        tensor[half:] = tensor[:half]
                norm.weight[half:] *= 1.7
                norm.bias[half:] *= 1.7
        self.to(torch.float32 if in_float else torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("in_float", [False, True])
@pytest.mark.parametrize("half", [0, 1])
@torch.no_grad()
def test_half_of_exact_linear_copies_go_for_nothing(
    monkeypatch: pytest.MonkeyPatch, in_float: bool, half: int
) -> None:
    ridges = (1e-6,) if in_float else (1e-11,)
    monkeypatch.setattr(problem, "best_solution", partial(best_solution, ridges=ridges))
    model = Chain(in_float=in_float).eval()
    inputs = INPUTS.float() if in_float else INPUTS
    space = trace(model, inputs[:1])
    kept = {g.name: torch.arange(g.width // 2) + half * (g.width // 2) for g in space.groups}
    small = refitted(model, space, kept, lesson_of(model, inputs))
    tolerance = 1e-3 if in_float else 1e-6
    torch.testing.assert_close(small(inputs), model(inputs), rtol=0, atol=tolerance)
    assert (cut(model, space, kept)(inputs) - model(inputs)).abs().max() > 10 * tolerance


def test_nothing_in_front_of_the_first_narrower_layer_changes() -> None:
    model, space = dense(toy_model())
    kept = {"conv2": torch.tensor([0, 3])}
    small, raw = state(refitted(model, space, kept)), state(cut(model, space, kept))
    changed = {name for name in raw if not torch.equal(raw[name], small[name])}
    assert changed == {"head.weight", "head.bias"}


@pytest.mark.parametrize("made", [toy_model, Branched, Winding, Grouped])
def test_a_network_that_lost_nothing_stays_as_it_is(made: Callable[[], nn.Module]) -> None:
    model, space = dense(made())
    assert same_state(state(refitted(model, space, {})), state(model))


def test_the_dense_network_and_the_lesson_stay_as_they_are() -> None:
    model, space = dense(Branched())
    model.train().norm.eval()
    before, lesson = state(model), lesson_of(model)
    values = {name: target.values.clone() for name, target in lesson.targets.items()}
    kept = first_units(space)
    first, again = (refitted(model, space, kept, lesson) for _ in range(2))
    assert same_state(state(first), state(again))
    assert same_state(before, state(model))
    assert (model.training, model.norm.training) == (True, False)
    assert all(torch.equal(values[name], target.values) for name, target in lesson.targets.items())
    assert torch.equal(lesson.inputs, INPUTS)
    assert clean(model)
    assert clean(first)


def clean(model: nn.Module) -> bool:
    """No hook, and no forward pass but the class's own."""
    return not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        for module in model.modules()
    )


class Fragile(Branched):
    """Fails between the last layer of the branch and the sum, when told to."""

    broken = False

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.outer_norm(self.outer(torch.relu(self.inner(x))))
        if self.broken:
            raise KeyboardInterrupt
        return self.head(torch.relu(x + y).mean((2, 3)))


def test_a_failure_half_way_leaves_no_hook_and_no_forward_pass_behind() -> None:
    model, space = dense(Fragile())
    lesson, kept = lesson_of(model), first_units(space)
    small = cut(model, space, kept)
    small.broken = True
    with pytest.raises(KeyboardInterrupt):
        refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN)
    assert clean(small)
    small.broken = False
    raw = cut(model, space, kept)
    raw.inner.load_state_dict(small.inner.state_dict())  # was fitted before the failure
    assert torch.equal(small(INPUTS), raw(INPUTS))


class Wandering(Branched):
    """Takes another way than the dense network did, when told to: its branch is never added."""

    alone = False

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.stem(x)))
        y = self.outer_norm(self.outer(torch.relu(self.inner(x))))
        return self.head(torch.relu(x if self.alone else x + y).mean((2, 3)))


def test_a_sum_that_never_comes_leaves_nothing_behind_either() -> None:
    model, space = dense(Wandering())
    lesson, kept = lesson_of(model), first_units(space)
    small = cut(model, space, kept)
    small.alone = True
    refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN)
    assert clean(small)
    raw = cut(model, space, kept)
    assert torch.equal(small.outer.weight, raw.outer.weight)


def test_inherited_weights_that_are_better_on_held_out_positions_stay() -> None:
    # What goes was never read: nothing is better than the weights as they are.
    model, space = dense(toy_model())
    with torch.no_grad():
        model.conv2.weight[:, 3:] = 0
        model.head.weight[:, 2:] = 0
    kept = first_units(space)
    small, raw = refitted(model, space, kept), cut(model, space, kept)
    assert torch.equal(small.conv2.weight, raw.conv2.weight)
    assert torch.equal(small.head.weight, raw.head.weight)
    torch.testing.assert_close(small(INPUTS), model(INPUTS))


def test_inherited_weights_get_the_constant_that_their_inputs_need(monkeypatch: pytest.MonkeyPatch) -> None:
    model, space = dense(toy_model())
    monkeypatch.setattr(problem, "squared_error", lambda *_: torch.zeros(1, 3))  # nothing is better
    kept = {"conv2": torch.tensor([0, 3])}
    small, raw = refitted(model, space, kept), cut(model, space, kept)
    assert torch.equal(small.head.weight, raw.head.weight)
    with torch.no_grad():
        missing = (model(INPUTS) - raw(INPUTS)).mean(0)
        torch.testing.assert_close(small.head.bias, raw.head.bias + missing)


def test_outputs_whose_norm_multiplies_by_nothing_keep_their_weights() -> None:
    model, space = dense(toy_model())
    with torch.no_grad():
        model.bn2.weight[1] = 0
        model.bn2.weight[2] = 1e-6
    kept = {"conv1": torch.arange(3)}
    small, raw = refitted(model, space, kept), cut(model, space, kept)
    same = (small.conv2.weight == raw.conv2.weight).flatten(1).all(1)
    assert same.tolist() == [False, True, True, False]
    assert (small.bn2.running_mean == raw.bn2.running_mean).tolist() == [False, True, True, False]
    assert all(tensor.isfinite().all() for tensor in state(small).values())


def test_a_layer_that_has_no_finite_fit_keeps_its_weights_and_is_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    model, space = dense(toy_model())
    lesson, kept = lesson_of(model), first_units(space)
    lesson.targets["conv2"].values[:, 0] = torch.nan
    small, raw = cut(model, space, kept), cut(model, space, kept)
    assert refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN) == ["conv2"]
    assert "no finite re-fit of conv2: inherited weights kept" in caplog.text
    assert same_state(state(small.conv2), state(raw.conv2))
    assert same_state(state(small.bn2), state(raw.bn2))
    assert not torch.equal(small.head.weight, raw.head.weight)


class OutOfPlace(BasicBlock):
    """The same block, written without in-place operators."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.downsample is None else self.downsample(x)))


def stages(block: type[BasicBlock | Bottleneck]) -> nn.Module:
    """Two identity shortcuts and a strided one that joins with a convolution."""
    torch.manual_seed(0)
    width = 6 * block.expansion
    down = nn.Sequential(nn.Conv2d(width, 2 * width, 1, 2, bias=False), nn.BatchNorm2d(2 * width))
    blocks = [block(width, 6), block(width, 6), block(width, 12, 2, down)]
    ends = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2 * width, 3)
    stem = nn.Conv2d(1, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(inplace=True)
    return nn.Sequential(*stem, *blocks, *ends)


def test_operators_in_place_make_no_difference() -> None:
    found = []
    for block in (BasicBlock, OutOfPlace):
        model, space = dense(stages(block))
        small = refitted(model, space, first_units(space))
        found.append((state(small), small(INPUTS)))
    for name, tensor in found[0][0].items():
        torch.testing.assert_close(tensor, found[1][0][name])
    torch.testing.assert_close(found[0][1], found[1][1])


def test_channels_last_makes_no_difference() -> None:
    model, space = dense(stages(BasicBlock))
    kept = first_units(space)
    wanted = refitted(model, space, kept)
    layout = torch.channels_last
    small = cut(model, space, kept).to(memory_format=layout)
    lesson = lesson_of(model.to(memory_format=layout), INPUTS.to(memory_format=layout))
    refit_carefully(small, model, kept_slots(model, space, kept), lesson, PLAIN)
    for name, tensor in state(wanted).items():
        torch.testing.assert_close(small.state_dict()[name], tensor)


@pytest.mark.parametrize("made", [Branched, Winding, partial(stages, BasicBlock)])
@torch.no_grad()
def test_autocast_rounds_activations_and_no_problem(
    monkeypatch: pytest.MonkeyPatch, made: Callable[[], nn.Module]
) -> None:
    solved: list[tuple[torch.dtype, bool]] = []
    original = Problem.solve

    def solve(self: Problem, inherited: Tensor) -> tuple[Tensor, Tensor | None] | None:
        solved.extend((x.dtype, torch.is_autocast_enabled("cpu")) for x in (self.x, self.wanted, self.offset))
        return original(self, inherited)

    monkeypatch.setattr(Problem, "solve", solve)
    torch.manual_seed(0)
    inputs = INPUTS.float()
    model, space = dense(made(), inputs)
    lesson, kept = lesson_of(model, inputs), first_units(space)
    raw, *small = (cut(model, space, kept) for _ in range(3))
    dtypes: list[torch.dtype] = []
    small[1].get_submodule(next(iter(lesson.layers))).register_forward_hook(
        lambda *args: dtypes.append(args[-1].dtype)
    )
    for each, precision in zip(small, (PLAIN, Precision("cpu", "bfloat16")), strict=True):
        assert refit_carefully(each, model, kept_slots(model, space, kept), lesson, precision) == []
    assert dtypes == [torch.bfloat16]
    assert set(solved) == {(torch.float32, False)}
    before, exact, rounded = ((m(inputs) - model(inputs)).square().mean() for m in (raw, *small))
    assert rounded < exact + 0.1 * before


@pytest.mark.parametrize("left", [1, 3])
def test_conv_groups_and_depthwise_channels_that_stay_reach_their_own_targets(
    monkeypatch: pytest.MonkeyPatch, left: int
) -> None:
    """Their inputs lost nothing, so the inherited weights are what a fit has to find."""
    monkeypatch.setattr(problem, "best_solution", partial(best_solution, ridges=(1e-11,)))
    torch.manual_seed(0)

    class Depthwise(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.early, self.stem = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 5, 3, padding=1)
            self.deep, self.head = nn.Conv2d(5, 10, 3, padding=1, groups=5), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            # The last two of the early channels are of no use: to lose them starts the fit and costs nothing.
            x = torch.tanh(self.stem(torch.tanh(self.early(x))))
            return self.head(self.deep(x).mean((2, 3)))

    model, space = dense(Depthwise())
    with torch.no_grad():
        model.stem.weight[:, 2:] = 0
    units = torch.arange(5)[-left:]
    kept = {"early": torch.arange(2), "stem": units}
    small, raw = refitted(model, space, kept), cut(model, space, kept)
    torch.testing.assert_close(small.deep.weight, raw.deep.weight, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(small.deep.bias, raw.deep.bias, rtol=1e-4, atol=1e-5)
