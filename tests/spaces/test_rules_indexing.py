"""Rules of indexing and embedding: which dimensions may shrink, and that a cut goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commuting import check_commutes, check_trace
from torch import Tensor, nn
from torch.nn import functional as F

from spaces import trace

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = torch.Generator().manual_seed(0)
MASK = torch.tensor([True, False, True, True, False])


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


def places(below: int, *shape: int) -> Tensor:
    return torch.randint(0, below, shape, generator=RANDOM)


def assigned(x: Tensor, key: Any, value: Any) -> Tensor:
    x = x.clone()
    x[key] = value
    return x


ALL = slice(None)
SOME = torch.tensor([0, 2])

#: What runs, its inputs, and for each the dimensions that may lose slots, worked out by hand.
INDEXING: dict[str, tuple[Callable[..., Any], list[Tensor], list[set[int]]]] = {
    "one index": (lambda x: x[:, torch.tensor([0, 3, 3, 1])], [numbers(4, 5, 6)], [{0, 2}]),
    "adjacent indices stay in place": (
        lambda x: x[:, torch.tensor([[0], [1]]), torch.tensor([2, 0, 1])],
        [numbers(4, 5, 6, 3)],
        [{0, 3}],
    ),
    "indices that are apart go to the front": (
        lambda x: x[:, SOME, :, SOME],
        [numbers(4, 5, 6, 3)],
        [{0, 2}],
    ),
    "a mask": (lambda x: x[:, MASK], [numbers(4, 5, 6)], [{0, 2}]),
    "a mask of two dimensions": (
        lambda x: x[torch.ones(4, 5, dtype=torch.bool).tril()],
        [numbers(4, 5, 6)],
        [{2}],
    ),
    "mask and index apart": (lambda x: x[MASK, :, torch.tensor([0, 2, 1])], [numbers(5, 4, 3)], [{1}]),
    "mask and index side by side": (
        lambda x: x[:, MASK, torch.tensor([0, 2, 1])],
        [numbers(4, 5, 3)],
        [{0}],
    ),
    "indices may shrink": (lambda x, i: x[:, i], [numbers(4, 5, 6), places(5, 3, 2)], [{0, 2}, {0, 1}]),
    "indices are stretched to each other": (
        lambda x, i, j: x[i, :, j],
        [numbers(4, 5, 6), places(4, 3, 2), places(6, 2)],
        [{1}, {0, 1}, {0}],
    ),
    "index_put": (
        lambda x, v: assigned(x, (ALL, SOME), v),
        [numbers(4, 5, 6), numbers(4, 2, 6)],
        [{0, 2}, {0, 2}],
    ),
    "index_put, stretched": (
        lambda x, v: assigned(x, (ALL, SOME), v),
        [numbers(4, 5, 6), numbers(6)],
        [{0, 2}, {0}],
    ),
    "index_put, apart": (
        lambda x, v: assigned(x, (SOME, ALL, SOME), v),
        [numbers(4, 5, 6), numbers(2, 5)],
        [{1}, {1}],
    ),
    "index_put under a mask": (
        lambda x, v: assigned(x, (ALL, MASK), v),
        [numbers(4, 5, 6), numbers(4, 3, 6)],
        [{0, 2}, {0, 2}],
    ),
    "one number under a mask": (lambda x: assigned(x, x > 0, 0.0), [numbers(4, 5, 6)], [{0, 1, 2}]),
    "index_put at given places": (
        lambda x, i, v: assigned(x, (ALL, i), v),
        [numbers(4, 5, 6), torch.tensor([4, 0, 2]), numbers(4, 3, 6)],
        [{0, 2}, set(), {0, 2}],
    ),
    "index_select": (
        lambda x, i: x.index_select(1, i),
        [numbers(4, 5, 6), places(5, 3)],
        [{0, 2}, {0}],
    ),
    "gather": (
        lambda x, i: x.gather(1, i),
        [numbers(4, 5, 6), places(5, 4, 3, 6)],
        [{0, 2}, {0, 1, 2}],
    ),
    "gather of a part": (
        lambda x, i: x.gather(1, i),
        [numbers(4, 5, 6), places(5, 4, 3, 2)],
        [{0}, {0, 1}],
    ),
    "take_along_dim": (
        lambda x, i: x.take_along_dim(i, 1),
        [numbers(4, 5, 6), places(5, 4, 3, 6)],
        [{0, 2}, {0, 1, 2}],
    ),
    "scatter": (
        lambda x, i, v: x.scatter(1, i, v),
        [numbers(4, 5, 6), torch.tensor([4, 0, 2])[None, :, None].repeat(4, 1, 6), numbers(4, 3, 6)],
        [{0, 2}, {0, 2}, {0, 2}],
    ),
    "scatter of a number": (
        lambda x, i: x.scatter(1, i, 1.0),
        [numbers(4, 5, 6), places(5, 4, 3, 6)],
        [{0, 2}, {0, 2}],
    ),
    "scatter_add of a part": (
        lambda x, i, v: x.scatter_add(1, i, v),
        [numbers(4, 5, 6), places(5, 4, 3, 2), numbers(4, 3, 6)],
        [{0}, {0}, {0}],
    ),
    "scatter_reduce": (
        lambda x, i, v: x.scatter_reduce(1, i, v, "amax"),
        [numbers(4, 5, 6), places(5, 4, 3, 6), numbers(4, 3, 6)],
        [{0, 2}, {0, 2}, {0, 2}],
    ),
    "index_add": (
        lambda x, v: x.index_add(1, torch.tensor([0, 3, 3]), v),
        [numbers(4, 5, 6), numbers(4, 3, 6)],
        [{0, 2}, {0, 2}],
    ),
    "index_copy": (
        lambda x, v: x.index_copy(1, torch.tensor([0, 3, 1]), v),
        [numbers(4, 5, 6), numbers(4, 3, 6)],
        [{0, 2}, {0, 2}],
    ),
    "index_fill": (lambda x: x.index_fill(1, SOME, 2.0), [numbers(4, 5, 6)], [{0, 2}]),
    "select_scatter": (
        lambda x, v: x.select_scatter(v, 1, 2),
        [numbers(4, 5, 6), numbers(4, 6)],
        [{0, 2}, {0, 1}],
    ),
    "slice_scatter of a part": (
        lambda x, v: x.slice_scatter(v, 1, 2, 4),
        [numbers(4, 5, 6), numbers(4, 2, 6)],
        [{0, 2}, {0, 2}],
    ),
    "slice_scatter of all": (
        lambda x, v: x.slice_scatter(v, 1),
        [numbers(4, 5, 6), numbers(4, 5, 6)],
        [{0, 1, 2}, {0, 1, 2}],
    ),
    "take": (lambda x, i: x.take(i), [numbers(4, 5), places(20, 3, 2)], [set(), {0, 1}]),
    "masked_scatter of whole rows": (
        lambda x, v: x.masked_scatter(MASK[None, :, None].expand_as(x), v),
        [numbers(4, 5, 6), numbers(12, 6)],
        [{2}, {1}],
    ),
    "masked_scatter, stretched by itself": (
        lambda x, v: x.masked_scatter(MASK[None, :, None], v),
        [numbers(4, 5, 6), numbers(12, 6)],
        [{2}, {1}],
    ),
    "masked_scatter of anything": (
        lambda x, v: x.masked_scatter(MASK[None, :, None].expand_as(x).contiguous(), v),
        [numbers(4, 5, 6), numbers(12, 6)],
        [set(), set()],
    ),
    "masked_select": (lambda x: x.masked_select(x > 0), [numbers(4, 5)], [set()]),
    "nonzero": (lambda x: x.nonzero(), [numbers(4, 5)], [set()]),
    "bucketize": (
        lambda x: torch.bucketize(x, torch.tensor([0.0, 0.5], dtype=x.dtype)),
        [numbers(4, 5)],
        [{0, 1}],
    ),
    "embedding": (lambda w, i: F.embedding(i, w), [numbers(7, 5), places(7, 4, 3)], [{1}, {0, 1}]),
    **{
        f"embedding_bag, {mode}": (
            lambda w, mode=mode: F.embedding_bag(torch.tensor([[0, 1], [2, 3], [4, 4]]), w, mode=mode),
            [numbers(7, 5)],
            [{1}],
        )
        for mode in ("mean", "sum", "max")
    },
}


@pytest.mark.parametrize("name", INDEXING)
def test_a_cut_of_the_inputs_is_a_cut_of_the_outputs(name: str) -> None:
    function, tensors, free = INDEXING[name]
    for seed in range(6):
        assert check_commutes(function, tensors, seed=seed) == free


class RelativePositions(nn.Module):
    """Scores of pairs of tokens from a table with a column per head."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 4), nn.Linear(4, 2)
        self.table = nn.Parameter(torch.randn(9, 4))
        self.register_buffer("index", torch.arange(5)[:, None] - torch.arange(5) + 4)

    def forward(self, x: Tensor) -> Tensor:
        heads = self.enter(x).transpose(1, 2)
        bias = self.table[self.index.view(-1)].view(5, 5, -1).permute(2, 0, 1)
        weights = (heads[..., None] * heads[..., None, :] + bias).softmax(-1)
        return self.head((weights * heads[..., None, :]).sum(-1).transpose(1, 2))


