"""What an inspection says of networks that can be worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from inspected import CONV1, CONV2, HEAD, IMAGE, LINEAR, MACS, PARAMS, SETTINGS, STEM, Residual, inspection
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from search.inspect.bundles import bundled
from search.inspect.inspection import inspect_space
from search.inspect.layers import find_layers
from search.inspect.names import folded, in_words, one_line
from search.inspect.reads import Reads, read_order
from search.inspect.units import unit_words
from spaces import ChannelGroup, Frozen, Member, Space, trace
from spaces.cost import CostBuilder


def test_dense_and_smallest_costs_and_the_number_of_architectures():
    found = inspection()
    assert (found.dense_macs, found.dense_params) == (MACS, PARAMS)
    # Stem and shortcut keep 2 of 8, the block's inner layer 1 of 4.
    assert found.least_macs == 64 * (2 * 27 + 1 * 18 + 2 * 9) + 20
    assert found.least_params == 2 * 27 + 18 + 18 + 20 + 10
    assert found.log10_architectures == pytest.approx(math.log10(7 * 4))
    assert found.inputs == ("1x3x8x8",)


def test_groups_know_what_they_couple_and_what_depends_on_them():
    stem, inner = inspection().groups
    assert (stem.name, stem.width, stem.smallest, stem.choices, stem.unit) == ("stem", 8, 2, 7, "channel")
    assert set(stem.layers) == {"stem", "conv2"}
    assert set(stem.readers) == {"conv1", "head"}
    assert stem.macs_share == pytest.approx(1.0)
    assert stem.params_share == pytest.approx(1 - 10 / PARAMS)
    assert (inner.name, inner.layers, inner.readers) == ("conv1", ("conv1",), ("conv2",))
    assert inner.macs_share == pytest.approx((CONV1 + CONV2) / MACS)
    assert inner.params_share == pytest.approx(2 * 288 / PARAMS)


def test_layers_are_in_the_order_of_execution_with_their_costs():
    layers = inspection().layers
    assert [layer.name for layer in layers] == ["stem", "conv1", "conv2", "head"]
    assert [layer.macs for layer in layers] == [STEM, CONV1, CONV2, LINEAR]
    assert [layer.kind for layer in layers] == ["3x3", "3x3", "3x3", "linear"]
    assert [layer.parts for layer in layers] == [(("stem", 8),), (("conv1", 4),), (("stem", 8),), ()]
    assert [layer.reads for layer in layers] == [(), ("stem",), ("conv1",), ("stem",)]
    assert (layers[3].stays, layers[3].reason) == (10, "output of the model")
    assert layers[0].stays == 0


def test_a_space_without_groups_is_inspected_too():
    model = nn.Linear(3, 2)
    x = torch.zeros(1, 3)
    found = inspect_space("linear", model, x, trace(model, x), seconds=0.0, settings=SETTINGS)
    assert (found.groups, found.log10_architectures, found.least_macs) == ((), 0, 6)


def test_shares_of_a_network_without_counted_operators_are_zero():
    group = ChannelGroup("scale", 2, 1, 1, (Member("weight", 0, "output", np.arange(2)[:, None]),))
    empty = CostBuilder(1)
    empty.add(0, [])
    space = Space((group,), empty.build(), empty.build())
    found = inspect_space("p", nn.Linear(3, 2), torch.zeros(1, 3), space, seconds=0.0, settings=SETTINGS)
    assert (found.groups[0].macs_share, found.groups[0].params_share) == (0, 0)


def test_inspecting_leaves_model_and_random_state_alone():
    model = Residual().train()
    space = trace(model, IMAGE)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    inspect_space("residual", model, IMAGE, space, seconds=0.0, settings=SETTINGS)
    assert torch.equal(torch.get_rng_state(), state)
    assert model.training
    assert torch.backends.mha.get_fastpath_enabled()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


class Attention(nn.Module):
    """Packed projection, products of activations, one output projection."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(6, 6)
        self.qkv = nn.Linear(6, 18)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        return self.proj((q @ k.mT).softmax(-1) @ v)


def test_products_of_activations_belong_to_no_layer():
    reads = read_order(Attention(), torch.zeros(1, 5, 6))
    weights = [name for name in sorted(reads.order, key=reads.order.get) if name.endswith("weight")]
    assert weights == ["qkv.weight", "proj.weight"]
    assert reads.macs == {"qkv.weight": 5 * 6 * 18, "proj.weight": 5 * 6 * 6}
    assert reads.others == 2 * 5 * 5 * 6


