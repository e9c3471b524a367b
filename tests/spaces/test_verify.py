"""Verification: cuts that tell groups apart, the search for culprits, and code that compares widths."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rightness import names
from torch import Tensor, nn
from traps import VECTOR

from spaces import cut, trace
from spaces.blame import Failure, culprits, first_line
from spaces.groups import ChannelGroup, Member
from spaces.reference import expected
from spaces.trial_cuts import Cuts, random_kept, spread_counts
from spaces.verify import randomised, twice, wrong_values

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spaces import Space


def group(name: str, width: int) -> ChannelGroup:
    rows = Member(f"{name}.weight", 0, "output", np.arange(width)[:, None])
    return ChannelGroup(name, width, 1, 1, (rows,))


def groups(widths: Sequence[int]) -> list[ChannelGroup]:
    return [group(f"g{number}", width) for number, width in enumerate(widths)]


# -- which units are cut ------------------------------------------------------------------------------

WIDTHS = st.lists(st.one_of(st.integers(2, 5), st.integers(2, 70)), max_size=40)


@settings(deadline=None, max_examples=300)
@given(WIDTHS)
def test_of_two_groups_of_equal_width_some_cut_keeps_unequally_many(widths: list[int]) -> None:
    some = groups(widths)
    cuts = list(spread_counts(some))
    for one, other in combinations(some, 2):
        if one.width == other.width:
            assert any(counts[one.name] != counts[other.name] for counts in cuts)


@settings(deadline=None, max_examples=300)
@given(WIDTHS)
def test_at_least_half_of_each_group_stays_and_every_group_loses_something(widths: list[int]) -> None:
    some = groups(widths)
    cuts = list(spread_counts(some))
    assert cuts
    for counts in cuts:
        assert list(counts) == [one.name for one in some]
        assert all(one.width / 2 <= counts[one.name] <= one.width for one in some)
    for one in some:
        assert any(counts[one.name] < one.width for counts in cuts)
    # The number of cuts grows with the logarithm of the number of groups.
    assert len(cuts) <= 2 * max(1, len(widths).bit_length())


@settings(deadline=None, max_examples=100)
@given(WIDTHS, st.integers(0, 100))
def test_cuts_keep_distinct_ascending_units(widths: list[int], seed: int) -> None:
    some = groups(widths)
    cuts = Cuts.of(some, torch.Generator().manual_seed(seed))
    for kept in (cuts.random, *cuts.spread, cuts.least):
        assert list(kept) == [one.name for one in some]
        for one in some:
            units = kept[one.name]
            assert len(units)
            assert units.diff().gt(0).all()
            assert 0 <= units[0] <= units[-1] < one.width
    for one in some:
        assert one.width / 2 <= len(cuts.random[one.name]) < one.width
        assert cuts.least[one.name].tolist() == [one.width - 1]
    part = cuts.only(some[::2])
    for mine, whole in ((part.random, cuts.random), (part.least, cuts.least)):
        assert list(mine) == [one.name for one in some[::2]]
        assert all(mine[name] is whole[name] for name in mine)
    assert len(part.spread) == len(cuts.spread)


def test_counts_may_be_chosen() -> None:
    some, generator = groups([5, 5, 9]), torch.Generator().manual_seed(0)
    kept = random_kept(some, generator, {"g0": 1, "g1": 5, "g2": 4})
    assert [len(kept[one.name]) for one in some] == [1, 5, 4]


# -- who is to blame ----------------------------------------------------------------------------------


def blaming(*faults: set[str], modules: tuple[str, ...] = ()) -> Callable[..., Failure | None]:
    """Fails where all groups of any of the faults are cut."""

    def failure(cut_groups: Sequence[ChannelGroup], number: int | None = None) -> Failure | None:
        del number
        present = {one.name for one in cut_groups}
        hit = next((sorted(fault) for fault in faults if fault <= present), None)
        return None if hit is None else Failure(f"{' and '.join(hit)} fail", modules)

    return failure


def test_nothing_to_blame() -> None:
    assert culprits(groups([4] * 5), blaming()) == {}
    assert culprits([], blaming(set())) == {}


@pytest.mark.parametrize("number", range(7))
def test_a_single_culprit_is_found_wherever_it_stands(number: int) -> None:
    name = f"g{number}"
    assert culprits(groups([4] * 7), blaming({name})) == {name: Failure(f"{name} fail")}


@settings(deadline=None, max_examples=100)
@given(st.sets(st.integers(0, 11), min_size=1))
def test_all_single_culprits_are_found_and_no_other(guilty: set[int]) -> None:
    found = culprits(groups([4] * 12), blaming(*({f"g{number}"} for number in guilty)))
    assert found == {f"g{number}": Failure(f"g{number} fail") for number in guilty}


@pytest.mark.parametrize("pair", [(0, 1), (0, 7), (3, 4), (2, 6)])
def test_of_two_that_fail_only_together_no_bystander_is_blamed(pair: tuple[int, int]) -> None:
    fault = {f"g{number}" for number in pair}
    found = set(culprits(groups([4] * 8), blaming(fault)))
    assert found
    assert found <= fault


FAULTS = st.lists(st.sets(st.integers(0, 9), min_size=1, max_size=3), min_size=1, max_size=4)


@settings(deadline=None, max_examples=200)
@given(FAULTS, st.integers(1, 10))
def test_looking_again_and_again_leaves_nothing_that_fails(faults: list[set[int]], size: int) -> None:
    failure = blaming(*({f"g{number}" for number in fault} for fault in faults))
    left = groups([4] * size)
    while failure(left) is not None:
        found = culprits(left, failure)
        assert found
        assert set(found) <= {one.name for one in left}
        left = [one for one in left if one.name not in found]


def test_the_search_looks_near_the_module_that_raised_first() -> None:
    some = [group(f"blocks.{block}.{layer}", 4) for block in range(8) for layer in ("a", "b")]
    looked: list[int] = []
    fails = blaming({"blocks.5.b"}, modules=("", "blocks.5", "blocks.5.b"))

    def failure(cut_groups: Sequence[ChannelGroup], number: int | None = None) -> Failure | None:
        del number
        looked.append(len(cut_groups))
        return fails(cut_groups)

    assert set(culprits(some, failure)) == {"blocks.5.b"}
    assert looked[:2] == [16, 1]
    assert len(looked) <= 4


def test_where_those_near_the_module_are_innocent_others_are_found() -> None:
    some = [group(name, 4) for name in ("a.x", "a.y", "b.x", "b.y")]
    assert set(culprits(some, blaming({"b.y"}, modules=("a",)))) == {"b.y"}


def test_suspects_are_groups_with_a_tensor_in_the_innermost_module_that_has_any() -> None:
    some = [group("net.stem", 4), group("net.stem2", 4), group("net.body.conv", 4)]

    def suspects(*modules: str) -> list[str]:
        return [one.name for one in Failure("", modules).suspects(some)]

    assert suspects("net", "net.stem") == ["net.stem"]  # and not net.stem2
    assert suspects("net", "net.body", "net.body.relu") == ["net.body.conv"]
    assert suspects("net") == ["net.stem", "net.stem2", "net.body.conv"]
    assert suspects("elsewhere") == suspects() == []


def test_a_failure_says_where() -> None:
    place = Failure("reason", ("net", "net.body"), "net.py:3").place
    assert (place.operator, place.module, place.line) == (None, "net.body", "net.py:3")
    assert Failure("reason").place.module is None


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("first\nsecond"), "ValueError: first"),
        (RuntimeError(), "RuntimeError"),
        (KeyError("x"), "KeyError: 'x'"),
    ],
)
def test_of_an_exception_class_and_first_line_are_told(error: Exception, words: str) -> None:
    assert first_line(error) == words


# -- what it is compared with -------------------------------------------------------------------------


def test_random_weights_leave_the_model_alone_and_nothing_zero() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)).train()
    nn.init.zeros_(model[3].weight)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    twin = randomised(model, torch.Generator().manual_seed(0), ((torch.randn(2, 3, 4, 4).double(),), {}))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert model.training
    assert not twin.training
    assert not any(module._forward_pre_hooks for module in twin.modules())
    for parameter in twin.parameters():
        assert parameter.dtype == torch.float64
        assert parameter.count_nonzero() == parameter.numel()
    assert twin[1].running_mean.count_nonzero() == 4
    assert (twin[1].running_var > 0).all()
    assert (twin[1].running_var != 1).all()


def test_a_batch_of_two_is_made_of_every_tensor() -> None:
    (args, (same,)), kwargs = twice((((torch.ones(1, 3), 5), [torch.tensor(2.0)]), {"x": torch.ones(4)}))
    assert (args[0].shape, args[1], same.shape, kwargs["x"].shape) == ((2, 3), 5, (), (8,))


def verdict(model: nn.Module, space: Space) -> set[str]:
    return set(wrong_values(model, space, ((VECTOR,), {}), trains=True))


def two_layers() -> nn.Module:
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3)).double()


def test_right_cuts_are_not_blamed() -> None:
    model = two_layers()
    space = trace(model, VECTOR)
    assert names(space) == {"0", "2"}
    assert verdict(model, space) == set()


class Disturbed(nn.Module):
    """Right when the space was made; then something about the first layer's width was broken."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.layers, self.how = two_layers(), "not"
        self.later = how

    def forward(self, x: Tensor) -> object:
        x = self.layers[0](x).relu()
        width, out = x.shape[1], self.layers[2:](x)
        if self.how == "scaled":
            return out * width
        if self.how == "raises" and width < 8:
            raise RuntimeError("width")
        if self.how == "structure":
            return (out,) if width < 8 else out
        if self.how == "another size":
            return torch.cat([out, out])[: len(out) + width - 8]
        if self.how == "an integer output":
            return out, torch.tensor(width)
        if self.how == "infinite":
            return out / (width == 8)
        if self.how == "another branch":
            return self.layers[2:](x).tanh() if width < 8 else out
        if self.how == "only in training" and self.training and width < 8:
            raise RuntimeError("width")
        if self.how == "only very narrow" and width < 3:
            raise RuntimeError("width")
        return out


