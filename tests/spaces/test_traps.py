"""Known ways to be silently wrong. Whatever a trace offers as a choice must be right."""

from __future__ import annotations

import pytest
import torch
from rightness import assert_equal, names, randomised, right
from torch import Tensor, nn
from torch.nn import functional as F
from traps import TOKENS, VECTOR, Function, Trap

from spaces import cut, trace
from spaces.surgery import masked

# The spread of a single channel is not a number, of which torch warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*degrees of freedom is <= 0")


# -- reductions over channels -------------------------------------------------------------------------

REDUCTIONS: dict[str, Function] = {
    "mean": lambda _, x: x - x.mean(1, keepdim=True),
    "max": lambda _, x: x - x.max(1, keepdim=True).values,
    "amax": lambda _, x: x / x.amax(1, keepdim=True),
    "amin": lambda _, x: x - x.amin(1, keepdim=True),
    "softmax": lambda _, x: x.softmax(1),
    "log_softmax": lambda _, x: x.log_softmax(1),
    "logsumexp": lambda _, x: x - x.logsumexp(1, keepdim=True),
    "std": lambda _, x: x / x.std(1, keepdim=True),
    "var": lambda _, x: x / x.var(1, keepdim=True),
    "var_mean": lambda _, x: x * torch.var_mean(x, 1, keepdim=True)[0],
    "norm": lambda _, x: x / x.norm(dim=1, keepdim=True),
    "norm-1": lambda _, x: x / x.norm(p=1, dim=1, keepdim=True),
    "norm-inf": lambda _, x: x / x.norm(p=float("inf"), dim=1, keepdim=True),
    "normalize": lambda _, x: F.normalize(x, dim=1),
    "sum": lambda _, x: x * x.sum(1, keepdim=True),
    "sum-of-sigmoid": lambda _, x: x * x.sigmoid().sum(1, keepdim=True),
    "sum-of-shifted": lambda _, x: x * (x + 1).sum(1, keepdim=True),
    "sum-of-everything": lambda _, x: x * x.exp().sum(),
    "prod": lambda _, x: x * x.prod(1, keepdim=True),
    "median": lambda _, x: x - x.median(1, keepdim=True).values,
    "cumsum": lambda _, x: x.cumsum(1),
    "cumsum-of-sigmoid": lambda _, x: x.sigmoid().cumsum(1),
    "cumprod": lambda _, x: x.cumprod(1),
    "cummax": lambda _, x: x.cummax(1).values,
    "sort": lambda _, x: x.sort(1).values,
    "argmax": lambda _, x: x * (1 + x.argmax(1, keepdim=True)),
    "argsort": lambda _, x: x + x.argsort(1),
    "topk": lambda _, x: x * (x >= x.topk(3, dim=1).values[:, -1:]),
    "any": lambda _, x: x * (x <= 0).any(1, keepdim=True),
    "all": lambda _, x: x * (x > -0.1).all(1, keepdim=True),
    "layer_norm": lambda _, x: F.layer_norm(x, x.shape[1:]),
    "rms_norm": lambda _, x: F.rms_norm(x, x.shape[1:]),
    "group_norm": lambda _, x: F.group_norm(x, 2),
    "response_norm": lambda _, x: F.local_response_norm(x[:, :, None], 3).squeeze(2),
    "glu": lambda _, x: F.pad(F.glu(x, 1), (2, 2)),
    "diff": lambda _, x: F.pad(x.diff(dim=1), (0, 1)),
    "roll": lambda _, x: x.roll(1, 1),
    "flip": lambda _, x: x.flip(1),
    "pool": lambda _, x: F.avg_pool1d(x[:, None], 3, stride=1, padding=1)[:, 0],
    "max-pool": lambda _, x: F.max_pool1d(x[:, None], 3, stride=1, padding=1)[:, 0],
    "interpolate": lambda _, x: F.interpolate(x[:, None], size=8, mode="linear")[:, 0],
    "gram": lambda _, x: (x[:, :, None] * x[:, None, :]).softmax(-1).sum(1),
    "positive-features": lambda _, x: x * ((F.elu(x) + 1) @ (F.elu(x) + 1).t()).sum(1, keepdim=True),
    "cosine": lambda _, x: x * F.cosine_similarity(x, x.roll(1, 0), dim=1)[:, None],
    "distance": lambda _, x: x * torch.cdist(x, x).sum(1, keepdim=True),
    "zero-by-zero": lambda _, x: x / x,
}


@pytest.mark.parametrize("name", REDUCTIONS)
def test_operators_over_channels(name: str) -> None:
    assert "side" in names(right(Trap(REDUCTIONS[name]), VECTOR))