class Tokens(nn.Module):
    """Embeddings of tokens and of positions; the last layer shares the former's weight."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.tokens, self.positions = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.inner, self.outer = nn.Linear(8, 12), nn.Linear(12, 8)
        self.head = nn.Linear(8, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.tokens(ids) + self.positions(torch.arange(ids.shape[1], device=ids.device))
        return self.head(x + self.outer(self.inner(x).relu()))


class Bags(nn.Module):
    """Words without order."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.bag, self.head = nn.EmbeddingBag(11, 8, mode=mode), nn.Linear(8, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.bag(ids).relu())


class BestTokens(nn.Module):
    """Only the tokens with the highest scores are worked on; then they are put back."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.score, self.work = nn.Linear(6, 8), nn.Linear(6, 1), nn.Linear(8, 8)
        self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        best = self.score(x).topk(2, dim=1).indices
        x = self.enter(x).relu()
        index = best.repeat(1, 1, x.shape[2])
        return self.head(x.scatter(1, index, self.work(x.gather(1, index))))


class Assigned(nn.Module):
    """Some tokens are written into others, at fixed places."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.work, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu()
        made = torch.zeros_like(x)
        made[:, torch.tensor([0, 3], device=x.device)] = self.work(x[:, 1:3])
        return self.head(made + x)


