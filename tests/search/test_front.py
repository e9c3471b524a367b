from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.front import Mark, coarse, crowding, front, hypervolume, ranks, spread

if TYPE_CHECKING:
    import random

MARKS = st.lists(
    st.builds(
        Mark,
        macs=st.integers(1, 20),
        score=st.integers(0, 20).map(lambda n: n / 20),
        id=st.text("abcdef", min_size=4, max_size=4),
    ),
    max_size=24,
    unique_by=lambda mark: mark.id,
)


def dominates(a: Mark, b: Mark) -> bool:
    return a.macs <= b.macs and a.score >= b.score and (a.macs, a.score) != (b.macs, b.score)


@given(MARKS, st.randoms(use_true_random=False))
def test_a_front_ignores_order(marks: list[Mark], source: random.Random) -> None:
    shuffled = marks.copy()
    source.shuffle(shuffled)
    assert front(shuffled) == front(marks)


@given(MARKS)
def test_a_front_ignores_dominated_points_and_is_strictly_rising(marks: list[Mark]) -> None:
    found = front(marks)
    assert {(m.macs, m.score) for m in found} == {
        (m.macs, m.score) for m in marks if not any(dominates(other, m) for other in marks)
    }
    assert all(a.macs < b.macs and a.score < b.score for a, b in itertools.pairwise(found))
    assert front(found) == found


@given(MARKS)
def test_rank_zero_is_the_front_and_each_rank_is_the_front_of_the_rest(marks: list[Mark]) -> None:
    rank_of = ranks(marks).tolist()
    waiting = marks
    for rank in range(max(rank_of, default=-1) + 1):
        best = {m for m in waiting if not any(dominates(other, m) for other in waiting)}
        assert best == {m for m, r in zip(marks, rank_of, strict=True) if r == rank}
        waiting = [m for m in waiting if m not in best]
    assert waiting == []


@pytest.mark.parametrize("steps", [1, 2, 5, 10])
def test_a_staircase_has_a_triangular_number_of_cells(steps: int) -> None:
    marks = [Mark(macs=n, score=(n + 1) / (steps + 1), id=str(n)) for n in range(steps)]
    cells = steps * (steps + 1) / 2
    assert hypervolume(marks, steps) == pytest.approx(cells / steps / (steps + 1))


@given(MARKS, MARKS)
def test_hypervolume_ignores_dominated_points_and_never_falls(marks: list[Mark], more: list[Mark]) -> None:
    assert hypervolume(marks, 20) == pytest.approx(hypervolume(front(marks), 20))
    assert hypervolume([*marks, *more], 20) >= hypervolume(marks, 20) - 1e-12


def test_crowding_is_the_share_of_each_extent_between_the_neighbours() -> None:
    marks = [Mark(0, 0.0, "a"), Mark(2, 0.5, "b"), Mark(8, 0.6, "c"), Mark(10, 1.0, "d")]
    assert crowding(marks).tolist() == pytest.approx([float("inf"), 0.8 + 0.6, 0.8 + 0.5, float("inf")])


def test_spread_takes_the_best_of_each_bin() -> None:
    marks = [
        Mark(10, 0.1, "a"),
        Mark(19, 0.5, "b"),
        Mark(21, 0.6, "c"),
        Mark(39, 0.4, "d"),
        Mark(41, 0.9, "e"),
    ]
    assert [mark.id for mark in spread(marks, 3, 10, 80)] == ["b", "c", "e"]


def test_spread_fills_empty_bins_from_the_lowest_ranks_far_from_what_is_chosen() -> None:
    marks = [
        Mark(10, 0.1, "a"),
        Mark(11, 0.2, "b"),
        Mark(14, 0.5, "c"),
        Mark(39, 0.9, "d"),
        Mark(12, 0.1, "e"),
    ]
    assert [mark.id for mark in spread(marks, 3, 10, 40)] == ["a", "c", "d"]
    assert [mark.id for mark in spread(marks, 4, 10, 40)] == ["a", "b", "c", "d"]
    assert spread(marks, 9, 10, 40) == sorted(marks)


@given(MARKS, st.integers(1, 8))
def test_spread_ignores_order_and_never_repeats(marks: list[Mark], count: int) -> None:
    chosen = spread(marks, count, 1, 20)
    assert len(chosen) == len(set(chosen)) == min(count, len(marks))
    assert spread(reversed(marks), count, 1, 20) == chosen


@given(MARKS)
def test_a_coarse_front_has_one_place_for_each_step_of_macs(marks: list[Mark]) -> None:
    steps = [mark.macs for mark in coarse(marks, 5)]
    assert steps == [5 * ((mark.macs + 4) // 5) for mark in marks]
    assert len(front(coarse(marks, 5))) <= 4
