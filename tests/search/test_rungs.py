from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from test_front import MARKS, dominates

from search.front import Mark
from search.rungs import promotable, quota, ranked


@given(st.integers(0, 200))
def test_a_third_climbs_and_at_least_one(number: int) -> None:
    assert quota(number) == max(number // 3, min(number, 1))


@given(MARKS)
def test_no_one_waits_who_dominates_someone_that_climbs(marks: list[Mark]) -> None:
    climbing = promotable(marks, ())
    assert len(climbing) == len(set(climbing)) == quota(len(marks))
    for up in (mark for mark in marks if mark.id in climbing):
        assert not [mark for mark in marks if mark.id not in climbing and dominates(mark, up)]


@given(MARKS, st.randoms(use_true_random=False))
def test_promotion_ignores_order(marks: list[Mark], source) -> None:
    shuffled = marks.copy()
    source.shuffle(shuffled)
    assert promotable(shuffled, ()) == promotable(marks, ())


@given(MARKS, st.data())
def test_who_climbed_counts_for_good(marks: list[Mark], data: st.DataObject) -> None:
    earlier = data.draw(st.sets(st.sampled_from([m.id for m in marks]))) if marks else set()
    now = promotable(marks, earlier)
    assert not set(now) & earlier
    assert len(now) == max(0, min(quota(len(marks)) - len(earlier), len(marks) - len(earlier)))


def test_equal_ranks_are_told_apart_by_crowding_then_id() -> None:
    marks = [Mark(10, 0.1, "d"), Mark(20, 0.2, "c"), Mark(30, 0.3, "b"), Mark(70, 0.7, "a")]
    assert [mark.id for _, mark in ranked(marks)] == ["a", "d", "b", "c"]
    assert promotable(marks, (), reduction=2) == ["a", "d"]
