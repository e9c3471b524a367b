"""Of what code splits the part shrinks that may; what no reading saves is frozen and explained."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from rightness import names, right
from torch import Tensor, nn
from torch.nn import functional as F
from traps import IMAGE, TOKENS

from spaces import cut
from spaces.revise import Choices
from spaces.slots import Site

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from spaces import Space
    from spaces.frozen import Frozen

HEADS, HEAD_WIDTH = 4, 3
WIDTH = HEADS * HEAD_WIDTH


# -- heads, or the width of each ----------------------------------------------------------------------


class Attention(nn.Module):
    """Attention whose subclasses say how channels become heads, and heads channels."""

    scale: float | None = 0.4

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_width, self.width = HEADS, HEAD_WIDTH, WIDTH
        self.q, self.k, self.v, self.out = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def split(self, x: Tensor, width: int) -> Tensor:
        raise NotImplementedError

    def merge(self, x: Tensor, width: int) -> Tensor:
        del width
        return x.flatten(2)

    def forward(self, x: Tensor) -> Tensor:
        width = x.shape[-1]
        q, k, v = (self.split(layer(x), width).transpose(1, 2) for layer in (self.q, self.k, self.v))
        mixed = F.scaled_dot_product_attention(q, k, v, scale=self.scale)
        return self.out(self.merge(mixed.transpose(1, 2), width))


class Counted(Attention):
    """The number of heads is kept: heads may go."""

    def split(self, x: Tensor, width: int) -> Tensor:
        del width
        return x.view(*x.shape[:2], self.num_heads, -1)


class CountedUnderDefaultScale(Counted):
    scale = None


class Baked(Attention):
    """The number of heads is written into the code: each may become narrower."""

    def split(self, x: Tensor, width: int) -> Tensor:
        del width
        return x.view(*x.shape[:2], 4, -1)


class BakedUnderDefaultScale(Baked):
    """The width of queries sets the scale, so only values may become narrower."""

    scale = None


class BothBaked(Attention):
    """Neither may go."""

    def split(self, x: Tensor, width: int) -> Tensor:
        del width
        return x.view(*x.shape[:2], 4, 3)


class WidthOfTheInput(Attention):
    """As Swin: what it reads must be as wide as its heads together."""

    def split(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(*x.shape[:2], self.num_heads, width // self.num_heads)

    def merge(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(*x.shape[:2], width)


class MergesToTheInput(Attention):
    """As ViT of timm: heads by attributes, and merged to what the input had."""

    def split(self, x: Tensor, width: int) -> Tensor:
        del width
        return x.reshape(*x.shape[:2], self.num_heads, self.head_width)

    def merge(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(*x.shape[:2], width)


class ScaledByTheInput(WidthOfTheInput):
    """The same, but the numbers depend on that width, too: no tie helps."""

    def merge(self, x: Tensor, width: int) -> Tensor:
        return x.reshape(*x.shape[:2], width) / width


class Reads(nn.Module):
    """A stream that one or two attentions read, and a layer that stays free whatever those do."""

    def __init__(self, kind: type[Attention], times: int) -> None:
        super().__init__()
        self.enter = nn.Linear(6, WIDTH)
        self.attentions = nn.ModuleList(kind() for _ in range(times))
        self.hidden, self.head = nn.Linear(WIDTH, 10), nn.Linear(10, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        for attention in self.attentions:
            x = x + attention(x).tanh()
        return self.head(self.hidden(x).relu())


Sizes = dict[str, tuple[int, int]]


@dataclass
class Case:
    """Units and channels of each, of the groups that there must be; ``#`` is each attention's number."""

    kind: type[Attention]
    free: Sizes
    frozen: set[str] = field(default_factory=set)


