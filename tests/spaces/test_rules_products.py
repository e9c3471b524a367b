"""Rules of sorts, extremes and rarer products: which dimensions may shrink, and that a cut goes through."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import torch
from commuting import check_commutes, check_trace, free_dims
from torch import Tensor, nn
from torch.nn import functional as F

from spaces import Architecture, trace
from spaces.follow import Follow, Whereabouts
from spaces.slots import Slots

if TYPE_CHECKING:
    from collections.abc import Callable

RANDOM = torch.Generator().manual_seed(0)


def numbers(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=RANDOM, dtype=torch.float64)


#: Sorts and extremes along dimension 1, which stays; its neighbours do not.
ALONG_ONE = {
    "sort": lambda x: x.sort(1),
    "stable sort": lambda x: x.sort(dim=1, stable=True),
    "argsort": lambda x: x.argsort(1),
    "topk": lambda x: x.topk(2, 1),
    "cummax": lambda x: x.cummax(1),
    "cummin": lambda x: x.cummin(1),
    "cumprod": lambda x: x.cumprod(1),
    "logcumsumexp": lambda x: x.logcumsumexp(1),
    "softmax": lambda x: torch._safe_softmax(x, 1),
    "argmax": lambda x: x.argmax(1),
    "argmin, dimension kept": lambda x: x.argmin(1, keepdim=True),
    "max": lambda x: x.max(1),
    "min, dimension kept": lambda x: x.min(1, keepdim=True),
    "median": lambda x: x.median(1),
    "kthvalue": lambda x: x.kthvalue(2, 1),
    "mode": lambda x: x.mode(1),
    "prod": lambda x: x.prod(1),
    "logsumexp": lambda x: x.logsumexp(1),
    "aminmax": lambda x: x.aminmax(dim=1),
    "any": lambda x: (x > 1).any(1),
    "all": lambda x: x.isfinite().all(1),
}

#: Reductions to which zeros add nothing.
DROPPING = {
    "count_nonzero": lambda x: x.count_nonzero(1),
    "nansum": lambda x: x.nansum(1),
    "norm": lambda x: torch.norm(x, 1.5, 1),
}

ORDERING: dict[str, tuple[Callable[..., Any], list[Tensor], list[set[int]]]] = {
    # Sizes are equal on purpose: a rule that mixes up two dimensions can not hide behind them.
    **{name: (function, [numbers(5, 5, 5)], [{0, 2}]) for name, function in ALONG_ONE.items()},
    **{name: (function, [numbers(5, 5, 5)], [{0, 1, 2}]) for name, function in DROPPING.items()},
    "any of all": (lambda x: (x > 1).any(), [numbers(4, 5)], [set()]),
    "argmax of all": (lambda x: x.argmax(), [numbers(4, 5)], [set()]),
    "max of all": (lambda x: x.max(), [numbers(4, 5)], [set()]),
    "logsumexp of two dimensions": (lambda x: x.logsumexp((0, 2)), [numbers(4, 5, 6)], [{1}]),
    "max and min of two": (
        lambda x, y: torch.max(x, y) + torch.min(x, y),
        [numbers(4, 5), numbers(4, 5)],
        [{0, 1}, {0, 1}],
    ),
}

PRODUCTS: dict[str, tuple[Callable[..., Any], list[Tensor], list[set[int]]]] = {
    "baddbmm": (
        torch.baddbmm,
        [numbers(4, 5, 3), numbers(4, 5, 6), numbers(4, 6, 3)],
        [{0, 1, 2}, {0, 1, 2}, {0, 1, 2}],
    ),
    "baddbmm, stretched": (
        torch.baddbmm,
        [numbers(5, 1), numbers(4, 5, 6), numbers(4, 6, 3)],
        [{0}, {0, 1, 2}, {0, 1, 2}],
    ),
    "addbmm": (
        torch.addbmm,
        [numbers(3), numbers(4, 5, 6), numbers(4, 6, 3)],
        [{0}, {0, 1, 2}, {0, 1, 2}],
    ),
    "mv": (torch.mv, [numbers(4, 5), numbers(5)], [{0, 1}, {0}]),
    "addmv": (torch.addmv, [numbers(4), numbers(4, 5), numbers(5)], [{0}, {0, 1}, {0}]),
    "addmv, stretched": (
        torch.addmv,
        [numbers(1), numbers(4, 5), numbers(5)],
        [set(), {0, 1}, {0}],
    ),
    "dot": (torch.dot, [numbers(5), numbers(5)], [{0}, {0}]),
    "vdot": (torch.vdot, [numbers(5), numbers(5)], [{0}, {0}]),
    "addr": (torch.addr, [numbers(4, 5), numbers(4), numbers(5)], [{0, 1}, {0}, {0}]),
    "bilinear": (
        F.bilinear,
        [numbers(7, 4), numbers(7, 5), numbers(3, 4, 5), numbers(3)],
        [{0, 1}, {0, 1}, {0, 1, 2}, {0}],
    ),
    "cdist": (torch.cdist, [numbers(2, 4, 5), numbers(2, 3, 5)], [{0, 1, 2}, {0, 1, 2}]),
    "cdist of many rows": (torch.cdist, [numbers(30, 5), numbers(3, 5)], [{0, 1}, {0, 1}]),
    "cdist of absolute values": (
        lambda x, y: torch.cdist(x, y, p=1.0),
        [numbers(4, 5), numbers(3, 5)],
        [{0, 1}, {0, 1}],
    ),
    "pdist": (F.pdist, [numbers(4, 5)], [{1}]),
}

OPERATORS = {**ORDERING, **PRODUCTS}


@pytest.mark.parametrize("name", OPERATORS)
def test_a_cut_of_the_inputs_is_a_cut_of_the_outputs(name: str) -> None:
    function, tensors, free = OPERATORS[name]
    for seed in range(6):
        assert check_commutes(function, tensors, seed=seed) == free


def test_experts_stay() -> None:
    """Not cut here: the product in groups wants sizes that are multiples of four."""
    rows, experts = torch.randn(8, 16), torch.randn(2, 16, 8)
    slots = Slots()
    slots.register("rows", rows, is_parameter=True)
    slots.register("experts", experts, is_parameter=True)
    with torch.no_grad(), Follow(slots, Whereabouts(nn.Module())):
        made = torch._grouped_mm(rows, experts, offs=torch.tensor([3, 8], dtype=torch.int32))
    assert free_dims(slots, [rows, experts, made]) == [{0, 1}, {1, 2}, {0, 1}]
    (term,) = slots.terms
    assert (term.constant, [len(size) for size in term.sizes]) == (1, [8, 16, 8])


class BiasedScores(nn.Module):
    """Queries and keys whose product gets a bias in the same operator, as in Bloom."""

    def __init__(self) -> None:
        super().__init__()
        self.query, self.key, self.head = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(5, 2)
        self.bias = nn.Parameter(torch.randn(5, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.baddbmm(self.bias, self.query(x), self.key(x).mT, alpha=0.5))


class Codebook(nn.Module):
    """Distances to points, of which there are a fixed number."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.points = nn.Linear(6, 8), nn.Parameter(torch.randn(7, 8))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cdist(self.enter(x), self.points)