HOW = ["scaled", "raises", "structure", "another size", "an integer output", "infinite", "another branch"]
HOW += ["only in training", "only very narrow"]


@pytest.mark.parametrize("how", HOW)
def test_whatever_a_cut_changes_is_blamed_on_its_group_alone(how: str) -> None:
    model = Disturbed(how)
    space = trace(model, VECTOR)
    assert names(space) == {"layers.0", "layers.2"}
    model.how = how
    assert verdict(model, space) == {"layers.0"}


def test_a_model_that_can_not_be_verified_has_no_choices() -> None:
    model = Disturbed("never")
    space = trace(model, VECTOR)

    class Stubborn(Disturbed):
        def forward(self, _: Tensor) -> Tensor:
            raise RuntimeError("no numbers")

    model.__class__ = Stubborn
    found = wrong_values(model, space, ((VECTOR,), {}), trains=True)
    assert set(found) == {"layers.0", "layers.2"}
    assert all(what.reason == "not verified: RuntimeError: no numbers" for what in found.values())


# -- code that compares widths ------------------------------------------------------------------------


class Equal(nn.Module):
    """Nothing but Python code says that two layers must be equally wide."""

    def __init__(self, width: int, *, loud: bool, others: int = 0) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(6, width), nn.Linear(6, width)
        self.head_a, self.head_b = nn.Linear(width, 3), nn.Linear(width, 3)
        self.others = nn.ModuleList(
            nn.Sequential(nn.Linear(6, width), nn.ReLU(), nn.Linear(width, 3)) for _ in range(others)
        )
        self.loud = loud

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x).relu(), self.b(x).relu()
        unequal = a.shape[1] != b.shape[1]
        if unequal and self.loud:
            raise RuntimeError("unequal")
        made = (2.0 if unequal else 1.0) * (self.head_a(a) + self.head_b(b))
        return made + sum(other(x) for other in self.others)