def test_packed_attention_of_torch_is_split_among_its_weights():
    model = nn.MultiheadAttention(4, 2, batch_first=True)
    x = torch.zeros(1, 3, 4)
    reads = read_order(model, (x, x, x))
    assert reads.macs == {"in_proj_weight": 3 * 4 * 12, "out_proj.weight": 3 * 4 * 4}
    assert reads.others == 2 * 3 * 3 * 4


def test_a_weight_that_is_computed_from_parameters_has_its_costs():
    model = parametrizations.weight_norm(nn.Linear(3, 5, bias=False))
    reads = read_order(model, torch.zeros(1, 3))
    assert list(reads.macs.values()) == [15]
    assert next(iter(reads.macs)).startswith("parametrizations.weight.")


def test_costs_are_those_of_one_sample_of_a_batch():
    assert read_order(Residual(), IMAGE.expand(4, -1, -1, -1)).macs["stem.weight"] == STEM


def test_a_model_that_does_not_run_has_no_order():
    reads = read_order(Residual(), torch.zeros(1, 5))
    assert (reads.order, reads.macs, reads.others) == ({}, {}, 0)


# -- layers ---------------------------------------------------------------------------------------


def group(name: str, slots: np.ndarray, *others: Member, tensor: str = "", **options) -> ChannelGroup:
    members = (Member(tensor or f"{name}.weight", 0, "output", slots), *others)
    return ChannelGroup(name, len(slots), 1, slots.shape[1], members, **options)


def space_of(*groups: ChannelGroup, frozen: tuple[Frozen, ...] = ()) -> Space:
    cost = CostBuilder(len(groups))
    cost.add(1, [])
    return Space(groups, cost.build(), cost.build(), (), frozen)


def test_a_layer_may_be_in_several_groups_and_stay_in_part():
    model = nn.Sequential(nn.Conv2d(3, 8, 1))
    first = group("0", np.arange(3)[:, None])
    second = group("0#2", np.arange(3, 5)[:, None], tensor="0.weight")
    frozen = Frozen("0", 3, "zero-padded shortcut")
    (layer,) = find_layers(model, space_of(first, second, frozen=(frozen,)), Reads())
    assert (layer.parts, layer.stays, layer.reason) == ((("0", 3), ("0#2", 2)), 3, "zero-padded shortcut")


class Positions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(1, 4, 6))
        self.scale = nn.Parameter(torch.zeros(6, 1, 1))
        self.embed = nn.Embedding(9, 6)
        self.up = nn.ConvTranspose2d(6, 4, 2, groups=2)
        self.depthwise = nn.Conv2d(6, 6, (3, 1), groups=6)
        self.grouped = nn.Conv2d(6, 4, 3, groups=2)
        self.gates = nn.GRU(6, 5)


def test_outputs_and_kinds_by_module():
    layers = {layer.name: layer for layer in find_layers(Positions(), space_of(), Reads())}
    said = {name: (layer.kind, layer.width) for name, layer in layers.items()}
    assert said == {
        "position": ("parameter", 6),
        "embed": ("embedding", 6),
        "up": ("2x2 / 2", 4),
        "depthwise": ("dw 3x1", 6),
        "grouped": ("3x3 / 2", 4),
        "gates.weight_ih_l0": ("GRU", 15),
        "gates.weight_hh_l0": ("GRU", 15),
    }


def test_what_is_added_to_the_units_is_drawn_in_their_group():
    added = Member("position", 2, "other", np.arange(6)[:, None])
    made = group("embed", np.arange(6)[:, None], added)
    layers = {layer.name: layer for layer in find_layers(Positions(), space_of(made), Reads())}
    assert layers["position"].parts == (("embed", 6),)


# -- units ----------------------------------------------------------------------------------------


