from __future__ import annotations

import itertools
import json
import math
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_run import GROUPS, make_result
from rich.console import Console
from scipy import stats

from evaluators.evaluation import Evaluation
from search.correlation import rank_correlation, rung_correlations
from search.record import Record, read_evaluations
from search.result import Correlation, Result, RungCorrelation
from search.show import print_result

TEN = list(range(10))


def slow_tau_b(x, y):
    """Kendall 1945, pair by pair: concordant minus discordant over the geometric mean of the untied pairs."""
    pairs = list(itertools.combinations(zip(x, y, strict=True), 2))
    signs = [(np.sign(a[0] - b[0]), np.sign(a[1] - b[1])) for a, b in pairs]
    return sum(s * t for s, t in signs) / math.sqrt(
        sum(s * s for s, _ in signs) * sum(t * t for _, t in signs)
    )


def record(candidate, rung, score, method="finetune", *, seed=0, origin="seed: random"):
    evaluation = Evaluation(candidate, rung, method, seed, score, 1000, 100, 1.0)
    return Record(evaluation, origin, dict(GROUPS), {})


# one pair of rankings


def test_equal_and_reversed_rankings_have_tau_one_and_minus_one_and_mirrored_intervals():
    same = rank_correlation(TEN, [2.0 * x for x in TEN], seed=0)
    back = rank_correlation(TEN, TEN[::-1], seed=0)
    assert (same.tau, same.high, back.tau, back.low) == (1, 1, -1, -1)
    assert same.low == -back.high
    assert 0.5 < same.low < 1


def test_a_case_by_hand():
    """1 2 3 4 against 1 3 2 4: five pairs of six agree, one does not: 4 / 6."""
    assert rank_correlation([1, 2, 3, 4], [0.1, 0.3, 0.2, 0.4], seed=0).tau == pytest.approx(4 / 6)


def test_ties_by_hand():
    """1 1 2 3 against 1 2 2 3: four pairs agree, one ties on each side: 4 / sqrt(5 * 5)."""
    assert rank_correlation([1, 1, 2, 3], [1, 2, 2, 3], seed=0).tau == pytest.approx(0.8)


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=4, max_size=12))
@settings(max_examples=60, deadline=None)
def test_tau_is_that_of_the_slow_definition_and_lies_in_its_interval(pairs):
    x, y = zip(*pairs, strict=True)
    found = rank_correlation(x, y, seed=1)
    if len(set(x)) == 1 or len(set(y)) == 1:
        assert found == Correlation(None, None, None, len(pairs))
    else:
        assert found.tau == pytest.approx(slow_tau_b(x, y))
        assert -1 <= found.low <= found.tau <= found.high <= 1


def test_four_equal_orders_can_be_chance_and_five_can_not():
    """Unrelated scores agree on all pairs once in n! times: 1 / 24 is above 2.5%, 1 / 120 below it."""
    assert rank_correlation([1, 2, 3, 4], [1, 2, 3, 4], seed=0).low < 0
    assert rank_correlation([1, 2, 3, 4, 5], [1, 2, 3, 4, 5], seed=0).low > 0


@pytest.mark.parametrize("n", [8, 40])
def test_at_the_ends_of_the_interval_the_observed_tau_is_as_rare_as_promised(n):
    """Slow reference: samples of the normal law whose tau is the limit, each ranked by scipy."""
    generator = np.random.default_rng(5)
    x = generator.standard_normal(n)
    observed = rank_correlation(x, x + generator.standard_normal(n), seed=0)
    for limit, side in ((observed.low, 1), (observed.high, -1)):
        rho = math.sin(math.pi * limit / 2)
        taus = []
        for _ in range(1500):
            a, e = generator.standard_normal((2, n))
            taus.append(stats.kendalltau(a, rho * a + math.sqrt(1 - rho**2) * e).statistic)
        beyond = np.mean(side * np.array(taus) >= side * observed.tau - 1e-9)
        assert beyond == pytest.approx(0.025, abs=0.015)


