"""Integers that modules keep of their own widths follow a cut; all others stay as they are."""

from __future__ import annotations

from typing import NamedTuple

import pytest
import torch
from headed import (
    HEAD_WIDTH,
    HEADS,
    Attributes,
    Chunks,
    InAMethod,
    Inside,
    List,
    Mixes,
    OnlyBuilt,
    PositionsAndHeads,
    Property,
    Stale,
    StaleMerge,
    Tuple,
    TwoAttributes,
    own,
)
from rightness import names, right
from torch import Tensor, nn
from traps import IMAGE, TOKENS, VECTOR

from spaces import Space, cut
from spaces.attributes import Attribute, Mend, read_attribute, write_attributes
from spaces.candidates import Candidates

KEPT_IN: dict[str, tuple[type[Mixes], dict[tuple[str, int | None], int]]] = {
    "attributes": (Attributes, {("heads", None): 2}),
    "two attributes": (TwoAttributes, {("heads", None): 2, ("inner", None): 6}),
    "a tuple": (Tuple, {("sizes", 0): 2}),
    "a list": (List, {("sizes", 0): 2}),
    "a property": (Property, {("inner", None): 6}),
    "a method": (InAMethod, {("heads", None): 2}),
    "a stale view": (Stale, {("heads", None): 2}),
    "a stale merge": (StaleMerge, {("heads", None): 2, ("inner", None): 6}),
}


def kept_values(space: Space, widths: dict[str, int]) -> dict[tuple[str, int | None], int]:
    """Values of the model's own mended integers."""
    whole = {group.name: group.width for group in space.groups}
    return {
        (mend.attribute.name, mend.attribute.index): mend.value(whole | widths)
        for mend in space.mends
        if mend.attribute.module == ""
    }


@pytest.mark.parametrize("where", KEPT_IN)
def test_heads_may_go_wherever_their_number_is_kept(where: str) -> None:
    build, wanted = KEPT_IN[where]
    model = build()
    model.eval()
    before = own(model)
    space = right(model, TOKENS)
    groups = {group.name: (group.width, group.unit_channels) for group in space.groups}
    assert groups["q"] == (HEADS, HEAD_WIDTH)
    assert "hidden" in groups
    two = {"q": torch.tensor([1, 3])}
    assert kept_values(space, {"q": 2}) == wanted
    small = cut(model, space, two)
    for (name, index), value in wanted.items():
        assert read_attribute(small, Attribute("", name, index)) == value
    # Others of the cut, and all of the dense model, are what they were.
    mended = {name for name, _ in wanted}
    assert {n: v for n, v in own(small).items() if n not in mended} == {
        n: v for n, v in before.items() if n not in mended
    }
    assert own(model) == before


def test_heads_that_are_chunks_of_a_fixed_width_are_right() -> None:
    assert "hidden" in names(right(Chunks(), TOKENS))


@pytest.mark.parametrize(("build", "prefix"), [(PositionsAndHeads, ""), (Inside, "inner.0")])
def test_an_integer_of_the_modules_parent_is_mended(build: type[nn.Module], prefix: str) -> None:
    model = build()
    space = right(model, TOKENS)
    groups = {group.name: group.width for group in space.groups}
    dot = "." if prefix else ""
    assert groups[f"{prefix}{dot}q"] == HEADS
    small = cut(model, space, {f"{prefix}{dot}q": torch.tensor([0, 1, 3])})
    assert small.get_submodule(prefix).heads == 3


# -- integers that are equal --------------------------------------------------------------------------


class Square(Mixes):
    """As many heads as each is wide."""

    def __init__(self, *, kept: bool) -> None:
        nn.Module.__init__(self)
        self.heads, self.head_width = 4, 4
        self.sizes = (4, 4)
        self.kept = kept
        self.q, self.k, self.v = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(6, 16)
        self.out, self.hidden, self.head = nn.Linear(16, 6), nn.Linear(6, 10), nn.Linear(10, 3)

    def split(self, x: Tensor) -> Tensor:
        return x.view(*x.shape[:2], *(self.sizes if self.kept else (self.heads, self.head_width)))


@pytest.mark.parametrize("kept", [True, False])
def test_of_two_equal_integers_the_one_that_counts_heads_follows(kept: bool) -> None:
    model = Square(kept=kept)
    space = right(model, TOKENS)
    assert "hidden" in names(space)
    if not kept:  # equal integers of one tuple are not told apart: such heads may stay
        assert {g.name: (g.width, g.unit_channels) for g in space.groups}["q"] == (4, 4)
        small = cut(model, space, {"q": torch.tensor([0, 2, 3])})
        assert (small.heads, small.head_width, small.sizes) == (3, 4, (4, 4))


class Coincidences(nn.Module):
    """Eight channels, and eights that mean other things; one of each pair shapes and the other does not."""

    def __init__(self) -> None:
        super().__init__()
        self.width, self.steps, self.scale, self.positions = 8, 8, 8, (8, 8)
        self.enter, self.head = nn.Conv2d(3, 8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x).relu().permute(0, 2, 3, 1).reshape(-1, self.width)
        for step in range(self.steps):
            x = x + x.sin() / (self.scale + step)
        return self.head(x).view(-1, *self.positions, 3)


def test_equal_integers_that_mean_other_things_stay() -> None:
    model = Coincidences()
    space = right(model, IMAGE)
    assert names(space) == {"enter"}
    small = cut(model, space, {"enter": torch.tensor([0, 1, 5])})
    assert (small.width, small.steps, small.scale, small.positions) == (3, 8, 8, (8, 8))