class Pairing(nn.Module):
    """A bilinear layer between two others."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.pair = nn.Linear(6, 4), nn.Linear(6, 8), nn.Bilinear(4, 8, 5)
        self.head = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pair(self.left(x), self.right(x)).relu())


class Voted(nn.Module):
    """Tokens are weighted by their products with one vector."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.vector, self.head = nn.Linear(6, 8), nn.Parameter(torch.randn(8)), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        return self.head(x * (x @ self.vector)[..., None])


def test_queries_and_keys_of_a_product_with_a_summand() -> None:
    example = numbers(2, 5, 6)
    groups = check_trace(BiasedScores(), example, counted=False)
    members = {("query.weight", 0), ("query.bias", 0), ("key.weight", 0), ("key.bias", 0)}
    assert groups == {"query": (8, members)}
    space = trace(BiasedScores().double(), example)
    macs = 5 * (2 * 6 * 3 + 5 * 3 + 5 * 2)
    assert space.macs(Architecture.of({"query": 3})) == macs


def test_columns_of_a_codebook() -> None:
    members = {("enter.weight", 0), ("enter.bias", 0), ("points", 1)}
    assert check_trace(Codebook(), numbers(2, 5, 6), counted=False) == {"enter": (8, members)}


def test_all_sides_of_a_bilinear_layer() -> None:
    assert check_trace(Pairing(), numbers(2, 6), counted=False) == {
        "left": (4, {("left.weight", 0), ("left.bias", 0), ("pair.weight", 1)}),
        "right": (8, {("right.weight", 0), ("right.bias", 0), ("pair.weight", 2)}),
        "pair": (5, {("pair.weight", 0), ("pair.bias", 0), ("head.weight", 1)}),
    }


def test_a_vector_goes_along_with_the_columns_of_a_matrix() -> None:
    example = numbers(2, 5, 6)
    members = {("enter.weight", 0), ("enter.bias", 0), ("vector", 0), ("head.weight", 1)}
    assert check_trace(Voted(), example, counted=False) == {"enter": (8, members)}
    space = trace(Voted().double(), example)
    assert space.macs(Architecture.of({"enter": 3})) == 5 * (6 * 3 + 3 + 3 * 2)


class Ordered(nn.Module):
    """Channels are sorted or multiplied up, one after another."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.enter(x)))


@pytest.mark.parametrize("function", [lambda x: x.sort(1).values, lambda x: x.cumprod(1)])
def test_channels_that_are_ordered_stay(function: Callable[[Tensor], Tensor]) -> None:
    space = trace(Ordered(function).double(), numbers(2, 6))
    assert space.groups == ()
    assert {some.reason for some in space.frozen if some.name == "enter"} == {"ordered by its numbers"}