def test_more_candidates_narrow_the_interval_and_equal_seeds_repeat_it():
    few = rank_correlation(TEN, [1, 0, 3, 2, 5, 4, 7, 6, 9, 8], seed=3)
    many = rank_correlation(range(40), [i ^ 1 for i in range(40)], seed=3)
    assert many.high - many.low < few.high - few.low
    assert few == rank_correlation(TEN, [1, 0, 3, 2, 5, 4, 7, 6, 9, 8], seed=3)


@pytest.mark.parametrize("n", [0, 1, 2, 3])
def test_fewer_than_four_candidates_have_no_interval(n):
    found = rank_correlation(TEN[:n], TEN[:n], seed=0)
    assert found == Correlation(1.0 if n > 1 else None, None, None, n)


def test_where_all_scores_are_equal_nothing_is_said():
    assert rank_correlation([0.1] * 10, TEN, seed=0) == Correlation(None, None, None, 10)
    assert rank_correlation(TEN, [0.1] * 10, seed=0) == Correlation(None, None, None, 10)


@pytest.mark.parametrize("bad", [([1, 2], [1]), ([1, math.nan], [1, 2]), ([1, 2], [1, math.inf])])
def test_scores_that_do_not_pair_are_refused(bad):
    with pytest.raises(ValueError, match="`lower` and `upper` must"):
        rank_correlation(*bad, seed=0)


# the rungs of a run


def test_each_pair_of_rungs_with_three_shared_candidates_is_compared():
    """Rung 1: a < b < c. Rung 2: c < a < b, 1 - 2 * 2 / 3. Rung 3 has two of them and one of its own."""
    records = [
        record(name, 1, score, "refit") for name, score in zip("abcd", (0.1, 0.2, 0.3, 0.9), strict=True)
    ]
    records += [record(name, 2, score) for name, score in zip("abc", (0.5, 0.6, 0.4), strict=True)]
    records += [record(name, 3, score) for name, score in zip("abx", (0.5, 0.6, 0.4), strict=True)]
    (found,) = rung_correlations(records, seed=0)
    assert found == RungCorrelation(pytest.approx(-1 / 3), None, None, 3, rungs=(1, 2))


def test_rung_3_counts_with_its_fine_tuning_mean_over_seeds_and_controls_count_too():
    """Means 0.3 < 0.4 < 0.5; a single seed or scratch training would reverse them."""
    records = [record(name, 2, score) for name, score in zip("abc", (0.1, 0.2, 0.3), strict=True)]
    for name, first, second in (("a", 0.5, 0.1), ("b", 0.4, 0.4), ("c", 0.3, 0.7)):
        origin = "control: uniform" if name == "c" else "seed: random"
        records += [record(name, 3, score, seed=i, origin=origin) for i, score in enumerate((first, second))]
        records.append(record(name, 3, first, "scratch_e"))
    (found,) = rung_correlations(records, seed=0)
    assert (found.tau, found.n, found.rungs) == (1, 3, (2, 3))


def test_a_run_writes_the_correlations_of_its_records(run_fake):
    result, _, folder = run_fake(budget="18", final=4, seed=2)
    records = read_evaluations(folder)
    assert result.correlations == rung_correlations(records, 2)
    assert Result.load(folder) == result
    scores = {rung: {} for rung in (1, 2)}
    for found in records:
        if found.evaluation.rung < 3:
            scores[found.evaluation.rung][found.evaluation.candidate] = found.evaluation.score
    pairs = [(scores[1][name], score) for name, score in scores[2].items()]
    document = json.loads((folder / "front.json").read_text())["correlations"]
    assert [(c["rungs"], c["n"]) for c in document] == [([1, 2], 6), ([1, 3], 4), ([2, 3], 4)]
    assert document[0]["tau"] == pytest.approx(slow_tau_b(*zip(*pairs, strict=True)))


def test_a_run_that_stops_at_rung_1_has_none(run_fake):
    result, _, _ = run_fake(max_rung=1)
    assert result.correlations == ()


def test_the_end_of_a_run_says_it_in_one_line():
    console = Console(file=StringIO(), width=200)
    print_result(console, make_result(), Path("runs/digits"))
    (line,) = [line for line in console.file.getvalue().splitlines() if "Kendall" in line]
    assert line.startswith("Rung 1 agreed with rung 2 on the order of about 86 of 100 pairs")