BY_HEADS: Sizes = {"enter": (WIDTH, 1), "attentions.#.q": (HEADS, HEAD_WIDTH)}
TIED: Sizes = {"enter": (HEADS, HEAD_WIDTH)}
CASES = {
    "heads": Case(Counted, BY_HEADS),
    "heads under a default scale": Case(CountedUnderDefaultScale, BY_HEADS),
    "width of heads": Case(
        Baked,
        {
            "enter": (WIDTH, 1),
            "attentions.#.q": (HEAD_WIDTH, HEADS),
            "attentions.#.v": (HEAD_WIDTH, HEADS),
        },
    ),
    "width of values alone": Case(
        BakedUnderDefaultScale,
        {"enter": (WIDTH, 1), "attentions.#.v": (HEAD_WIDTH, HEADS)},
        {"attentions.#.q", "attentions.#.k"},
    ),
    "neither": Case(BothBaked, {"enter": (WIDTH, 1)}, {f"attentions.#.{name}" for name in "qkv"}),
    "tied to the input": Case(WidthOfTheInput, TIED),
    "merged to the input": Case(MergesToTheInput, TIED),
    "no tie helps": Case(ScaledByTheInput, {}, {"enter", *(f"attentions.#.{name}" for name in "qkv")}),
}


def sizes(space: Space) -> Sizes:
    return {group.name: (group.width, group.unit_channels) for group in space.groups}


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("name", CASES)
def test_of_heads_and_their_width_that_shrinks_which_may(name: str, times: int) -> None:
    case = CASES[name]
    space = right(Reads(case.kind, times), TOKENS)
    wanted = {
        group.replace("#", str(number)): size for group, size in case.free.items() for number in range(times)
    }
    assert sizes(space) == wanted | {"hidden": (10, 1)}
    frozen = {one.name for one in space.frozen}
    for number in range(times):
        assert {one.replace("#", str(number)) for one in case.frozen} <= frozen


def test_a_tie_to_the_input_joins_all_that_go_together() -> None:
    model = Reads(WidthOfTheInput, 2)
    space = right(model, TOKENS)
    (stream,) = (group for group in space.groups if group.name == "enter")
    assert {(member.tensor, member.dim) for member in stream.members} >= {
        ("enter.weight", 0),
        *((f"attentions.{n}.{name}.weight", dim) for n in (0, 1) for name in ("q", "out") for dim in (0, 1)),
        ("hidden.weight", 1),
    }
    small = cut(model, space, {"enter": torch.tensor([0, 2])})
    assert small.attentions[1].num_heads == 2
    assert small.attentions[1].q.weight.shape == (6, 6)


# -- other splits -------------------------------------------------------------------------------------


class Splits(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor], made: int) -> None:
        super().__init__()
        self.enter, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(made, 3, 1)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.function(self.enter(x)).tanh())


def weighed(x: Tensor, *shape: int) -> Tensor:
    return x * torch.arange(1.0, 3.0).view(2, *(1,) * len(shape))


#: What code does to 16 channels, how many it makes, and how many units those have.
SPLITS: dict[str, tuple[Callable[[Tensor], Tensor], int, int]] = {
    "inner part, summed": (lambda x: x.view(len(x), 2, -1, 8, 8).sum(1), 8, 8),
    "outer part, summed": (lambda x: x.view(len(x), -1, 2, 8, 8).sum(2), 8, 8),
    "inner part, largest": (lambda x: x.view(len(x), 2, -1, 8, 8).max(1).values, 8, 8),
    "outer part, largest": (lambda x: x.view(len(x), -1, 2, 8, 8).max(2).values, 8, 8),
    "inner part, weighed": (lambda x: weighed(x.view(len(x), 2, -1, 8, 8), 1, 1, 1).flatten(1, 2), 16, 8),
    "outer part, weighed": (lambda x: weighed(x.view(len(x), -1, 2, 8, 8), 1, 1).flatten(1, 2), 16, 8),
    "last of three": (
        lambda x: x.view(len(x), 2, 2, -1, 8, 8).permute(0, 3, 4, 1, 5, 2).reshape(len(x), -1, 16, 16),
        4,
        4,
    ),
    "second of three": (
        lambda x: x.view(len(x), 2, -1, 2, 8, 8).permute(0, 2, 4, 1, 5, 3).reshape(len(x), -1, 16, 16),
        4,
        4,
    ),
    "unflatten": (lambda x: x.unflatten(1, (2, -1)).mean(1), 8, 8),
}


