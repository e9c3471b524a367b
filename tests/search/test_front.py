from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.front import Mark, crowding, front, hypervolume, ranks, spread

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
    assert hypervolume(marks, dense_macs=steps) == pytest.approx(cells / steps / (steps + 1))


@given(MARKS, MARKS)
def test_hypervolume_ignores_dominated_points_and_never_falls(marks: list[Mark], more: list[Mark]) -> None:
    assert hypervolume(marks, 20) == pytest.approx(hypervolume(front(marks), 20))
    assert hypervolume([*marks, *more], 20) >= hypervolume(marks, 20) - 1e-12


def test_crowding_is_the_share_of_each_extent_between_the_neighbours() -> None:
    marks = [Mark(0, 0.0, "a"), Mark(2, 0.5, "b"), Mark(8, 0.6, "c"), Mark(10, 1.0, "d")]
    assert crowding(marks).tolist() == pytest.approx([float("inf"), 0.8 + 0.6, 0.8 + 0.5, float("inf")])


def test_spread_takes_the_front_first_and_then_the_next_rank() -> None:
    best = [Mark(10, 0.5, "a"), Mark(20, 0.9, "b")]
    second = [Mark(11, 0.4, "c"), Mark(18, 0.45, "d"), Mark(30, 0.8, "e")]
    third = [Mark(31, 0.1, "f")]
    assert spread([*third, *second, *best], 2) == best
    # After 10 and 20 the furthest of the next rank is 30, then 18 and 11 are 2 and 1 away.
    assert spread([*third, *second, *best], 3) == [*best, second[2]]
    assert spread([*third, *second, *best], 4) == [best[0], second[1], best[1], second[2]]


@given(MARKS, st.integers(1, 8))
def test_spread_holds_the_ends_of_the_front_and_never_repeats(marks: list[Mark], count: int) -> None:
    chosen = spread(marks, count)
    assert len(chosen) == len(set(chosen)) == min(count, len(marks))
    if len(marks) > count >= 2 and len(front(marks)) > count:
        assert {m.macs for m in chosen} >= {front(marks)[0].macs, front(marks)[-1].macs}