class Heads(nn.Module):
    def __init__(self, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(12, 12)


def together(units: int, size: int) -> np.ndarray:
    return np.arange(units * size).reshape(units, size)


@pytest.mark.parametrize(
    ("model", "name", "slots", "words"),
    [
        (nn.Sequential(nn.Linear(3, 4)), "0", together(4, 1), "channel"),
        (nn.ModuleDict({"a": Heads(4)}), "a.q", together(4, 3), "head of 3"),
        (nn.ModuleDict({"a": Heads(4)}), "a.q", together(4, 3).reshape(4, 3).T, "channel of 4 heads"),
        (nn.ModuleDict({"a": Heads(5)}), "a.q", together(4, 3), "unit of 3 channels"),
        (nn.Sequential(nn.Conv2d(8, 8, 1, groups=2)), "0", together(2, 4), "conv group of 4"),
        (nn.Sequential(nn.Conv2d(8, 8, 1, groups=4)), "0", together(2, 4), "unit of 4 channels"),
    ],
)
def test_units_in_words(model, name, slots, words):
    assert unit_words(model, group(name, slots)) == words


@pytest.mark.parametrize(
    ("groups", "words"), [(2, {"channel of 2 conv groups"}), (6, {"conv group of 2"}), (12, {"channel"})]
)
@pytest.mark.parametrize("layer", [nn.Conv2d, nn.ConvTranspose2d])
def test_conv_groups_that_go_and_those_that_become_narrower(layer, groups, words):
    model = nn.Sequential(
        nn.Conv2d(3, 12, 1), nn.ReLU(), layer(12, 12, 3, groups=groups), nn.Conv2d(12, 3, 1)
    )
    space = trace(model, torch.zeros(1, 3, 8, 8))
    assert {unit_words(model, one) for one in space.groups} == words


def test_a_head_is_found_though_other_places_have_more_slots():
    """A packed projection has three slots per channel of the output projection."""
    model = nn.ModuleDict({"a": Heads(2)})
    packed = np.concatenate([together(2, 3), together(2, 3) + 6], axis=1)
    read = Member("a.q.bias", 0, "input", together(2, 3))
    biases = Member("a.q.bias", 0, "other", together(2, 1))
    one = ChannelGroup("a.q", 2, 1, 3, (biases, Member("a.q.weight", 0, "output", packed), read))
    assert unit_words(model, one) == "head of 3"
    strided = replace(read, slots=together(3, 2).T)
    assert unit_words(model, replace(one, members=(biases, strided))) == "unit of 3 channels"


def test_channels_of_a_group_norm():
    model = nn.Sequential(nn.Conv2d(3, 6, 1), nn.GroupNorm(3, 6))
    norm = Member("1.weight", 0, "scale", together(3, 2))
    assert unit_words(model, group("0", together(3, 2), norm)) == "norm group of 2"


# -- names and reasons ----------------------------------------------------------------------------


def test_names_that_differ_in_counters_become_a_pattern():
    names = ["stem", *(f"blocks.{i}.attn.qkv" for i in range(12)), "blocks.0.conv1", "blocks.0.conv2"]
    assert folded(names) == [
        ("stem", 1),
        ("blocks.*.attn.qkv", 12),
        ("blocks.0.conv1", 1),
        ("blocks.0.conv2", 1),
    ]
    assert folded(["encoder_layer_0.mlp.0", "encoder_layer_11.mlp.0"]) == [("encoder_layer_*.mlp.0", 2)]
    assert in_words(["a.0", "a.1", "b", "c", "d"], 2) == "a.* x 2, b and 2 more"


def test_foreign_text_becomes_one_printable_line():
    assert one_line("a\nb\x1b[2J  c") == "a b?[2J c"
    assert one_line("x" * 9, 5) == "xxxx\N{HORIZONTAL ELLIPSIS}"


def test_what_stays_is_bundled_by_cause_the_widest_first():
    ones = [
        HEAD,
        *(
            Frozen(
                f"blocks.{i}.qkv", 6, "read at a fixed place", "aten.select.int", f"blocks.{i}", "vit.py:9"
            )
            for i in range(3)
        ),
        replace(HEAD, name="blocks.3.qkv", reason="read at a fixed place", operator="aten.slice.Tensor"),
    ]
    selected, *others = bundled(ones)
    assert (selected.width, selected.names) == (18, ("blocks.0.qkv", "blocks.1.qkv", "blocks.2.qkv"))
    assert selected.places == (("blocks.0", "vit.py:9"), ("blocks.1", "vit.py:9"), ("blocks.2", "vit.py:9"))
    assert [(one.reason, one.operator, one.places) for one in others] == [
        ("output of the model", None, ()),
        ("read at a fixed place", "aten.slice.Tensor", ()),
    ]
