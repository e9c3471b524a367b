"""Cuts of layers that attend equal the masked network, with and without PyTorch's fused path."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import pytest
import torch
from attending import (
    BATCH,
    FUSED,
    HEADS,
    MEMORY,
    PADDING,
    TOKENS,
    WIDTH,
    Attends,
    Crosses,
    Decodes,
    Encodes,
    Special,
    hidden,
    operators,
)
from rightness import assert_equal, names, random_kept, randomised, reference
from torch import Tensor, nn

from spaces import Space, cut, describe, rebuild, trace, write_architecture
from spaces.attention import HeadwiseAttention
from spaces.neutral import neutral
from spaces.reference import expected
from spaces.surgery import masked

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*nested tensor"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad"),
]

#: A network, its inputs, and the groups of its heads.
NETS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...], set[str]]] = {
    "encoder": (
        lambda: Encodes(batch_first=True),
        (TOKENS,),
        {f"encoder.layers.{n}.self_attn.in_proj_weight" for n in (0, 1)},
    ),
    "encoder, norm first, without biases": (
        lambda: Encodes(norm_first=True, bias=False, activation="gelu"),
        (TOKENS.transpose(0, 1),),
        {f"encoder.layers.{n}.self_attn.in_proj_weight" for n in (0, 1)},
    ),
    "decoder": (
        lambda: Decodes(batch_first=True),
        (TOKENS, MEMORY),
        {"decoder.self_attn.in_proj_weight", "decoder.multihead_attn.in_proj_weight"},
    ),
    "widths of their own": (lambda: Crosses(average=True), (TOKENS,), {"attention.q_proj_weight"}),
}
#: Groups of a residual stream, and of other things that attention reads.
AROUND = {"widths of their own": {"queries", "keys", "values"}}


@cache
def traced(name: str) -> tuple[nn.Module, Space, tuple[Tensor, ...]]:
    build, inputs, _ = NETS[name]
    torch.manual_seed(0)
    model = randomised(build())
    return model, trace(model, inputs), inputs


def cuts(space: Space) -> Iterator[dict[str, Tensor]]:
    """Each group alone, the last unit of all, and random units of random groups."""
    generator, width = torch.Generator().manual_seed(4), {group.name: group.width for group in space.groups}
    for group in space.groups:
        yield {group.name: torch.randperm(group.width, generator=generator)[: group.width // 2].sort().values}
    yield {group.name: torch.tensor([group.width - 1]) for group in space.groups}
    for _ in range(4):
        kept = random_kept(space, generator)
        yield {name: units for name, units in kept.items() if len(units) < width[name]}


@pytest.mark.parametrize("name", NETS)
def test_heads_are_units_and_the_stream_around_them_may_be_cut(name: str) -> None:
    _, space, _ = traced(name)
    groups = {group.name: group for group in space.groups}
    assert NETS[name][2] <= set(groups)
    for attention in NETS[name][2]:
        assert groups[attention].width == HEADS
        assert groups[attention].unit_channels == WIDTH // HEADS
        # The mean of all heads' weights is another one when some go.
        assert groups[attention].exact == (name != "widths of their own")
    assert AROUND.get(name, {"enter"}) <= set(groups)


@pytest.mark.parametrize("name", NETS)
def test_cuts_in_eval_mode_equal_the_masked_network_with_and_without_the_fused_path(name: str) -> None:
    model, space, inputs = traced(name)
    assert torch.backends.mha.get_fastpath_enabled()
    exact = {group.name for group in space.groups if group.exact}
    for kept in cuts(space):
        with torch.no_grad():
            small, wanted = cut(model, space, kept), reference(model, space, kept, inputs)
            assert_equal(small(*inputs), wanted)  # may take the fused path
            with neutral():
                assert_equal(small(*inputs), wanted)
                if set(kept) <= exact:
                    assert_equal(small(*inputs), masked(model, space, kept)(*inputs))
        assert_equal(small(*inputs), wanted)  # gradients keep off the fused path


@pytest.mark.parametrize("name", NETS)
def test_cuts_in_train_mode_equal_the_masked_network(name: str) -> None:
    model, space, inputs = traced(name)
    for kept in cuts(space):
        with neutral():
            wanted = expected(model, space, kept, (inputs, {}), training=True)
        assert_equal(cut(model, space, kept).train()(*inputs), wanted)


def test_attention_knows_its_new_sizes() -> None:
    model, space, _ = traced("encoder")
    kept = {"enter": torch.arange(7), "encoder.layers.1.self_attn.in_proj_weight": torch.arange(3)}
    first, second = (layer.self_attn for layer in cut(model, space, kept).encoder.layers)
    assert (first.embed_dim, first.num_heads, first.head_dim, first.kdim, first.vdim) == (7, 4, 3, 7, 7)
    assert (second.embed_dim, second.num_heads, second.head_dim, second.kdim, second.vdim) == (7, 3, 3, 7, 7)
    model, space, _ = traced("widths of their own")
    kept = {"queries": torch.arange(9), "keys": torch.arange(6), "values": torch.arange(2)}
    attention = cut(model, space, kept).attention
    assert (attention.embed_dim, attention.num_heads, attention.kdim, attention.vdim) == (9, 4, 6, 2)


def test_heads_whose_weights_are_outputs_stay() -> None:
    model = randomised(Crosses(average=False))
    space = trace(model, TOKENS)
    assert names(space) == {"queries", "keys", "values", "hidden"}
    kept = {group.name: torch.tensor([0, 3]) for group in space.groups}
    assert_equal(cut(model, space, kept)(TOKENS), reference(model, space, kept, (TOKENS,)))


@pytest.mark.parametrize("group", ["encoder.layers.0.self_attn.in_proj_weight", "enter"])
def test_a_cut_does_not_take_the_fused_path_which_derives_the_width_of_heads(group: str) -> None:
    model, space, inputs = traced("encoder")
    assert FUSED & operators(model, *inputs)
    width = next(g.width for g in space.groups if g.name == group)
    small = cut(model, space, {group: torch.arange(width - 1)})
    fused = [
        bool(FUSED & operators(layer, torch.randn(2, 5, small.enter.out_features).double()))
        for layer in small.encoder.layers
    ]
    assert fused == ([False, True] if "layers.0" in group else [False, False])


@pytest.mark.parametrize("group", ["encoder.layers.0.self_attn.in_proj_weight", "enter", None])
def test_a_cut_encoder_takes_padded_sequences_in_eval_mode(group: str | None) -> None:
    """PyTorch's encoder turns those into nested tensors, which only its fused path understands."""
    model, space, inputs = traced("encoder")
    width = next((g.width for g in space.groups if g.name == group), 0)
    kept = {} if group is None else {group: torch.arange(width - 1)}
    with torch.no_grad():
        wanted = reference(model, space, kept, (*inputs, PADDING))
        got = cut(model, space, kept)(*inputs, PADDING)
    assert isinstance(wanted, Tensor)
    assert_equal(got[~PADDING], wanted[~PADDING])