class Blocks(nn.Module):
    """The same class with other numbers of heads, of widths and of both equal to another's."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(heads, width) for heads, width in ((2, 3), (4, 3), (3, 2), (4, 4)))
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.blocks(x)


class Block(nn.Module):
    def __init__(self, heads: int, width: int) -> None:
        super().__init__()
        self.heads, self.width, self.inner = heads, width, heads * width
        self.qkv, self.out = nn.Linear(6, 3 * self.inner), nn.Linear(self.inner, 6)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(len(x), -1, 3, self.heads, self.width).permute(2, 0, 3, 1, 4)
        mixed = (q @ k.transpose(-1, -2) * 0.4).softmax(-1) @ v
        return x + self.out(mixed.transpose(1, 2).reshape(len(x), -1, self.inner))


def test_modules_of_one_class_have_integers_of_their_own() -> None:
    model = Blocks()
    space = right(model, TOKENS)
    heads = {0: 2, 1: 4, 2: 3, 3: 4}
    groups = {group.name: group.width for group in space.groups}
    assert groups == {f"blocks.{n}.qkv": width for n, width in heads.items()}
    small = cut(model, space, {f"blocks.{n}.qkv": torch.arange(width - 1) for n, width in heads.items()})
    found = [(block.heads, block.width, block.inner) for block in small.blocks]
    assert found == [(1, 3, 3), (3, 3, 9), (2, 2, 4), (3, 4, 12)]


# -- integers of norms --------------------------------------------------------------------------------


@pytest.mark.parametrize(("num_groups", "width"), [(4, 8), (2, 8), (8, 8), (3, 9)])
def test_group_norm_loses_whole_groups(num_groups: int, width: int) -> None:
    model = nn.Sequential(nn.Conv2d(3, width, 1), nn.GroupNorm(num_groups, width), nn.Conv2d(width, 3, 1))
    space = right(model, IMAGE)
    (group,) = space.groups
    assert (group.width, group.unit_channels, group.exact) == (num_groups, width // num_groups, True)
    norm = cut(model, space, {"0": torch.tensor([0, num_groups - 1])})[1]
    assert (norm.num_groups, norm.num_channels) == (2, 2 * width // num_groups)


def test_the_number_of_groups_follows_the_groups_and_not_the_channels_of_each() -> None:
    """Both are four, and groups of a convolution are, too."""
    model = nn.Sequential(
        nn.Conv2d(3, 16, 1), nn.GroupNorm(4, 16), nn.Conv2d(16, 16, 3, groups=4), nn.Conv2d(16, 3, 1)
    )
    space = right(model, IMAGE)
    widths = {group.name: (group.width, group.unit_channels) for group in space.groups}
    assert widths["0"] == (4, 4)
    small = cut(model, space, {name: torch.tensor([0, 3]) for name in widths})
    assert (small[1].num_groups, small[1].num_channels, small[2].groups) == (2, 8, 2)


# -- integers that are left alone ---------------------------------------------------------------------


def test_an_integer_that_only_construction_reads_is_left_alone() -> None:
    model = OnlyBuilt()
    assert Candidates.of(model).values == {}  # nor is it tried
    space = right(model, VECTOR)
    assert names(space) == {"enter"}
    assert space.mends == ()
    small = cut(model, space, {"enter": torch.tensor([2, 7])})
    assert (small.width, small.sizes) == (8, [8, 3])


class Branches(nn.Module):
    """Booleans, ones and floats are no widths; a text that is as long as a layer is wide is none either."""

    def __init__(self) -> None:
        super().__init__()
        self.flag, self.one, self.real, self.text = True, 1, 8.0, "eight"
        self.width = 8
        self.enter, self.head = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x) if self.flag else x
        return self.head(x.view(-1, self.one, self.width).sum(1) / self.real + len(self.text))


def test_only_integers_above_one_are_mended() -> None:
    model = Branches()
    space = right(model, VECTOR)
    assert [mend.attribute for mend in space.mends] == [Attribute("", "width")]
    small = cut(model, space, {"enter": torch.tensor([2])})
    assert (small.flag, small.one, small.real, small.text, small.width) == (True, 1, 8.0, "eight", 1)
    assert type(small.flag) is bool


# -- values -------------------------------------------------------------------------------------------


def test_a_mend_is_linear_in_the_kept_widths() -> None:
    mend = Mend(Attribute("a", "b"), 3, (("x", 2), ("y", 5)))
    assert mend.value({"x": 4, "y": 1, "z": 9}) == 3 + 8 + 5


def test_tuples_and_lists_are_made_anew() -> None:
    model = nn.Linear(2, 2)
    model.pair, model.sizes = (3, 4), [5, 6]  # type: ignore[assignment]
    shared = model.sizes
    write_attributes(model, {Attribute("", "pair", 1): 9, Attribute("", "sizes", 0): 7})
    assert (model.pair, model.sizes, shared) == ((3, 9), [7, 6], [5, 6])


class Pair(NamedTuple):
    heads: int
    width: int


@pytest.mark.parametrize("old", [Pair(4, 3), torch.Size([4, 3])], ids=["named tuple", "size"])
def test_a_tuple_stays_of_its_kind(old: tuple[int, ...]) -> None:
    model = nn.Linear(2, 2)
    model.sizes = old  # type: ignore[assignment]
    write_attributes(model, {Attribute("", "sizes", 0): 2})
    assert model.sizes == (2, 3)
    assert type(model.sizes) is type(old)
