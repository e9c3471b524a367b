"""Sizes, indices and constants of a model's own code: known ways to be silently wrong."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
import torch
from rightness import names, right
from torch import Tensor, nn
from torch.nn import functional as F
from traps import IMAGE, TOKENS, VECTOR, Function, Trap

from spaces import cut

if TYPE_CHECKING:
    from collections.abc import Callable

# -- attributes that equal a width by coincidence -----------------------------------------------------


class Loops(nn.Module):
    """As many steps as channels."""

    def __init__(self) -> None:
        super().__init__()
        self.steps = 8
        self.enter, self.step, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for _ in range(self.steps):
            x = x + 0.1 * self.step(x).tanh()
        return self.head(x)


class Places(nn.Module):
    """As many positions as channels, and a view that names them."""

    def __init__(self) -> None:
        super().__init__()
        self.size = 8
        self.enter, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).flatten(2).relu()
        return self.head(x.view(x.shape[0], -1, self.size, self.size))


class Tokens(nn.Module):
    """As many tokens as channels, mixed along both."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.width = 8, 8
        self.enter, self.mix, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).view(-1, self.tokens, self.width)
        x = x + self.mix(x.transpose(1, 2)).relu().transpose(1, 2)
        return self.head(x)


class Divides(nn.Module):
    """The number of channels only scales."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.enter(x).relu() / self.width)


class DividesAndViews(nn.Module):
    """The same integer shapes and scales: no value of it is right for a cut."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.side, self.side_head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        beside = self.side_head(self.side(x).relu())
        return self.head(self.enter(x).view(-1, self.width).relu() / self.width) + beside


class HeadsAndTemperature(nn.Module):
    """Of two equal integers one shapes and one scales."""

    def __init__(self) -> None:
        super().__init__()
        self.temperature, self.heads, self.depth = 4, 4, 4
        self.values, self.out = nn.Linear(6, 8), nn.Linear(8, 6)
        self.hidden, self.head = nn.Linear(6, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        v = self.values(x).view(*x.shape[:2], self.heads, -1).transpose(1, 2)
        mixed = (v @ v.transpose(-1, -2) / self.temperature).softmax(-1) @ v
        x = self.out(mixed.transpose(1, 2).flatten(2))
        for _ in range(self.depth):
            x = x.tanh() * 1.5
        return self.head(self.hidden(x).relu())


class HeadsAsManyAsChannels(nn.Module):
    """The number of heads equals the width of the residual stream, from which it does not follow."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.head_width, self.scale = heads, 3, 0.4
        self.enter, self.hidden, self.head = nn.Linear(6, heads), nn.Linear(heads, 10), nn.Linear(10, 3)
        self.q, self.k, self.v = (nn.Linear(heads, 3 * heads) for _ in range(3))
        self.out = nn.Linear(3 * heads, heads)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], self.heads, self.head_width).transpose(1, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        q, k, v = self.split(self.q(x)), self.split(self.k(x)), self.split(self.v(x))
        mixed = (q @ k.transpose(-1, -2) * self.scale).softmax(-1) @ v
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        return self.head(self.hidden(x).relu())


class PadsTo(nn.Module):
    """An integer that makes a cut run again by filling up with zeros at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.width = 8
        self.enter, self.mix = nn.Linear(6, 8), nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        x = F.pad(x, (0, self.width - x.shape[1]))
        return self.head(self.mix(x).relu())


class Dilated(nn.Module):
    """A convolution whose kernel, groups and widths are all the same number."""

    def __init__(self) -> None:
        super().__init__()
        self.enter = nn.Conv1d(6, 4, 1)
        self.wide = nn.Conv1d(4, 4, 4, dilation=4, padding=6, groups=1)
        self.each = nn.Conv1d(4, 4, 4, padding=4, stride=4, groups=4)
        self.head = nn.Conv1d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.each(self.wide(self.enter(x)).relu()))


@dataclass
class Case:
    build: Callable[[], nn.Module]
    example: Tensor
    free: set[str]
    whole: set[str] = field(default_factory=set)


