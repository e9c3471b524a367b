"""What a caller allows: ignored modules, and divisors and smallest widths of some groups."""

from __future__ import annotations

import math
from fnmatch import fnmatchcase
from typing import Any

import nets
import pytest
import torch
from rightness import assert_equal, names, randomised, reference
from torch import Tensor, nn

from spaces import Space, cut, trace


class Blocks(nn.Module):
    """A stream of twelve channels and two blocks of sixteen; one block has conv groups of four."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 12, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(12, 16, 1), nn.ReLU(), nn.Conv2d(16, 16, 1, groups=groups), nn.Conv2d(16, 12, 1)
            )
            for groups in (1, 4)
        )
        self.norm, self.head = nn.BatchNorm2d(12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = x + block(x).relu()
        return self.head(self.norm(x).mean((2, 3)))


ALL = {"stem", "blocks.0.0", "blocks.0.2", "blocks.1.0"}
TWO = {"blocks.0.0": 2, "blocks.0.2": 2}


def traced(**options: Any) -> Space:
    torch.manual_seed(0)
    return trace(Blocks(), nets.IMAGE, **options)


def reasons(space: Space) -> dict[str, str]:
    return {one.name: one.reason for one in space.frozen}


def choices(space: Space) -> dict[str, tuple[int, ...]]:
    return {group.name: group.choices for group in space.groups}


def test_without_options_everything_may_be_cut_to_any_width() -> None:
    space = traced()
    assert names(space) == ALL
    assert choices(space)["stem"] == tuple(range(1, 13))
    assert choices(space)["blocks.1.0"] == (1, 2, 3, 4)


# -- ignore -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "left"),
    [
        (["blocks.0"], {"blocks.1.0"}),  # all that is inside
        (["blocks"], set()),
        (["block"], ALL),
        (["blocks.0.0"], {"blocks.0.2", "blocks.1.0"}),  # it reads the stream, which therefore stays
        (["blocks.0.2"], {"stem", "blocks.1.0"}),
        (["blocks.1.*"], {"blocks.0.0", "blocks.0.2"}),
        (["*.3"], {"blocks.0.0"}),  # the last layers of both blocks, with all that they read and make
        (["norm"], ALL - {"stem"}),
        (["head"], ALL - {"stem"}),
        (["stem", "blocks.0.2"], {"blocks.1.0"}),
        (["blocks.?.0"], {"blocks.0.2"}),
        (["nothing.*"], ALL),
        (["*"], set()),
        ([], ALL),
    ],
)
def test_parameters_of_ignored_modules_stay_whole(patterns: list[str], left: set[str]) -> None:
    space = traced(ignore=patterns)
    assert names(space) == left
    model = Blocks()
    small = cut(model, space, {name: torch.tensor([0]) for name in left})
    after = dict(small.named_parameters())
    for name, parameter in model.named_parameters():
        outer = [name[:end] for end, letter in enumerate(name) if letter == "."]
        if any(fnmatchcase(module, pattern) for module in outer for pattern in patterns):
            assert after[name].shape == parameter.shape


def test_what_is_ignored_is_told() -> None:
    space = traced(ignore=["blocks.0.2"])
    told = {one.name: one for one in space.frozen}
    assert told["blocks.0.2"].reason == "ignored"
    assert told["blocks.0.2"].module == "blocks.0.2"
    assert told["blocks.0.0"].reason == "ignored"
    assert reasons(space)["head"] == "output of the model"


def test_a_cut_beside_what_is_ignored_is_right() -> None:
    model, image = randomised(Blocks()), nets.IMAGE.double()
    space = trace(model, image, ignore=["blocks.0.2", "norm"])
    assert names(space) == {"blocks.1.0"}
    kept = {"blocks.1.0": torch.tensor([1, 3])}
    assert_equal(cut(model, space, kept)(image), reference(model, space, kept, (image,)))


class Bare(nn.Module):
    """All parameters are the model's own, whose name is empty."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.head = nn.Parameter(torch.randn(8, 6)), nn.Parameter(torch.randn(3, 8))

    def forward(self, x: Tensor) -> Tensor:
        return (x @ self.enter.T).relu() @ self.head.T


@pytest.mark.parametrize(
    ("patterns", "left"), [([], {"enter"}), ([""], set()), (["*"], set()), (["enter"], {"enter"})]
)
def test_parameters_of_the_model_itself_may_be_ignored(patterns: list[str], left: set[str]) -> None:
    assert names(trace(Bare(), nets.VECTOR, ignore=patterns)) == left


# -- divisors -----------------------------------------------------------------------------------------


def divisors(space: Space) -> dict[str, int]:
    return {group.name: group.divisor for group in space.groups}


@pytest.mark.parametrize(
    ("options", "wanted"),
    [
        ({}, dict.fromkeys(ALL, 1)),
        ({"divisor": 4}, dict.fromkeys(ALL, 4)),
        ({"divisor_of": {"stem": 6}}, {"stem": 6}),
        ({"divisor": 4, "divisor_of": {"stem": 6}}, dict.fromkeys(ALL, 4) | {"stem": 6}),
        ({"divisor_of": {"blocks.*": 8}}, {name: 8 for name in ALL if name != "stem"}),
        (
            {"divisor_of": {"blocks.*": 8, "blocks.0.*": 2}},
            {"blocks.1.0": 8, "blocks.0.0": 2, "blocks.0.2": 2},
        ),
        ({"divisor_of": {"blocks.0.*": 2, "blocks.*": 8}}, {name: 8 for name in ALL if name != "stem"}),
        ({"divisor_of": {"no.such": 8}}, {}),
    ],
)
def test_the_last_pattern_that_fits_sets_the_divisor(options: dict[str, Any], wanted: dict[str, int]) -> None:
    assert divisors(traced(**options)) == dict.fromkeys(ALL, 1) | wanted