TOKENS = numbers(2, 5, 6)
IDS = places(11, 2, 5)

#: Network, input, and where the units of each group live.
NETS: dict[str, tuple[Callable[[], nn.Module], Tensor, dict[str, tuple[int, set[tuple[str, int]]]]]] = {
    "columns of a table of relative positions": (
        RelativePositions,
        TOKENS,
        {"enter": (4, {("enter.weight", 0), ("enter.bias", 0), ("table", 1), ("head.weight", 1)})},
    ),
    "columns of embeddings": (
        Tokens,
        IDS,
        {
            "tokens": (
                8,
                {
                    ("tokens.weight", 1),
                    ("positions.weight", 1),
                    ("inner.weight", 1),
                    ("outer.weight", 0),
                    ("outer.bias", 0),
                    ("head.weight", 1),
                },
            ),
            "inner": (12, {("inner.weight", 0), ("inner.bias", 0), ("outer.weight", 1)}),
        },
    ),
    "an embedding that is the last layer, too": (
        lambda: Tokens(tied=True),
        IDS,
        {
            "tokens": (
                8,
                {
                    ("tokens.weight", 1),
                    ("positions.weight", 1),
                    ("inner.weight", 1),
                    ("outer.weight", 0),
                    ("outer.bias", 0),
                },
            ),
            "inner": (12, {("inner.weight", 0), ("inner.bias", 0), ("outer.weight", 1)}),
        },
    ),
    **{
        f"a bag of embeddings, {mode}": (
            lambda mode=mode: Bags(mode),
            IDS,
            {"bag": (8, {("bag.weight", 1), ("head.weight", 1)})},
        )
        for mode in ("sum", "mean", "max")
    },
    "tokens that are picked and put back": (
        BestTokens,
        TOKENS,
        {
            "enter": (
                8,
                {
                    ("enter.weight", 0),
                    ("enter.bias", 0),
                    ("work.weight", 0),
                    ("work.weight", 1),
                    ("work.bias", 0),
                    ("head.weight", 1),
                },
            )
        },
    ),
    "tokens that are written into others": (
        Assigned,
        TOKENS,
        {
            "enter": (
                8,
                {
                    ("enter.weight", 0),
                    ("enter.bias", 0),
                    ("work.weight", 0),
                    ("work.weight", 1),
                    ("work.bias", 0),
                    ("head.weight", 1),
                },
            )
        },
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_the_groups_are_there_and_their_cuts_are_right(name: str) -> None:
    build, example, groups = NETS[name]
    assert check_trace(build(), example, counted="bag" not in name) == groups


def test_columns_of_an_embedding_are_its_outputs() -> None:
    space = trace(Tokens(), IDS)
    roles = {(m.tensor, m.dim): m.role for m in space.groups[0].members}
    assert roles["tokens.weight", 1] == roles["positions.weight", 1] == "output"
    assert roles["head.weight", 1] == "input"


class FixedChannels(nn.Module):
    """Channels are picked by number."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.enter(x)[:, :, torch.tensor([0, 2, 5], device=x.device)])


def test_channels_that_are_picked_by_number_stay() -> None:
    space = trace(FixedChannels().double(), TOKENS)
    assert space.groups == ()
    (enter,) = (some for some in space.frozen if some.name == "enter")
    assert (enter.width, enter.reason, enter.operator) == (8, "indexed", "aten.index.Tensor")


def test_embeddings_that_are_rescaled_stay() -> None:
    model = nn.Sequential(nn.Embedding(11, 8, max_norm=1.0), nn.Linear(8, 2))
    assert trace(model, IDS).groups == ()
