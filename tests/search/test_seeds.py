"""The opening: which allocations at which targets, with which criteria, within half of the budget."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from fake_problem import CRITERIA, SENSITIVITY, make_encoding, make_problem, make_space
from hypothesis import given
from hypothesis import strategies as st

from search.allocate import by_error, by_global_scores, by_threshold
from search.encoding import share_of
from search.limits import Budget
from search.record import read_evaluations
from search.seeds import Knowledge, num_targets, opening

MANY = ("l1", "taylor", "random", "fpgm", "obs")


def knowledge(space, *, curves=True, sensitivities=True, criteria=MANY):
    """What the fake problem's score loses, in the form of each kind of knowledge."""

    def lost(group, sensitivity, kept):
        return sensitivity * (1 - kept / group.width) ** 2

    pairs = [*zip(space.groups, SENSITIVITY, strict=True)]
    rng = np.random.default_rng(0)
    return Knowledge(
        {g.name: lost(g, s, np.arange(g.width + 1)) for g, s in pairs} if curves else {},
        {g.name: lost(g, s, np.array(g.choices)) for g, s in pairs} if sensitivities else {},
        {c: {g.name: rng.standard_normal(g.width) for g in space.groups} for c in criteria},
    )


def shares(encoding, seeds):
    dense = encoding.space.macs(encoding.space.dense)
    return [encoding.space.macs(seed.architecture) / dense for seed in seeds]


def of(seeds, origin):
    return [seed for seed in seeds if seed.origin == f"seed: {origin}"]


@pytest.mark.parametrize(
    ("budget", "targets"), [("3", 1), ("12", 2), ("24", 4), ("47", 7), ("60", 8), ("30m", 5)]
)
def test_the_ladder_is_a_sixth_of_the_budget(budget: str, targets: int) -> None:
    assert num_targets(Budget.parse(budget)) == targets


@given(
    evaluations=st.integers(6, 200), curves=st.booleans(), sensitivities=st.booleans(), scores=st.booleans()
)
def test_seeds_are_distinct_and_take_at_most_half_of_the_budget(
    evaluations: int, curves: bool, sensitivities: bool, scores: bool
) -> None:
    encoding = make_encoding(criteria=MANY)
    known = knowledge(
        encoding.space, curves=curves, sensitivities=sensitivities, criteria=MANY if scores else ()
    )
    seeds = opening(encoding, num_targets(Budget(evaluations=evaluations)), 0, known)
    assert 2 <= len(seeds) <= evaluations / 2
    ids = [encoding.build(seed.architecture, seed.criterion).id for seed in seeds]
    assert len(set(ids)) == len(ids)
    assert all(encoding.space.macs(seed.architecture) in encoding.window for seed in seeds)
    wanted = {"seed: uniform", "seed: random"} | ({"seed: error curve"} if curves else set())
    assert wanted <= {seed.origin for seed in seeds}


def test_without_knowledge_uniform_and_random_widths_cover_the_window() -> None:
    encoding = make_encoding()
    seeds = opening(encoding, 4, 0)
    assert [seed.origin for seed in seeds] == ["seed: uniform"] * 6 + ["seed: random"] * 6
    assert {seed.criterion for seed in seeds} == set(CRITERIA)
    targets = [0.9, 0.76, 0.62, 0.48, 0.34, 0.2]
    assert shares(encoding, seeds) == pytest.approx(targets * 2, abs=0.08)
    assert opening(encoding, 4, 0) == seeds
    assert opening(encoding, 4, 1) != seeds


def test_error_curves_and_sensitivities_are_at_every_target_and_the_rest_take_turns() -> None:
    encoding = make_encoding(criteria=MANY)
    seeds = opening(encoding, 8, 0, knowledge(encoding.space))
    counts = Counter(seed.origin.removeprefix("seed: ") for seed in seeds)
    turns = ("uniform", "random", "global obs", "global l1", "global taylor", "global fpgm", "global random")
    assert set(counts) == {"error curve", "sensitivity", *turns}
    assert counts["error curve"] == 8
    assert [seed.origin for seed in seeds[:8]] == ["seed: error curve"] * 8
    tenths = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert shares(encoding, of(seeds, "error curve")) == pytest.approx(tenths, abs=0.06)
    assert len(seeds) > 20
    turned = [round(10 * share) for share in shares(encoding, seeds[counts["error curve"] :])]
    assert len(set(turned)) > 5


def test_a_seed_has_the_widths_of_its_allocation_and_the_criterion_that_belongs_to_it() -> None:
    encoding = make_encoding(criteria=MANY)
    space, known = encoding.space, knowledge(encoding.space)
    dense = space.macs(space.dense)
    seeds = opening(encoding, 8, 0, known)
    for number, share in ((1, 0.8), (4, 0.5)):
        macs = share_of(share * dense, dense)
        assert of(seeds, "error curve")[number].architecture == by_error(space, known.curves, macs=macs)
        assert by_threshold(space, known.sensitivities, macs=macs) in {s.architecture for s in seeds}
    for name in MANY:
        (seed,) = of(seeds, f"global {name}")
        ladder = [share_of(tenth * dense / 10, dense) for tenth in range(2, 10)]
        assert seed.architecture in {by_global_scores(space, known.scores[name], macs=m) for m in ladder}
        assert seed.criterion == name
    assert {seed.criterion for kind in ("error curve", "sensitivity") for seed in of(seeds, kind)} == {"obs"}
    assert of(seeds, "uniform")[0].criterion == "obs"


def test_where_obs_is_not_allowed_criteria_take_turns() -> None:
    encoding = make_encoding()
    seeds = opening(encoding, 6, 0, knowledge(encoding.space, sensitivities=False, criteria=()))
    criteria = [seed.criterion for seed in of(seeds, "error curve")]
    assert criteria == ["l1", "taylor", "random"] * 2


def test_a_budget_for_a_single_target_has_one_known_a_uniform_and_a_random_seed() -> None:
    encoding = make_encoding(criteria=MANY)
    seeds = opening(encoding, 1, 0, knowledge(encoding.space))
    assert [seed.origin for seed in seeds] == ["seed: error curve", "seed: uniform", "seed: random"]


def test_scores_of_criteria_that_are_not_allowed_give_no_seeds() -> None:
    encoding = make_encoding(criteria=("l1",))
    seeds = opening(encoding, 8, 0, knowledge(encoding.space))
    assert {seed.criterion for seed in seeds} == {"l1"}
    assert {seed.origin for seed in seeds if "global" in seed.origin} == {"seed: global l1"}


def test_a_run_opens_with_what_its_problem_knows(run_fake) -> None:
    space = make_space()
    problem = replace(make_problem(space), knowledge=knowledge(space, criteria=CRITERIA))
    _, _, folder = run_fake(problem=problem, budget="24", max_rung=2)
    records = [record for record in read_evaluations(folder) if record.evaluation.rung == 1]
    encoding = make_encoding(space)
    seeds = opening(encoding, 4, 0, problem.knowledge)
    assert [record.origin for record in records[: len(seeds)]] == [seed.origin for seed in seeds]
    assert [record.candidate.architecture for record in records[: len(seeds)]] == [
        seed.architecture for seed in seeds
    ]
    assert {record.origin for record in records[len(seeds) :]} == {"sampler: front"}
