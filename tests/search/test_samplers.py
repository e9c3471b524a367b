"""One contract for every sampler, and what our own one adds."""

from __future__ import annotations

import pytest
from fake_problem import CRITERIA, make_encoding, make_problem
from optuna.storages import InMemoryStorage

from evaluators.evaluation import Evaluation
from search.front import Mark, hypervolume
from search.front_sampler import chances
from search.limits import Budget
from search.record import Record
from search.samplers import SAMPLERS, FixedSampler, SamplerContext, population
from search.seeds import derived_seed, opening, seeded_generator
from search.study import Book


def propose(name, seed, *, num=14, per_group=False, encoding=None):
    """Candidates that a study of one seed opening and ``num`` proposals evaluates."""
    encoding = encoding or make_encoding(per_group=per_group)
    book = Book(InMemoryStorage(), encoding.distributions)
    evaluator = make_problem(encoding.space).evaluator
    seeds = opening(encoding, 1, 0)
    found = []
    for number in range(len(seeds) + num):
        if number < len(seeds):
            sampler = FixedSampler(encoding.params(seeds[number].architecture, seeds[number].criterion))
        else:
            sampler = SAMPLERS[name](SamplerContext(encoding, derived_seed(seed, number), population=5))
        proposal = book.ask(sampler)
        candidate = encoding.candidate(proposal.params)
        if number >= len(seeds):
            found.append(candidate)
        evaluation = evaluator.evaluate(candidate, rung=1, method="refit", seed=0).evaluation
        record = Record(evaluation, "sampler", dict(candidate.architecture.items), dict(candidate.chosen))
        book.tell(proposal, record)
    return found


@pytest.mark.parametrize("per_group", [False, True], ids=["one criterion", "one per group"])
@pytest.mark.parametrize("name", SAMPLERS)
def test_every_sampler_proposes_inside_the_window_and_repeats_itself(name, per_group) -> None:
    encoding = make_encoding(per_group=per_group)
    num = 3 if name == "gp" else 8  # a GP is fitted for seconds
    first = propose(name, seed=1, num=num, per_group=per_group)
    assert all(encoding.space.macs(c.architecture) in encoding.window for c in first)
    assert all(set(c.criteria.values()) <= set(CRITERIA) for c in first)
    assert propose(name, seed=1, num=num, per_group=per_group) == first
    assert propose(name, seed=2, num=num, per_group=per_group) != first


def test_the_front_sampler_proposes_nothing_twice() -> None:
    found = propose("front", seed=0, num=30)
    assert len({candidate.id for candidate in found}) == 30


def test_the_front_sampler_says_widths_exactly() -> None:
    encoding = make_encoding()
    for candidate in propose("front", seed=0, encoding=encoding):
        criterion = next(iter(candidate.criteria.values()), "l1")
        assert encoding.candidate(encoding.params(candidate.architecture, criterion)) == candidate


def test_the_front_sampler_finds_more_than_random_proposals_at_equal_evaluations() -> None:
    """Median over seeds, on a landscape that rewards widths which differ."""
    space = make_encoding().space
    evaluator = make_problem(space).evaluator

    def volume(name, seed):
        candidates = propose(name, seed, num=30)
        evaluations = [evaluator.evaluate(c, rung=1, method="refit", seed=0).evaluation for c in candidates]
        return hypervolume([Mark(e.macs, e.score, e.candidate) for e in evaluations], space.macs(space.dense))

    gains = sorted(volume("front", seed) - volume("random", seed) for seed in range(5))
    assert gains[2] > 0


def test_a_criterion_that_does_not_apply_to_a_group_is_replaced_there() -> None:
    encoding = make_encoding(applicable={"layer0": ("l1", "random")})
    candidate = encoding.build(encoding.space.uniform(0.5), "taylor")
    assert dict(candidate.criteria) == {
        "layer0": "l1",
        "layer1": "taylor",
        "layer2": "taylor",
        "layer3": "taylor",
    }


def test_what_lies_outside_the_window_is_scaled_into_it() -> None:
    encoding = make_encoding(window="40%:60%")
    space = encoding.space
    for ratio in (0.05, 0.3, 0.9, 1.0):
        ratios = {"layer0": ratio, "layer1": ratio / 2, "layer2": ratio, "layer3": ratio}
        assert space.macs(encoding.into_window(ratios)) in encoding.window
    inside = dict.fromkeys(space.ratios(space.dense), 0.75)
    assert encoding.into_window(inside) == space.nearest(inside)


def test_criteria_are_drawn_by_their_expected_rate_of_success() -> None:
    used = [{"l1"}, {"l1"}, {"l1", "taylor"}, set(), {"random"}]
    found = chances(("l1", "taylor", "random", "new"), used, [True, True, False, True, False])
    # Rates 3/5, 1/3, 1/3 and 1/2: their sum is 53/30.
    expected = {"l1": 18 / 53, "taylor": 10 / 53, "random": 10 / 53, "new": 15 / 53}
    assert found == pytest.approx(expected)


def test_criteria_that_have_failed_are_proposed_less() -> None:
    """Nine bad criteria with twenty failures each: 0.3 of the draws are theirs, not 0.9."""
    criteria = ("taylor", *(f"bad{number}" for number in range(9)))
    encoding = make_encoding(criteria=criteria)
    space = encoding.space
    book = Book(InMemoryStorage(), encoding.distributions)
    for number in range(200):
        architecture = space.sample(seeded_generator(number), macs=0.3 + 0.003 * number)
        name = criteria[number % 10]
        proposal = book.ask(FixedSampler(encoding.params(architecture, name)))
        candidate = encoding.candidate(proposal.params)
        macs = space.macs(candidate.architecture)
        score = 0.3 * (name == "taylor") + 0.5 * macs / space.macs(space.dense)
        evaluation = Evaluation(candidate.id, 1, "refit", 0, score, macs, 1, 0.0)
        book.tell(proposal, Record(evaluation, "sampler", dict(architecture.items), dict(candidate.chosen)))
    asked = [book.ask(SAMPLERS["front"](SamplerContext(encoding, seed, 5))) for seed in range(80)]
    share = sum(proposal.params["criterion"] != "taylor" for proposal in asked) / 80
    assert 0 < share < 0.15


def test_populations_fit_the_budget() -> None:
    assert [population(Budget.parse(text)) for text in ("8", "40", "1000", "30m")] == [4, 10, 50, 10]