EIGHT = torch.randn(2, 8, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
SERIES = torch.randn(2, 6, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

COINCIDENCES = {
    "loops": Case(Loops, IMAGE, {"enter"}),
    "places": Case(Places, IMAGE, {"enter"}),
    "tokens": Case(Tokens, EIGHT, {"enter"}),
    "divides": Case(Divides, VECTOR, {"enter"}),
    "divides-and-views": Case(DividesAndViews, VECTOR, {"side"}, {"enter"}),
    "heads-and-temperature": Case(HeadsAndTemperature, TOKENS, {"out", "hidden", "values"}),
    "pads-to": Case(PadsTo, VECTOR, {"mix"}),
    "dilated": Case(Dilated, SERIES, {"enter", "wide"}),
}


@pytest.mark.parametrize("name", COINCIDENCES)
def test_an_integer_that_equals_a_width_by_coincidence(name: str) -> None:
    case = COINCIDENCES[name]
    model = case.build()
    space = right(model, case.example)
    assert case.free <= names(space)
    assert not case.whole & names(space)


@pytest.mark.parametrize("heads", range(3, 9))
def test_an_integer_that_equals_the_widths_of_two_groups(heads: int) -> None:
    assert {"enter", "q", "hidden"} <= names(right(HeadsAsManyAsChannels(heads), TOKENS))


def test_an_integer_that_only_counts_steps_is_not_touched() -> None:
    model = Loops()
    space = right(model, IMAGE)
    assert cut(model, space, {"enter": torch.tensor([0, 3, 4])}).steps == 8


# -- sizes and constants that Python made -------------------------------------------------------------


class Permuted(Trap):
    """A buffer of channel indices."""

    def __init__(self, index: list[int], how: Function) -> None:
        super().__init__(how)
        self.register_buffer("index", torch.tensor(index))
        self.constant = torch.linspace(0, 1, 8, dtype=torch.float64)
        self.sizes, self.shape, self.half = [3, 5], (2, 4), 4
        self.kept = slice(0, 4)
        self.mask = nn.Parameter(torch.ones(8), requires_grad=False)
        self.four = nn.Linear(4, 8)


PERMUTATION = [3, 1, 7, 5, 0, 2, 6, 4]
LOW = [0, 1, 2, 3, 3, 2, 1, 0]  # stays in range in most cuts

PLACES: dict[str, tuple[list[int], Function]] = {
    "permutation": (PERMUTATION, lambda m, x: x[:, m.index]),
    "permutation-select": (PERMUTATION, lambda m, x: x.index_select(1, m.index)),
    "permutation-gather": (PERMUTATION, lambda m, x: x.gather(1, m.index.expand(len(x), -1))),
    "permutation-take": (PERMUTATION, lambda m, x: torch.take_along_dim(x, m.index[None], 1)),
    "low-index": (LOW, lambda m, x: x[:, m.index]),
    "low-select": (LOW, lambda m, x: x.index_select(1, m.index)),
    "low-gather": (LOW, lambda m, x: x.gather(1, m.index.expand(len(x), -1))),
    "index-of-this-width": (LOW, lambda m, x: x[:, m.index[: x.shape[1]] % x.shape[1]]),
    "reversed-by-index": (LOW, lambda _, x: x[:, torch.arange(x.shape[1] - 1, -1, -1)]),
    "scatter": (
        PERMUTATION,
        lambda m, x: torch.zeros_like(x).index_copy(1, m.index[: x.shape[1]] % x.shape[1], x),
    ),
    "arange": (LOW, lambda _, x: x + torch.arange(8)),
    "arange-of-this-width": (LOW, lambda _, x: x + torch.arange(x.shape[1])),
    "linspace-of-this-width": (LOW, lambda _, x: x * torch.linspace(0, 1, x.shape[1], dtype=x.dtype)),
    "eye-of-this-width": (LOW, lambda _, x: x @ torch.eye(x.shape[1], dtype=x.dtype)),
    "triangle-of-this-width": (
        LOW,
        lambda _, x: x.sigmoid() @ torch.ones(x.shape[1], x.shape[1]).to(x).tril(),
    ),
    "frequencies-of-this-width": (LOW, lambda _, x: x * 100.0 ** (-torch.arange(x.shape[1]) / x.shape[1])),
    "constant": (LOW, lambda m, x: x * m.constant),
    "constant-cut-to-fit": (LOW, lambda m, x: x * m.constant[: x.shape[1]]),
    "constant-from-the-end": (LOW, lambda m, x: x * m.constant[-x.shape[1] :]),
    "width": (LOW, lambda _, x: x * x.shape[1]),
    "width-root": (LOW, lambda _, x: x / x.size(-1) ** 0.5),
    "numel": (LOW, lambda _, x: x / x.numel()),
    "first-half": (LOW, lambda _, x: torch.cat([x[:, :4], x[:, 4:].relu()], 1)),
    "half-of-this-width": (
        LOW,
        lambda _, x: torch.cat([x[:, : x.shape[1] // 2], x[:, x.shape[1] // 2 :].relu()], 1),
    ),
    "half-by-attribute": (LOW, lambda m, x: torch.cat([x[:, : m.half], x[:, m.half :].relu()], 1)),
    "slice-by-attribute": (LOW, lambda m, x: m.four(x[:, m.kept])),
    "written-in-place": (LOW, lambda _, x: _first_four_doubled(x)),
    "every-other": (LOW, lambda m, x: m.four(x[:, ::2])),
    "last": (LOW, lambda _, x: x + x[:, -1:]),
    "sizes": (
        LOW,
        lambda m, x: torch.cat([part.mul(i + 1) for i, part in enumerate(x.split(m.sizes, 1))], 1),
    ),
    "shape": (LOW, lambda m, x: (x.view(-1, *m.shape) * torch.tensor([[1.0], [2.0]])).flatten(1)),
    "unfold": (LOW, lambda m, x: m.four(x.unfold(1, 4, 4).sum(1))),
    "pad-to-eight": (LOW, lambda _, x: F.pad(x, (0, 8 - x.shape[1]))),
    "pad-before-to-eight": (LOW, lambda _, x: F.pad(x, (8 - x.shape[1], 0))),
    "new-zeros": (LOW, lambda _, x: torch.cat([x, x.new_zeros(len(x), 8)], 1)[:, :8]),
    "repeat-to-eight": (LOW, lambda _, x: x.repeat(1, 9)[:, :8]),
    "one-hot": (LOW, lambda m, x: x + F.one_hot(m.index[0] % x.shape[1], x.shape[1])),
    "masked-fill": (LOW, lambda m, x: x.masked_fill(m.constant > 0.5, 0.0)),
    "where": (LOW, lambda m, x: torch.where(m.constant > 0.5, x, -x)),
    "outer": (LOW, lambda m, x: (x[:, :, None] * m.constant[None, None]).sum(2)),
    "if-narrow": (LOW, lambda _, x: x * (2 if x.shape[1] < 4 else 1)),
    "if-very-narrow": (LOW, lambda _, x: x * (2 if x.shape[1] < 2 else 1)),
    "if-not-full": (LOW, lambda _, x: x * (2 if x.shape[1] < 8 else 1)),
    "if-odd": (LOW, lambda _, x: x * (1 + x.shape[1] % 2)),
}


def _first_four_doubled(x: Tensor) -> Tensor:
    x = x.clone()
    x[:, :4] *= 2
    return x


@pytest.mark.parametrize("name", PLACES)
def test_sizes_indices_and_constants_of_the_models_own_code(name: str) -> None:
    index, function = PLACES[name]
    assert "side" in names(right(Permuted(index, function), VECTOR))


@pytest.mark.parametrize(
    "name", ["permutation", "low-index", "low-gather", "arange-of-this-width", "constant-cut-to-fit", "width"]
)
def test_places_that_the_code_fixes_leave_no_choice(name: str) -> None:
    index, function = PLACES[name]
    assert "enter" not in names(right(Permuted(index, function), VECTOR))


FREE: dict[str, Function] = {
    "zeros": lambda _, x: x + torch.zeros(x.shape[1], dtype=x.dtype),
    "ones": lambda _, x: x * torch.ones(x.shape, dtype=x.dtype),
    "full": lambda _, x: x * torch.full((1, x.shape[1]), 0.5, dtype=x.dtype),
    "zeros-like": lambda _, x: torch.cat([x, torch.zeros_like(x)], 1)[:, : x.shape[1]],
    "view": lambda _, x: x.view(len(x), 1, x.shape[1]).squeeze(1),
    "maximum": lambda _, x: torch.maximum(x, x.new_zeros(x.shape[1])),
    "expand": lambda _, x: x * x.new_tensor([2.0]).expand(x.shape[1]),
}


@pytest.mark.parametrize("name", FREE)
def test_constants_that_are_the_same_for_every_channel_follow_the_width(name: str) -> None:
    assert {"enter", "side"} <= names(right(Trap(FREE[name]), VECTOR))


def test_a_state_of_explicit_size() -> None:
    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.hidden = 8
            self.rnn, self.inner, self.head = nn.GRU(6, 8, batch_first=True), nn.Linear(8, 9), nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            state = x.new_zeros(1, len(x), self.hidden)
            return self.head(self.inner(self.rnn(x, state)[0]).relu())

    assert "inner" in names(right(Stateful(), TOKENS))


def test_an_input_that_is_added_fixes_the_width() -> None:
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.inner, self.head = nn.Linear(6, 6), nn.Linear(6, 9), nn.Linear(9, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.inner(x + self.enter(x)).relu())

    assert names(right(Added(), VECTOR)) == {"inner"}


def test_a_weight_that_is_read_in_part() -> None:
    class Part(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(6, 8), nn.Linear(4, 3)
            self.side, self.side_head = nn.Linear(6, 10), nn.Linear(10, 3)

        def forward(self, x: Tensor) -> Tensor:
            beside = self.side_head(self.side(x).relu())
            return self.head(F.linear(x, self.enter.weight[2:6], self.enter.bias[2:6])) + beside

    assert "side" in names(right(Part(), VECTOR))


def test_norms_without_parameters_of_their_own() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 3, 1)
            self.batch = nn.BatchNorm2d(8, affine=False, track_running_stats=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.instance_norm(self.batch(self.enter(x))).relu())

    assert names(right(Bare(), IMAGE)) == {"enter"}
