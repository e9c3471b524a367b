from __future__ import annotations

import copy
import json
from typing import TYPE_CHECKING

import nets
import numpy as np
import pytest
import torch
from torch import nn

from spaces import cut, describe, rebuild, trace, write_architecture
from spaces.surgery import _copy_with, masked
from spaces.trial_cuts import random_kept

if TYPE_CHECKING:
    from pathlib import Path


def fresh(name: str) -> tuple[nn.Module, torch.Tensor]:
    torch.manual_seed(0)
    build, example = nets.EXACT[name]
    return build().double().eval(), example.double()


@pytest.mark.parametrize("name", nets.EXACT)
def test_a_cut_that_keeps_everything_is_bit_equal(name: str) -> None:
    model, example = fresh(name)
    space = trace(model, example)
    whole = cut(model, space, {group.name: torch.arange(group.width) for group in space.groups})
    assert torch.equal(whole(example), model(example))


@pytest.mark.parametrize("name", nets.EXACT)
def test_selecting_every_slot_and_mending_every_size_is_bit_equal(name: str) -> None:
    """`cut` skips groups that stay whole; here every member goes through selection and mending."""
    model, example = fresh(name)
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    slots: dict[str, dict[int, np.ndarray]] = {}
    for group in trace(model, example).groups:
        for member in group.members:
            size = tensors[member.tensor].shape[member.dim]
            slots.setdefault(member.tensor, {})[member.dim] = np.arange(size)
    assert slots
    assert torch.equal(_copy_with(model, slots, {})(example), model(example))


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("name", nets.EXACT)
def test_a_cut_equals_the_masked_network(name: str, seed: int) -> None:
    model, example = fresh(name)
    space = trace(model, example)
    kept = random_kept(space.groups, torch.Generator().manual_seed(seed))
    torch.testing.assert_close(
        cut(model, space, kept)(example), masked(model, space, kept)(example), rtol=1e-10, atol=1e-12
    )


def test_modules_know_their_new_sizes() -> None:
    model = nets.Grouped()
    space = trace(model, nets.IMAGE)
    small = cut(model, space, {"enter": torch.tensor([0, 2])})
    assert (small.enter.out_channels, small.grouped.groups, small.grouped.in_channels) == (6, 2, 6)
    assert (small.depthwise.groups, small.depthwise.in_channels, small.depthwise.out_channels) == (4, 4, 8)
    assert small.head.in_channels == 8


def test_the_original_is_left_alone_and_shares_no_memory() -> None:
    model, example = fresh("plain")
    before = copy.deepcopy(model.state_dict())
    small = cut(model, trace(model, example), {"conv1": torch.tensor([1, 3])})
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.zero_()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("units", [[], [0, 0], [2, 1], [-1, 2], [7, 8]])
def test_kept_units_are_checked(units: list[int]) -> None:
    model = nets.Plain()
    with pytest.raises(ValueError, match="needs 1 to 8 distinct ascending units"):
        cut(model, trace(model, nets.IMAGE), {"conv1": torch.tensor(units, dtype=torch.long)})


def test_an_unknown_group_is_named() -> None:
    model = nets.Plain()
    with pytest.raises(ValueError, match="'conv9' is no group"):
        cut(model, trace(model, nets.IMAGE), {"conv9": torch.tensor([0])})


@pytest.fixture
def written(tmp_path: Path) -> tuple[nn.Module, nn.Module, Path]:
    """Dense network, cut network, and the folder that describes the cut."""
    model, example = fresh("residual")
    space = trace(model, example)
    kept = random_kept(space.groups, torch.Generator().manual_seed(3))
    small = cut(model, space, kept)
    document = describe(space, kept, {"stem": "l1"}, model)
    write_architecture(tmp_path, document, small.state_dict())
    return model, small, tmp_path


def test_rebuild_gives_the_same_network(written: tuple[nn.Module, nn.Module, Path]) -> None:
    _, small, folder = written
    torch.manual_seed(99)
    again = rebuild(lambda: nets.Residual().double().eval(), folder)
    example = nets.IMAGE.double()
    assert type(again) is nets.Residual
    assert torch.equal(again(example), small(example))


def test_rebuild_without_weights_inherits_the_dense_ones(written: tuple[nn.Module, nn.Module, Path]) -> None:
    model, small, folder = written
    (folder / "weights.safetensors").unlink()
    again = rebuild(model, folder)
    assert torch.equal(again(nets.IMAGE.double()), small(nets.IMAGE.double()))


def test_tied_weights_come_back_tied(tmp_path: Path) -> None:
    model, example = fresh("tied")
    space = trace(model, example)
    kept = {"enter": torch.tensor([1, 4, 5])}
    small = cut(model, space, kept)
    write_architecture(tmp_path, describe(space, kept, {}, model), small.state_dict())
    again = rebuild(nets.Tied().double(), tmp_path)
    assert again.twice.weight is again.other.weight
    assert torch.equal(again(example), small(example))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema",), 2, "`schema` must be 1"),
        (("slots", "stem.weight", 0, "kept"), [0, 99], "must keep ascending slots below 8"),
        (("slots", "stem.weight", 0, "kept"), [3, 1], "must keep ascending slots below 8"),
        (("slots", "stem.weight", 0, "kept"), "all", "not an architecture|invalid literal"),
        (("slots", "stem.weight", 0, "size"), 9, "has no 'stem.weight' with 9 slots"),
        (("slots", "stem.weight", 0, "dim"), 7, "has no 'stem.weight'"),
        (("slots",), [1], "not an architecture of schema 1"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(
    written: tuple[nn.Module, nn.Module, Path], path: tuple[object, ...], value: object, message: str
) -> None:
    model, _, folder = written
    document = json.loads((folder / "architecture.json").read_text())
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (folder / "architecture.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        rebuild(model, folder)


def test_weights_of_another_network_are_refused(written: tuple[nn.Module, nn.Module, Path]) -> None:
    model, _, folder = written
    document = json.loads((folder / "architecture.json").read_text())
    write_architecture(folder, document, {"other": torch.zeros(1)})
    with pytest.raises(ValueError, match="tensors do not fit the model"):
        rebuild(model, folder)