def test_masks_per_head_follow_where_all_heads_stay() -> None:
    model, space, inputs = traced("encoder")
    mask = hidden(BATCH * HEADS, 5, 5)
    kept = {"enter": torch.tensor([0, 2, 3, 7]), "encoder.layers.1.linear1": torch.tensor([1, 2])}
    with torch.no_grad():
        wanted = reference(model, space, kept, (*inputs, None, mask))  # type: ignore[arg-type]
        assert_equal(cut(model, space, kept)(*inputs, None, mask), wanted)


def test_padding_leaves_heads_free_and_a_mask_per_head_fixes_them() -> None:
    model = randomised(Encodes())
    x, heads = TOKENS.transpose(0, 1), {f"encoder.layers.{n}.self_attn.in_proj_weight" for n in (0, 1)}
    padded = (x, PADDING)
    space = trace(model, padded)
    assert heads <= names(space)
    kept = {group.name: torch.tensor([0, 3]) for group in space.groups}
    assert_equal(cut(model, space, kept)(*padded), reference(model, space, kept, padded))
    per_head = {"x": x, "mask": hidden(BATCH * HEADS, 5, 5)}
    whole = trace(model, per_head)
    assert names(whole) == names(space) - heads
    kept = {group.name: torch.tensor([0, 3]) for group in whole.groups}
    wanted = reference(model, whole, kept, (x, None, per_head["mask"]))  # type: ignore[arg-type]
    assert_equal(cut(model, whole, kept)(**per_head), wanted)


def test_a_cut_can_be_cut_again() -> None:
    model, space, inputs = traced("encoder")
    heads = "encoder.layers.0.self_attn.in_proj_weight"
    once = cut(model, space, {heads: torch.tensor([0, 2, 3]), "enter": torch.arange(1, 11)})
    again = trace(once, inputs)
    assert {group.name: group.width for group in again.groups if group.name in (heads, "enter")} == {
        heads: 3,
        "enter": 10,
    }
    kept = {heads: torch.tensor([1]), "enter": torch.tensor([0, 4, 5])}
    with torch.no_grad():
        assert_equal(cut(once, again, kept)(*inputs), reference(once, again, kept, inputs))
        straight = {heads: torch.tensor([2]), "enter": torch.tensor([1, 5, 6])}
        assert_equal(cut(once, again, kept)(*inputs), cut(model, space, straight)(*inputs))


def test_a_cut_comes_back_from_its_files(tmp_path: Path) -> None:
    model, space, inputs = traced("encoder")
    kept = random_kept(space, torch.Generator().manual_seed(8))
    small = cut(model, space, kept)
    write_architecture(tmp_path, describe(space, kept, {}, model), small.state_dict())
    again = rebuild(lambda: Encodes(batch_first=True).double().eval(), tmp_path)
    assert torch.equal(again(*inputs), small(*inputs))


# -- what is not supported ----------------------------------------------------------------------------


UNSUPPORTED: dict[str, tuple[Callable[[], nn.MultiheadAttention], str]] = {
    "bias_k": (lambda: nn.MultiheadAttention(WIDTH, HEADS, add_bias_kv=True, batch_first=True), "bias_k"),
    "zeros": (lambda: nn.MultiheadAttention(WIDTH, HEADS, add_zero_attn=True, batch_first=True), "zero_attn"),
    "subclass": (lambda: Special(WIDTH, HEADS, batch_first=True), "Special"),
}


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_attention_that_is_not_supported_stays_whole_and_is_named(case: str) -> None:
    build, words = UNSUPPORTED[case]
    model = randomised(Attends(build()))
    space = trace(model, TOKENS)
    assert names(space) == {"hidden"}
    why = {frozen.name: frozen.reason for frozen in space.frozen}
    assert {"enter", "attention.in_proj_weight", "attention.out_proj"} <= set(why)
    assert any(words in reason for reason in why.values())
    kept = {"hidden": torch.tensor([0, 4])}
    assert_equal(cut(model, space, kept)(TOKENS), masked(model, space, kept)(TOKENS))


@pytest.mark.parametrize("case", UNSUPPORTED)
def test_attention_that_is_not_supported_is_not_adopted(case: str) -> None:
    build, words = UNSUPPORTED[case]
    module = build()
    before, kind = dict(vars(module)), type(module)
    with pytest.raises(NotImplementedError, match=words):
        HeadwiseAttention.adopt(module)
    assert type(module) is kind
    assert vars(module) == before
