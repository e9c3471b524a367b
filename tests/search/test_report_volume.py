"""Hypervolume over time, against the slow one; the clock without pauses; the trend of the MACs."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from evaluators.evaluation import Evaluation
from search.front import Mark, hypervolume, reference_score
from search.record import Record
from search.report.history import Entry
from search.report.trend import mean_interval, residuals
from search.report.volume import busy_seconds, elapsed, gains

DENSE = 20


@given(
    st.lists(st.tuples(st.integers(1, 24), st.integers(-8, 16).map(lambda n: n / 16)), max_size=30),
    st.sampled_from([0.0, -0.25]),
)
def test_what_each_mark_adds_sums_up_to_the_hypervolume_of_all_so_far(values, reference):
    added = gains([macs / DENSE for macs, _ in values], [score for _, score in values], reference)
    marks = [Mark(macs, score, str(i)) for i, (macs, score) in enumerate(values)]
    found = [hypervolume(marks[: i + 1], DENSE, least_score=reference) for i in range(len(marks))]
    assert np.cumsum(added).tolist() == pytest.approx(found)


def test_five_thousand_evaluations_take_a_moment():
    generator = np.random.default_rng(0)
    macs, scores = np.sort(generator.random(5000))[::-1], np.linspace(1, 0.1, 5000)  # all on the front
    start = time.perf_counter()
    assert np.count_nonzero(gains(macs, scores, 0.0)) == 5000
    assert time.perf_counter() - start < 2  # seconds; it takes some hundredths, a quadratic one minutes


def test_the_reference_is_a_score_of_nothing_or_the_worst_negative_one():
    assert reference_score([0.3, 0.9]) == 0.0
    assert reference_score([-0.3, -2.5, 0.9]) == -2.5
    assert reference_score([]) == 0.0


def entry(finished, seconds=1.0):
    return Entry(Record(Evaluation("a", 1, "refit", 0, 0.5, 1, 1, seconds), "seed: x", {}, {}), finished, {})


def test_pauses_between_sessions_do_not_count_and_long_evaluations_are_none():
    night, day = 8 * 3600, 24 * 3600
    entries = [entry(100.0), entry(150.0), entry(150.0 + night), entry(150.0 + night + day, seconds=day)]
    # The night counts as one minute, and so does the second that its first evaluation took.
    assert elapsed(entries, entries).tolist() == [1.0, 51.0, 51.0 + 60 + 1, 112.0 + day]
    assert elapsed(entries[2:3], entries).tolist() == [112.0]
    assert busy_seconds([entry(10.0, 4.0), entry(11.0, 4.0), entry(30.0, 2.0)]) == 7.0


def test_the_trend_never_falls_and_leaves_what_it_is_compared_with_out():
    macs = list(range(1, 41))
    line = residuals(macs, [m / 100 for m in macs])
    assert np.abs(line).max() <= 0.01 + 1e-12  # one step, at the ends
    assert np.abs(line[1:-1]).max() < 1e-9
    bump = [m / 100 + (0.3 if m == 20 else 0) for m in macs]
    found = residuals(macs, bump)
    assert found[19] == pytest.approx(0.3)
    assert residuals([3, 3, 3, 3], [0.1, 0.2, 0.3, 0.4]).tolist() == pytest.approx(
        [0.1 - 0.3, 0.2 - 0.8 / 3, 0.3 - 0.7 / 3, 0.4 - 0.2]
    )
    assert residuals([1, 2], [0.1, 0.9]).tolist() == [0.0, 0.0]


def test_an_interval_of_a_mean_is_students():
    """Mean 2, deviation 1, t(0.975, 2) = 4.3027: half of it is 4.3027 / sqrt(3)."""
    found = mean_interval([1.0, 2.0, 3.0])
    assert (found.mean, found.n) == (2.0, 3)
    assert found.half == pytest.approx(4.302653 / 3**0.5, rel=1e-6)
    assert not found.conclusive
    assert mean_interval([1.0]).half is None
