from __future__ import annotations

import pytest
from made_run import POINTS, make_point, make_result

from search.report.data import Gap
from search.report.words import (
    Metric,
    correlation_words,
    count,
    criteria_words,
    duration,
    headline,
    origin_words,
    reach,
    share,
    significant,
    tau_words,
    training_verdict,
    verdict,
)
from search.result import Comparison, RungCorrelation, Summary

TOP1 = Metric("top1")


@pytest.mark.parametrize(
    ("test", "words"),
    [
        (0.955, "Removing 52% of the MACs costs 0.5 points of top-1"),
        (0.9598, "Removing 52% of the MACs costs less than 0.1 points of top-1"),
        (0.96, "Removing 52% of the MACs costs no top-1"),
        (0.97, "Removing 52% of the MACs costs no top-1"),
    ],
)
def test_the_headline_says_what_the_front_costs(test, words):
    assert headline(make_result(points=(make_point("x", 480_000, 0.95, test=test),)), "test") == words


def test_a_front_far_below_the_dense_network_says_so():
    said = reach(make_result(points=POINTS[:2]))
    assert said == "No network of the front comes within one point of the dense one's top-1 on holdout."


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (
            (0.02, 0.01, 0.03, 4),
            "Yes: the search is 2.00 points better than uniform widths at equal MACs on test",
        ),
        (
            (-0.02, -0.03, -0.01, 4),
            "No: the search is 2.00 points worse than uniform widths at equal MACs on test",
        ),
        (
            (0.001, -0.01, 0.012, 4),
            "No, a null result: against uniform widths at equal MACs the difference is +0.10",
        ),
        (
            (0.03, None, None, 1),
            "Not known: against uniform widths at equal MACs the difference is +3.00 on test",
        ),
        ((0.0, None, None, 0), "Not known: no network was compared with uniform widths at equal MACs."),
    ],
)
def test_the_verdict_calls_a_gain_a_loss_a_null_result_and_ignorance_by_name(numbers, words):
    assert verdict(Comparison("uniform", "test", *numbers), TOP1).startswith(words)


def test_pairs_of_a_network_with_itself_are_told():
    said = verdict(Comparison("random", "test", 0.0, None, None, 1, alike=1), TOP1)
    assert "from 1 pair, 1 of a network with itself, too few for an interval" in said
    said = verdict(Comparison("uniform", "test", 0.02, 0.01, 0.03, 4, alike=2), TOP1)
    assert said.endswith(", 4 pairs, 2 of a network with itself).")


def test_a_null_result_gives_its_interval_and_pairs():
    said = verdict(Comparison("random", "test", 0.001, -0.01, 0.012, 4), TOP1)
    assert said.endswith("and the 95% interval \N{MINUS SIGN}1.00 to +1.20 (4 pairs) contains zero.")


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ((-0.02, -0.03, -0.01, 4), "Fine-tuning beats Scratch-E by 2.00 points on test"),
        ((0.02, 0.01, 0.03, 4), "Scratch-E beats fine-tuning by 2.00 points on test"),
        (
            (0.001, -0.01, 0.012, 4),
            "No measurable difference between Scratch-E and fine-tuning: +0.10 on test",
        ),
        ((0.03, None, None, 1), "Scratch-E minus fine-tuned: +3.00 on test, from 1 network, too few"),
    ],
)
def test_fine_tuning_and_scratch_training_are_compared_in_words(numbers, words):
    assert training_verdict(Gap("scratch_e", *numbers), TOP1).startswith(words)


def test_numbers_are_written_with_their_units():
    assert [count(n) for n in (512, 27_400, 40_813_184, 4.1e9)] == ["512", "27.4 k", "40.8 M", "4.1 G"]
    assert [share(part, 1000) for part in (485, 1000, 99.4, 5)] == ["48%", "100%", "9.9%", "0.5%"]
    assert [duration(s) for s in (0.44, 59.99, 200, 7_500)] == ["0.4 s", "60.0 s", "3 min 20 s", "2 h 5 min"]
    assert TOP1.summary(Summary(0.9693, 0.0021, 3)) == "96.93 ± 0.21%"
    assert TOP1.summary(Summary(0.9693, None, 1)) == "96.93%"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        (
            (0.5, 0.1, 0.8, 9),
            "Rung 2 agreed with rung 3 on the order of about 75 of 100 pairs among the 9 candidates that "
            "both scored: Kendall's tau 0.50 (95% interval 0.10 to 0.80).",
        ),
        (
            (-0.5, -0.8, -0.1, 9),
            "Rung 2 misled: it agreed with rung 3 on the order of only about 25 of 100 pairs among the 9 "
            "candidates that both scored: Kendall's tau -0.50 (95% interval -0.80 to -0.10).",
        ),
        (
            (0.3, -0.2, 0.7, 9),
            "Not shown that rung 2 ranks as rung 3 does: among the 9 candidates that both scored, "
            "the 95% interval -0.20 to 0.70 of Kendall's tau 0.30 contains zero.",
        ),
        (
            (1.0, None, None, 3),
            "Rungs 2 and 3: Kendall's tau 1.00 among the 3 candidates that both scored, "
            "too few for an interval.",
        ),
        (
            (None, None, None, 4),
            "Rungs 2 and 3 can not be compared: among the 4 candidates that both scored, "
            "all scores of one rung are equal.",
        ),
    ],
)
def test_an_agreement_a_reversal_and_ignorance_of_two_rungs_are_told_apart(numbers, words):
    said = correlation_words(RungCorrelation(*numbers, rungs=(2, 3)))
    assert said.replace("\N{MINUS SIGN}", "-") == words


def test_a_tau_that_rounds_to_zero_has_no_sign():
    assert [tau_words(tau) for tau in (-0.001, 0.004, -0.006, None)] == [
        "0.00",
        "0.00",
        "\N{MINUS SIGN}0.01",
        "none",
    ]


def test_origins_are_counted_most_first():
    origins = ("seed: uniform", "sampler: front", "seed: error curve", "sampler: front")
    points = [make_point(str(i), 100, 0.9, origin=origin) for i, origin in enumerate(origins)]
    assert origin_words(points) == "2 sampler: front, 1 seed: error curve, 1 seed: uniform"
    assert origin_words([]) == ""


def test_many_criteria_are_summed_up():
    several = {f"g{i}": name for i, name in enumerate(("l1", "obs", "obs", "apoz", "fpgm", "lamp", "lasso"))}
    assert criteria_words(several) == "obs in 2 groups, apoz in 1, fpgm in 1, l1 in 1 and 2 more"
    assert criteria_words({"a": "l1", "b": "l1"}) == "l1"
    assert criteria_words({}) == "none: nothing was removed"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0.65432, "0.6543"),
        (2.13449e-4, "0.0002134"),
        (2.13449e-7, "2.134e\N{MINUS SIGN}07"),
        (-0.067481, "\N{MINUS SIGN}0.06748"),
        (0.0, "0"),
    ],
)
def test_numbers_of_any_magnitude_have_four_digits(number, words):
    assert significant(number) == words


def test_scores_below_zero_have_the_minus_of_their_differences():
    own = Metric("neg_rmse")
    assert own.value(-0.0674812) == "\N{MINUS SIGN}0.06748"
    assert own.signed(-0.0674812) == "\N{MINUS SIGN}0.0675"
    assert own.summary(Summary(-0.0674812, 0.00021, 3)) == "\N{MINUS SIGN}0.06748 ± 0.00021"
    assert own.summary(Summary(-0.0674812, None, 1)) == "\N{MINUS SIGN}0.06748"