@pytest.mark.parametrize("name", SPLITS)
def test_the_part_that_code_does_not_fix_shrinks(name: str) -> None:
    function, made, num_units = SPLITS[name]
    space = right(Splits(function, made), IMAGE)
    assert {group.name: group.width for group in space.groups} == {"enter": num_units}
    assert {member.slots.shape[1] for member in space.groups[0].members} >= {16 // num_units}


def test_a_part_of_the_whole_channels_is_right_whichever_it_is() -> None:
    def shuffled(x: Tensor) -> Tensor:
        x = x.view(len(x), -1, 2, 2, 8, 8).permute(0, 1, 4, 2, 5, 3)
        return x.reshape(len(x), -1, 16, 16)

    assert names(right(Splits(shuffled, 4), IMAGE)) <= {"enter"}


# -- what is told of what stays -----------------------------------------------------------------------


def line_of(function: Callable[..., Any], words: str) -> str:
    """``file.py:line`` of a line of a function."""
    lines, start = inspect.getsourcelines(function)
    (offset,) = (number for number, line in enumerate(lines) if words in line)
    return f"test_revise.py:{start + offset}"


def told(space: Space, name: str) -> Frozen:
    (one,) = (one for one in space.frozen if one.name == name)
    return one


def test_a_cut_that_does_not_run_is_told_with_module_and_line() -> None:
    space = right(Reads(BothBaked, 2), TOKENS)
    for number in (0, 1):
        why = told(space, f"attentions.{number}.q")
        assert why.width == WIDTH
        assert why.reason.startswith("a cut does not run: RuntimeError: ")
        assert "\n" not in why.reason
        assert why.module == f"attentions.{number}"
        assert why.line == line_of(BothBaked.split, "return")
    assert any(f"attentions.{number}.q" in warning for number in (0, 1) for warning in space.warnings)


def test_a_cut_with_other_numbers_is_told() -> None:
    space = right(Reads(BakedUnderDefaultScale, 1), TOKENS)
    assert told(space, "attentions.0.q").reason


def test_an_output_and_a_fixed_place_are_told() -> None:
    class Picks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = self.enter(x)
            return self.head(x) * x.select(-1, 7)[..., None]

    space = right(Picks(), TOKENS)
    assert told(space, "head").reason == "output of the model"
    why = told(space, "enter")
    assert (why.operator, why.module, why.width) == ("aten.select.int", "", 8)
    assert why.line == line_of(Picks.forward, "select")


# -- choices ------------------------------------------------------------------------------------------


class Splitting:
    """Stands for slots whose splits turn out badly, by what was chosen for them.

    Args:
        verdicts: For each split, what is unwise about each part, the last one first.
    """

    def __init__(self, verdicts: dict[str, tuple[str | None, str | None]]) -> None:
        self.verdicts = verdicts
        self.read: Choices = Choices()

    @property
    def sites(self) -> dict[Any, Site]:
        return {
            (name, None, 0): Site((2, 4), np.arange(4), self.read.parts.get((name, None, 0), -1))
            for name in self.verdicts
        }

    def unwise_splits(self) -> Iterator[tuple[Any, str]]:
        for key, site in self.sites.items():
            what = self.verdicts[key[0]][-1 - site.dim]
            if what is not None:
                yield key, what

    def settle(self) -> dict[str, int]:
        """Parts once nothing wiser is known."""
        for _ in range(10):
            wiser = self.read.wiser(self)  # type: ignore[arg-type]
            if wiser is None:
                return {key[0]: site.dim for key, site in self.sites.items()}
            self.read = wiser
        raise AssertionError("never settles")


@pytest.mark.parametrize(
    ("verdict", "part"),
    [
        ((None, None), -1),
        (("frozen", None), -2),
        (("multiplied", None), -2),
        (("frozen", "frozen"), -1),
        (("multiplied", "frozen"), -1),
        ((None, "frozen"), -1),
    ],
)
def test_a_part_that_turned_out_badly_is_changed_once_and_back_where_that_is_no_better(
    verdict: tuple[str | None, str | None], part: int
) -> None:
    assert Splitting({"a": verdict, "b": (None, None)}).settle() == {"a": part, "b": -1}


def test_what_is_multiplied_is_changed_before_what_is_frozen() -> None:
    slots = Splitting({"a": ("multiplied", None), "b": ("frozen", None)})
    wiser = slots.read.wiser(slots)  # type: ignore[arg-type]
    assert wiser is not None
    assert wiser.parts == {("a", None, 0): -2}


def test_choices_are_made_anew() -> None:
    slots = Splitting({"a": ("frozen", None)})
    before = slots.read
    slots.settle()
    assert before == Choices()
    assert slots.read.wiser(slots) is None  # type: ignore[arg-type]
