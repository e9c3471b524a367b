from __future__ import annotations

import pytest
from fake_problem import make_space
from hypothesis import given
from hypothesis import strategies as st

from evaluators.options import OptionError
from search.limits import Budget, Window


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("40", Budget(evaluations=40)),
        ("90s", Budget(seconds=90)),
        ("30m", Budget(seconds=1800)),
        ("1.5h", Budget(seconds=5400)),
        ("0.5gpuh", Budget(gpu_hours=0.5)),
    ],
)
def test_a_budget_is_a_count_or_a_time(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("0", "must be more than zero"),
        ("-3", "must be more than zero"),
        ("0s", "must be more than zero"),
        ("1.5", "give a whole number of candidates, or a time"),
        ("many", "give a whole number of candidates, or a time"),
        ("", "give a whole number of candidates, or a time"),
        ("3d", "give a whole number of candidates, or a time"),
    ],
)
def test_a_bad_budget_is_named_with_its_rule(text: str, rule: str) -> None:
    with pytest.raises(OptionError, match=rf"^--budget {text}: {rule}"):
        Budget.parse(text)


def test_shares_and_multiply_adds_give_the_same_window() -> None:
    space = make_space()
    dense = space.macs(space.dense)
    assert Window.parse("25%:75%", space) == Window.parse("0.25:0.75", space)
    assert Window.parse("25%:100%", space) == Window(-(-dense // 4), dense)
    assert Window.parse("50k:0.1M", space) == Window(50_000, 100_000)


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("50%", "give a window LOW:HIGH"),
        ("a:b", "each end is a share such as 20% or multiply-adds"),
        ("90%:20%", "the lower end must not be above the upper end"),
        ("20%:120%", "a share is at most 100%"),
        (
            "0.01%:0.1%",
            r"no architecture has so many multiply-adds; this model can have 1\.0% \(0\.00182M\) to 100\.0%",
        ),
        ("1G:2G", "no architecture has so many multiply-adds; this model can have"),
        ("99.9%:99.95%", r"no architecture lies in this window; this model can have .*, nearest 9\d\.\d%"),
    ],
)
def test_a_window_that_can_not_be_met_says_what_can(text: str, rule: str) -> None:
    with pytest.raises(OptionError, match=rf"^--macs {text}: {rule}"):
        Window.parse(text, make_space())


@given(st.integers(1, 10**9), st.integers(1, 10**9), st.integers(1, 10**9))
def test_a_window_holds_both_its_ends(a: int, b: int, inside: int) -> None:
    window = Window(min(a, b), max(a, b))
    assert window.low in window
    assert window.high in window
    assert (inside in window) == (min(a, b) <= inside <= max(a, b))