@pytest.mark.parametrize("name", ["sum", "norm", "normalize"])
def test_operators_that_do_not_notice_zeros_keep_their_channels_exact(name: str) -> None:
    (group,) = (g for g in right(Trap(REDUCTIONS[name]), VECTOR).groups if g.name == "enter")
    assert group.exact


@pytest.mark.parametrize("name", ["argmax", "argsort", "sort", "roll", "flip", "cummax", "topk", "diff"])
def test_operators_that_read_places_leave_no_choice(name: str) -> None:
    assert "enter" not in names(right(Trap(REDUCTIONS[name]), VECTOR))


def test_an_index_of_a_channel_is_an_output() -> None:
    class Which(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.inner, self.outer = nn.Linear(6, 8), nn.Linear(8, 10), nn.Linear(10, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(self.inner(self.enter(x)).relu()).argmax(1)

    assert names(right(Which(), VECTOR)) == {"enter", "inner"}


def test_weights_that_are_standardised_by_their_own_mean() -> None:
    class Standardised(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            centred = self.weight - self.weight.mean(1, keepdim=True)
            return F.linear(x, centred / centred.std(1, keepdim=True), self.bias)

    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), Standardised(8, 7), nn.ReLU(), nn.Linear(7, 3))
    assert "2" in names(right(model, VECTOR))


def test_weights_divided_by_their_largest_singular_value() -> None:
    layer = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 7))
    model = nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 8), nn.ReLU(), layer, nn.Linear(7, 3))
    assert "0" in names(right(model, VECTOR))


@torch.no_grad()
def test_weights_of_learnt_length() -> None:
    """A row that is zero has no direction, so the masked network is that of the plain weights."""
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(8, 7))
    model = randomised(nn.Sequential(nn.Linear(6, 8), nn.ReLU(), layer, nn.ReLU(), nn.Linear(7, 3)))
    space, plain = trace(model, VECTOR), nn.Sequential(*model)
    plain[2] = nn.Linear(8, 7).double()
    plain[2].load_state_dict({"weight": layer.weight, "bias": layer.bias})
    groups = {group.name.partition(".")[0]: group for group in space.groups}
    assert set(groups) == {"0", "2"}
    kept = {"2": torch.tensor([1, 2, 6])}
    small = cut(model, space, {groups["2"].name: kept["2"]})
    assert_equal(small(VECTOR), masked(plain, trace(plain, VECTOR), kept)(VECTOR))
    # Of a row that loses columns, the others are stretched to its learnt length.
    kept = {"0": torch.tensor([0, 3])}
    assert_equal(cut(model, space, kept)(VECTOR), masked(model, space, kept)(VECTOR))


# -- attention ----------------------------------------------------------------------------------------


class Attends(nn.Module):
    """One head, or several through a view; then a layer that must stay free."""

    def __init__(self, heads: int | None, scale: float | None, *, divide: bool = False) -> None:
        super().__init__()
        self.q, self.k, self.v = nn.Linear(6, 8), nn.Linear(6, 8), nn.Linear(6, 8)
        self.out, self.hidden, self.head = nn.Linear(8, 6), nn.Linear(6, 10), nn.Linear(10, 3)
        self.heads, self.scale, self.divide = heads, scale, divide

    def split(self, x: Tensor) -> Tensor:
        return x if self.heads is None else x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        if self.divide:
            mixed = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        mixed = mixed if self.heads is None else mixed.transpose(1, 2).flatten(2)
        return self.head(self.hidden(self.out(mixed)).relu())


def test_the_default_scale_of_attention_fixes_the_width_of_queries_and_keys() -> None:
    space = right(Attends(None, None), TOKENS)
    assert {"v", "out", "hidden"} <= names(space)
    assert not {"q", "k"} & names(space)


def test_a_scale_from_the_width_of_queries_fixes_that_width() -> None:
    space = right(Attends(None, None, divide=True), TOKENS)
    assert {"v", "out", "hidden"} <= names(space)
    assert not {"q", "k"} & names(space)


def test_an_explicit_scale_leaves_the_width_free() -> None:
    assert {"q", "v", "out", "hidden"} <= names(right(Attends(None, 0.3), TOKENS))


@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("divide", [False, True])
def test_heads_may_go_and_never_the_width_of_each_under_a_default_scale(
    scale: float | None, divide: bool
) -> None:
    space = right(Attends(4, scale, divide=divide), TOKENS)
    assert {"out", "hidden"} <= names(space)
    widths = {group.name: (group.width, group.unit_channels) for group in space.groups}
    if scale is None or divide:
        assert widths.get("q", (4, 2)) == (4, 2)