def test_divisors_are_of_channels_and_bind_proposals_only() -> None:
    space = traced(divisor_of={"stem": 5, "blocks.0.*": 8, "blocks.1.0": 8})
    assert choices(space) == {
        "stem": (5, 10, 12),
        "blocks.0.0": (8, 16),
        "blocks.0.2": (8, 16),
        "blocks.1.0": (2, 4),  # units of four channels
    }
    for seed in range(10):
        widths = space.sample(torch.Generator().manual_seed(seed)).widths
        assert all(width in choices(space)[name] for name, width in widths.items())
    small = cut(Blocks(), space, {"stem": torch.tensor([0, 3, 4])})
    assert small.stem.out_channels == 3


# -- smallest widths ----------------------------------------------------------------------------------


def smallest(space: Space) -> dict[str, int]:
    return {group.name: group.smallest for group in space.groups}


@pytest.mark.parametrize(
    ("options", "shares"),
    [
        ({}, {}),
        ({"smallest": 0.5}, dict.fromkeys(ALL, 0.5)),
        ({"smallest": 0.5, "smallest_of": {"stem": 0.0}}, dict.fromkeys(ALL, 0.5) | {"stem": 0.0}),
        ({"smallest_of": {"stem": 0.3}}, {"stem": 0.3}),
        ({"smallest_of": {"*": 0.25, "*.2": 1.0}}, dict.fromkeys(ALL, 0.25) | {"blocks.0.2": 1.0}),
        ({"smallest_of": {"*.2": 1.0, "*": 0.25}}, dict.fromkeys(ALL, 0.25)),
    ],
)
def test_the_last_pattern_that_fits_sets_the_smallest_share(
    options: dict[str, Any], shares: dict[str, float]
) -> None:
    space = traced(**options)
    wanted = {g.name: max(1, math.ceil(shares.get(g.name, 0.0) * g.width)) for g in space.groups}
    assert smallest(space) == wanted
    assert all(some[0] >= wanted[name] for name, some in choices(space).items())
    assert dict(space.smallest.widths) == {name: some[0] for name, some in choices(space).items()}


def test_smallest_shares_and_divisors_go_together() -> None:
    space = traced(divisor=4, smallest_of={"stem": 0.5, "blocks.0.0": 0.6, "blocks.1.0": 0.3})
    assert choices(space) == {
        "stem": (8, 12),
        "blocks.0.0": (12, 16),
        "blocks.0.2": (4, 8, 12, 16),
        "blocks.1.0": (2, 3, 4),
    }


# -- included and excluded ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "left"),
    [
        ({"include": ["blocks.*"]}, ALL - {"stem"}),
        ({"include": ["blocks.*"], "exclude": ["*.2"]}, {"blocks.0.0", "blocks.1.0"}),
        ({"exclude": ["blocks.*"]}, {"stem"}),
        ({"include": ["no.such"]}, set()),
        ({"exclude": ["*"]}, set()),
        ({"exclude": ["stem"], "ignore": ["blocks.0.2"]}, {"blocks.1.0"}),
    ],
)
def test_patterns_of_groups_and_modules_go_together(options: dict[str, Any], left: set[str]) -> None:
    space = traced(**options)
    assert names(space) == left
    for name in ALL - left - {"blocks.0.0", "blocks.0.2"}:
        assert reasons(space)[name] == "excluded"


def test_options_do_not_change_what_others_are_called() -> None:
    whole = {group.name: [member.tensor for member in group.members] for group in traced().groups}
    part = traced(exclude=["stem"], divisor=4, smallest=0.5)
    assert {group.name: [member.tensor for member in group.members] for group in part.groups} == {
        name: tensors for name, tensors in whole.items() if name != "stem"
    }


# -- refused ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"divisor": 0}, r"`divisor` must be at least 1, got 0\."),
        ({"divisor": -4}, r"`divisor` must be at least 1, got -4\."),
        ({"divisor_of": {"stem": 0}}, r"`divisor_of\['stem'\]` must be at least 1, got 0\."),
        ({"divisor_of": {"a": 2, "b.*": -1}}, r"`divisor_of\['b\.\*'\]` must be at least 1, got -1\."),
        ({"smallest": -0.1}, r"`smallest` must be in \[0, 1\], got -0\.1\."),
        ({"smallest": 2}, r"`smallest` must be in \[0, 1\], got 2\."),
        ({"smallest": float("nan")}, r"`smallest` must be in \[0, 1\], got nan\."),
        ({"smallest_of": {"stem": 1.5}}, r"`smallest_of\['stem'\]` must be in \[0, 1\], got 1\.5\."),
    ],
)
def test_numbers_out_of_range_are_refused_with_their_option(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        traced(**options)


def test_options_of_the_caller_are_left_alone() -> None:
    divisor_of, smallest_of, ignore = {"stem": 4}, {"stem": 0.5}, ["norm"]
    traced(divisor_of=divisor_of, smallest_of=smallest_of, ignore=ignore)
    assert (divisor_of, smallest_of, ignore) == ({"stem": 4}, {"stem": 0.5}, ["norm"])
