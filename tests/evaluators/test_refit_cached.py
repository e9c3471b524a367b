"""The re-fit from moments against ``torch.linalg.lstsq`` on the raw rows."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import (
    PLAIN,
    Branched,
    Grouped,
    Winding,
    every_site,
    first_units,
    moments_of,
    randomised,
    same_state,
    state,
    toy_data,
    toy_model,
    toy_task,
    unfolded,
    weights_of,
)

from evaluators.reconstruct import cached
from evaluators.reconstruct.cached import refit_from_moments
from evaluators.reconstruct.shapes import Remains
from evaluators.reconstruct.solve import best_solution
from evaluators.statistics import sums
from evaluators.statistics.gather import gather
from evaluators.statistics.layers import Layer, find_layers
from spaces import Space, cut, trace
from spaces.surgery import KeptSlots, kept_slots

if TYPE_CHECKING:
    from collections.abc import Mapping

    from evaluators.statistics.records import Moments

INPUTS, TARGETS = toy_data(64, seed=4)
INPUTS = INPUTS.double()
MODELS = {"chain": toy_model, "branched": Branched, "winding": Winding, "grouped": Grouped}


@pytest.fixture(autouse=True)
def exact(monkeypatch: pytest.MonkeyPatch) -> None:
    """All positions are fitted on, none is held out, and the ridge is next to nothing."""
    monkeypatch.setattr(sums, "draw_sites", every_site)
    monkeypatch.setattr(sums, "_HELD_OUT", 10**9)
    monkeypatch.setattr(cached, "best_solution", partial(best_solution, ridges=(1e-11,)))


def dense(name: str) -> tuple[nn.Module, Space]:
    torch.manual_seed(0)
    model = randomised(MODELS[name]()).double()
    return model, trace(model, INPUTS[:1])


def moments_and_layers(model: nn.Module, space: Space) -> tuple[Mapping[str, Moments], dict[str, Layer]]:
    found = gather(toy_task(model=model), space, [(INPUTS, TARGETS)], PLAIN, seed=0)
    return found.moments, find_layers(model, INPUTS)


def refitted(
    model: nn.Module, space: Space, kept: Mapping[str, Tensor]
) -> tuple[nn.Module, KeptSlots, list[str]]:
    moments, layers = moments_and_layers(model, space)
    small, slots = cut(model, space, kept), kept_slots(model, space, kept)
    return small, slots, refit_from_moments(small, model, slots, moments, layers)


def read_by(model: nn.Module, inputs: Tensor) -> dict[str, Tensor]:
    """What every layer reads."""
    read: dict[str, Tensor] = {}
    with ExitStack() as stack, torch.no_grad():
        for name, layer in model.named_modules():

            def keep(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> None:
                read[name] = args[0]

            if isinstance(layer, nn.Conv2d | nn.Linear):
                stack.callback(layer.register_forward_pre_hook(keep).remove)
        model(inputs)
    return read


def least_squares(
    layer: nn.Module, inputs: Tensor, outputs: list[int], channels: list[int], *, constant: bool
) -> tuple[Tensor, Tensor]:
    """Weights in the layer's shape and the constant, for the outputs without what the norm does."""
    conv_groups = getattr(layer, "groups", 1)
    taps, per_group = layer.weight[0, 0].numel(), len(layer.weight) // conv_groups
    columns = [c * taps + t for c in channels for t in range(taps)] + ([-1] if constant else [])
    found = []
    for number, (rows, dense) in enumerate(
        zip(unfolded(layer, inputs), weights_of(layer, conv_groups), strict=True)
    ):
        mine = [output % per_group for output in outputs if output // per_group == number]
        found.append(torch.linalg.lstsq(rows[:, columns], rows @ dense[:, mine], driver="gelsd").solution)
    solution = torch.cat(found, dim=1)
    shift = solution[-1] if constant else torch.zeros(len(outputs), dtype=torch.float64)
    weights = (solution[:-1] if constant else solution).T
    return weights.unflatten(1, (len(channels), *layer.weight.shape[2:])), shift


@pytest.mark.parametrize("name", MODELS)
def test_every_reader_equals_least_squares_on_the_raw_rows(name: str) -> None:
    model, space = dense(name)
    small, slots, failed = refitted(model, space, first_units(space))
    assert failed == []
    read, layers = read_by(model, INPUTS), find_layers(model, INPUTS)
    fitted = [layer for layer in layers if 1 in slots.get(f"{layer}.weight", {})]
    wanted = {
        "chain": ["conv2", "head"],
        "branched": ["inner", "outer", "head", "side"],
        "winding": ["bare", "normed", "both", "head"],
        "grouped": ["grouped", "point", "head"],
    }
    assert fitted == wanted[name]
    for each in fitted:
        old, new, norm = model.get_submodule(each), small.get_submodule(each), layers[each].norm
        kept = slots[f"{each}.weight"]
        outputs = kept[0].tolist() if 0 in kept else list(range(len(old.weight)))
        constant = old.bias is not None or norm is not None
        weights, shift = least_squares(old, read[each], outputs, kept[1].tolist(), constant=constant)
        torch.testing.assert_close(new.weight.detach(), weights.view_as(new.weight), rtol=1e-4, atol=1e-6)
        if new.bias is not None:
            torch.testing.assert_close(new.bias.detach(), shift, rtol=1e-4, atol=1e-6)
        if norm is not None:
            before = model.get_submodule(norm).running_mean[outputs]
            after = before if new.bias is not None else before - shift
            torch.testing.assert_close(small.get_submodule(norm).running_mean, after, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", MODELS)
def test_nothing_else_changes(name: str) -> None:
    model, space = dense(name)
    kept = first_units(space)
    before = state(model)
    small, slots, _ = refitted(model, space, kept)
    assert same_state(before, state(model))
    raw, layers = state(cut(model, space, kept)), find_layers(model, INPUTS)
    changed = {key for key, tensor in state(small).items() if not torch.equal(tensor, raw[key])}
    allowed = set()
    for each, layer in layers.items():
        if 1 in slots.get(f"{each}.weight", {}):
            constant = f"{each}.bias" if f"{each}.bias" in raw else f"{layer.norm}.running_mean"
            allowed |= {f"{each}.weight", constant}
    assert changed == allowed & raw.keys()


def test_a_group_that_stays_whole_leaves_its_readers_alone() -> None:
    model, space = dense("chain")
    kept = {"conv2": torch.arange(2)}
    small, _, _ = refitted(model, space, kept)
    raw = cut(model, space, kept)
    assert torch.equal(small.conv2.weight, raw.conv2.weight)
    assert not torch.equal(small.head.weight, raw.head.weight)


def copied(model: nn.Module, *pairs: tuple[str, str]) -> nn.Module:
    """The second half of the channels of each layer and its norm repeats the first half, up to a factor."""
    with torch.no_grad():
        for pair in pairs:
            for name in filter(None, pair):
                module = model.get_submodule(name)
                tensors = [module.weight, module.bias, *getattr(module, "_buffers", {}).values()]
                for tensor in tensors:
                    if tensor is not None and tensor.dim():
                        half = len(tensor) // 2
                        tensor[half : 2 * half] = tensor[:half]
            last = model.get_submodule(pair[1] or pair[0])
            half = len(last.weight) // 2
            last.weight[half : 2 * half] *= 1.7  # through a ReLU, a positive factor stays one
            last.bias[half : 2 * half] *= 1.7
    return model


COPIES = {
    "chain": [("conv1", "bn1"), ("conv2", "bn2")],
    "winding": [("stem", "norm"), ("both", "last")],
    "branched": [("stem", "norm"), ("outer", "outer_norm")],
}


@pytest.mark.parametrize("name", COPIES)
@pytest.mark.parametrize("half", ["first", "second"])
def test_half_of_exact_linear_copies_go_for_nothing(name: str, half: str) -> None:
    torch.manual_seed(0)
    model = copied(randomised(MODELS[name]()), *COPIES[name]).double()
    space = trace(model, INPUTS[:1])
    layers = {layer for layer, _ in COPIES[name]}
    kept = {
        g.name: torch.arange(g.width // 2) + (g.width // 2 if half == "second" else 0)
        for g in space.groups
        if layers & {member.tensor.split(".")[0] for member in g.members if member.role == "output"}
    }
    small, _, failed = refitted(model, space, kept)
    assert failed == []
    with torch.no_grad():
        wanted = model(INPUTS)
        torch.testing.assert_close(small(INPUTS), wanted, rtol=1e-5, atol=1e-6)
        assert not torch.allclose(cut(model, space, kept)(INPUTS), wanted, atol=1e-2)


def test_copies_cost_next_to_nothing_at_the_ridges_that_are_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    model = copied(toy_model(), *COPIES["chain"])
    space = trace(model, INPUTS[:1].float())
    kept = {"conv1": torch.arange(3), "conv2": torch.arange(2)}
    found = gather(toy_task(model=model), space, [(INPUTS.float(), TARGETS)], PLAIN, seed=0)
    small, slots = cut(model, space, kept), kept_slots(model, space, kept)
    refit_from_moments(small, model, slots, found.moments, find_layers(model, INPUTS.float()))
    with torch.no_grad():
        wanted, outputs, raw = (m(INPUTS.float()) for m in (model, small, cut(model, space, kept)))
    spread = (wanted - wanted.mean(0)).square().mean()
    assert (outputs - wanted).square().mean() < 1e-4 * spread
    assert (raw - wanted).square().mean() > 1e-2 * spread


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_problem_that_is_not_finite_keeps_the_inherited_weights_and_says_so(
    caplog: pytest.LogCaptureFixture, value: float
) -> None:
    model, space = dense("chain")
    moments, layers = moments_and_layers(model, space)
    kept = first_units(space)
    gram = moments["conv2"].gram.clone()
    gram[0, 0, 0] = value
    broken = {**moments, "conv2": replace(moments["conv2"], gram=gram)}
    raw, small, slots = cut(model, space, kept), cut(model, space, kept), kept_slots(model, space, kept)
    assert refit_from_moments(small, model, slots, broken, layers) == ["conv2"]
    assert "no finite re-fit of conv2: inherited weights kept" in caplog.text
    assert torch.equal(small.conv2.weight, raw.conv2.weight)
    assert torch.equal(small.bn2.running_mean, raw.bn2.running_mean)
    assert not torch.equal(small.head.weight, raw.head.weight)


def test_a_layer_with_moments_per_channel_only_keeps_its_weights() -> None:
    model, space = dense("chain")
    moments, layers = moments_and_layers(model, space)
    kept = first_units(space)
    coarse = {**moments, "conv2": replace(moments["conv2"], gram=None, held=None)}
    small, slots = cut(model, space, kept), kept_slots(model, space, kept)
    assert refit_from_moments(small, model, slots, coarse, layers) == []
    assert torch.equal(small.conv2.weight, cut(model, space, kept).conv2.weight)


class Halves(nn.Module):
    """Two conv groups; to be cut by hand: a space has groups go or become narrower, not both."""

    def __init__(self, channels: int, groups: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(channels * groups, outputs * groups, 3, padding=1, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


def test_conv_groups_are_fitted_each_on_its_own_columns() -> None:
    torch.manual_seed(0)
    mix = torch.randn(12, 12, dtype=torch.float64) + 2 * torch.eye(12)
    x = torch.einsum("nchw,cd->ndhw", torch.randn(30, 12, 5, 5, dtype=torch.float64), mix)
    dense, small = Halves(4, 3, 2).double(), Halves(2, 2, 2).double()
    # The second conv group goes whole, and of the others channels 0 and 2.
    slots = {"layer.weight": {0: np.array([0, 1, 4, 5]), 1: np.array([1, 3])}}
    rows = unfolded(dense.layer, x)
    moments = moments_of("layer", rows, weights_of(dense.layer, 3), 9)
    layers = find_layers(dense, x)
    assert refit_from_moments(small, dense, slots, {"layer": moments}, layers) == []
    columns = [9 + t for t in range(9)] + [27 + t for t in range(9)] + [36]
    for new, old in ((0, 0), (1, 2)):
        wanted = rows[old] @ weights_of(dense.layer, 3)[old]
        solution = torch.linalg.lstsq(rows[old][:, columns], wanted).solution
        found = weights_of(small.layer, 2)[new]
        torch.testing.assert_close(found, solution, rtol=1e-5, atol=1e-7)


class TestRemains:
    def test_of_a_layer_that_stays_whole(self) -> None:
        found = Remains.of("layer", nn.Conv2d(2, 3, 2), {})
        assert found.outputs.tolist() == found.channels_out.tolist() == [0, 1, 2]
        assert found.columns.tolist() == list(range(8))
        assert not found.is_narrower

    def test_of_a_layer_that_lost_outputs_and_inputs(self) -> None:
        slots = {"layer.weight": {0: np.array([0, 2]), 1: np.array([1])}}
        found = Remains.of("layer", nn.Conv2d(2, 3, 2), slots)
        assert found.groups.tolist() == [0]
        assert found.outputs.tolist() == found.channels_out.tolist() == [0, 2]
        assert found.columns.tolist() == [4, 5, 6, 7]
        assert found.is_narrower

    @pytest.mark.parametrize("left", [[1], [0, 3]])
    def test_of_a_depthwise_layer(self, left: list[int]) -> None:
        found = Remains.of("layer", nn.Conv2d(4, 4, 3, groups=4), {"layer.weight": {0: np.array(left)}})
        assert found.groups.tolist() == found.channels_out.tolist() == left
        assert found.outputs.tolist() == [0]
        assert found.columns.tolist() == list(range(9))
        assert not found.is_narrower

    def test_of_conv_groups(self) -> None:
        layer = nn.Conv2d(6, 6, 1, groups=3)
        found = Remains.of("layer", layer, {"layer.weight": {0: np.array([2, 3])}})
        assert found.groups.tolist() == [1]
        assert found.channels_out.tolist() == [2, 3]