@pytest.mark.parametrize("loud", [True, False])
@pytest.mark.parametrize("width", [2, 3, 4, 8])
@pytest.mark.parametrize("others", [0, 5])
def test_two_groups_that_must_be_equal_by_python_code_are_not_both_free(
    others: int, width: int, loud: bool
) -> None:
    space = trace(Equal(width, loud=loud, others=others), VECTOR.float())
    assert not {"a", "b"} <= names(space)


class Reshapes(nn.Module):
    """The width of one layer is read from another's output."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Linear(6, 3), nn.Linear(6, 3), nn.Linear(3, 3)
        self.side = nn.Linear(6, 3)
        self.side_head = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        a, b = self.a(x), self.b(x).relu()
        made = self.head(a.reshape(b.shape)).sin() + self.head(b)
        return made + self.side_head(self.side(x).relu())


def test_a_width_that_is_read_from_another_layer_is_tied_to_it_or_frozen() -> None:
    torch.manual_seed(0)
    model = Reshapes().double().eval()
    space = trace(model, VECTOR)
    assert "side" in names(space)
    for free in names(space):
        for size in (1, 2):
            kept = {free: torch.arange(3)[-size:]}
            torch.testing.assert_close(
                cut(model, space, kept)(VECTOR), expected(model, space, kept, ((VECTOR,), {}))
            )


def test_halves_are_looked_at_with_the_cut_that_failed() -> None:
    numbers: list[int | None] = []
    fails = blaming({"g3"})

    def failure(cut_groups: Sequence[ChannelGroup], number: int | None = None) -> Failure | None:
        numbers.append(number)
        what = fails(cut_groups)
        return None if what is None else replace(what, number=2)

    assert set(culprits(groups([4] * 8), failure)) == {"g3"}
    assert numbers[0] is None
    assert numbers[-1] is None
    assert set(numbers[1:-1]) == {2}
