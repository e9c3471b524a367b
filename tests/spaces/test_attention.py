"""Attention whose heads may go gives the numbers of PyTorch's own."""

from __future__ import annotations

import copy
from itertools import product
from typing import TYPE_CHECKING, Any

import pytest
import torch
from attending import BATCH, FUSED, HEADS, KEYS, QUERIES, WIDTH, hidden, noise, operators
from rightness import assert_equal, randomised
from torch import Tensor, nn

from spaces.attention import HeadwiseAttention

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = [
    # Masks of unlike types still work, but no longer ought to be used.
    pytest.mark.filterwarnings("ignore:Support for mismatched"),
    pytest.mark.filterwarnings("ignore:Converting a tensor with requires_grad"),
]

KINDS: dict[str, dict[str, Any]] = {
    "packed": {},
    "packed-without-bias": {"bias": False},
    "widths-of-their-own": {"kdim": 7, "vdim": 5},
    "widths-of-their-own-without-bias": {"kdim": 7, "vdim": 5, "bias": False},
    "only-keys-of-their-own": {"kdim": 7},
}


def both(**options: Any) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    """PyTorch's own, and a twin with the same parameters in the class under test."""
    theirs = randomised(nn.MultiheadAttention(WIDTH, HEADS, **options))
    ours = copy.deepcopy(theirs)
    HeadwiseAttention.adopt(ours)
    assert type(theirs) is nn.MultiheadAttention
    assert type(ours) is HeadwiseAttention
    return theirs, ours


def sequences(module: nn.MultiheadAttention, layout: str) -> list[Tensor]:
    """Queries, keys and values."""
    made = [noise(BATCH, QUERIES, WIDTH), noise(BATCH, KEYS, module.kdim), noise(BATCH, KEYS, module.vdim)]
    if layout == "unbatched":
        return [x[0] for x in made]
    return made if layout == "batch-first" else [x.transpose(0, 1) for x in made]


CAUSAL = torch.ones(QUERIES, KEYS, dtype=torch.bool).triu(1)

#: By batch.
MASKS: dict[str, Callable[[int], Tensor | None]] = {
    "none": lambda _: None,
    "bool-2d": lambda _: hidden(QUERIES, KEYS),
    "float-2d": lambda _: noise(QUERIES, KEYS),
    "infinite-2d": lambda _: torch.zeros(QUERIES, KEYS).double().masked_fill(CAUSAL, float("-inf")),
    "bool-3d": lambda batch: hidden(batch * HEADS, QUERIES, KEYS),
    "float-3d": lambda batch: noise(batch * HEADS, QUERIES, KEYS),
}
PADDINGS: list[Callable[[int], Tensor | None]] = [
    lambda _: None,
    lambda batch: hidden(batch, KEYS),
    lambda batch: noise(batch, KEYS),
]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("layout", ["batch-first", "positions-first", "unbatched"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_combination_of_arguments_gives_what_pytorch_gives(kind: str, layout: str, mask: str) -> None:
    theirs, ours = both(batch_first=layout == "batch-first", **KINDS[kind])
    inputs, batch = sequences(theirs, layout), 1 if layout == "unbatched" else BATCH
    for make_padding, need_weights, average in product(PADDINGS, (True, False), (True, False)):
        padding = make_padding(batch)
        padding = padding[0] if padding is not None and layout == "unbatched" else padding
        options = {
            "key_padding_mask": padding,
            "attn_mask": MASKS[mask](batch),
            "need_weights": need_weights,
            "average_attn_weights": average,
        }
        assert_equal(ours(*inputs, **options), theirs(*inputs, **options))
        with torch.no_grad():  # PyTorch's own takes its fused kernel where it can
            assert_equal(ours(*inputs, **options), theirs(*inputs, **options))


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("padded", [True, False])
def test_the_causal_hint_goes_with_its_mask(need_weights: bool, padded: bool) -> None:
    theirs, ours = both(batch_first=True)
    options: dict[str, Any] = {"is_causal": True, "need_weights": need_weights}
    options["key_padding_mask"] = hidden(BATCH, KEYS) if padded else None
    inputs = sequences(theirs, "batch-first")
    assert_equal(ours(*inputs, attn_mask=CAUSAL, **options), theirs(*inputs, attn_mask=CAUSAL, **options))
    for module in (theirs, ours):
        with pytest.raises(RuntimeError, match="Need attn_mask if specifying the is_causal hint"):
            module(*inputs, **options)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize("batch_first", [True, False])
def test_dropout_draws_what_pytorch_draws_and_only_in_training(batch_first: bool, need_weights: bool) -> None:
    theirs, ours = both(dropout=0.5, batch_first=batch_first)
    inputs = sequences(theirs, "batch-first" if batch_first else "positions-first")

    def run(module: nn.Module, seed: int) -> Any:
        torch.manual_seed(seed)
        return module(*inputs, need_weights=need_weights)

    assert torch.equal(run(ours, 0)[0], run(ours, 1)[0])
    theirs.train()
    ours.train()
    assert not torch.equal(run(ours, 0)[0], run(ours, 1)[0])
    assert_equal(run(ours, 0), run(theirs, 0))


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_and_state_are_those_of_pytorch(kind: str) -> None:
    theirs, ours = both(batch_first=True, **KINDS[kind])
    inputs = sequences(theirs, "batch-first")
    for module in (theirs, ours):
        made, weights = module(*inputs)
        (made.pow(2).sum() + weights.pow(2).sum()).backward()
    gradients = [{n: p.grad for n, p in module.named_parameters()} for module in (theirs, ours)]
    assert_equal(gradients[1], gradients[0])
    assert_equal(ours.state_dict(), theirs.state_dict())


def test_numbers_of_half_width_stay_so() -> None:
    theirs, ours = (module.to(torch.bfloat16) for module in both(batch_first=True))
    inputs = [x.to(torch.bfloat16) for x in sequences(theirs, "batch-first")]
    mask = noise(QUERIES, KEYS).to(torch.bfloat16)
    for need_weights in (True, False):
        got = ours(*inputs, attn_mask=mask, need_weights=need_weights)
        wanted = theirs(*inputs, attn_mask=mask, need_weights=need_weights)
        assert got[0].dtype == torch.bfloat16
        torch.testing.assert_close(got, wanted, rtol=0.05, atol=0.05)


def test_attention_on_its_own_does_not_take_its_fused_path() -> None:
    theirs, ours = both(batch_first=True)
    x = noise(BATCH, 5, WIDTH)
    assert FUSED & operators(theirs, x, x, x)
    assert not FUSED & operators(ours, x, x, x)
