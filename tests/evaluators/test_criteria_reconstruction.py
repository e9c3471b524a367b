"""ThiNet, LASSO and OBS against slow references, and what the learned criterion learns."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso
from torch import Tensor
from toys import group, moments_of, random_consumer

from evaluators.criteria import CRITERIA, NotApplicable, ScoringContext, keep_order
from evaluators.criteria.reconstruction import contribution_gram
from evaluators.reconstruct.elimination import backward_elimination
from evaluators.statistics.records import Consumer, Moments, Statistics
from spaces.groups import ChannelGroup, Member

Reader = tuple[Tensor, Consumer]


def scored(name: str, readers: list[Reader]) -> Tensor:
    """Scores of the group that all readers read."""
    members, moments = [], {}
    for number, (_, consumer) in enumerate(readers):
        slots = consumer.columns[:, :: consumer.moments.taps] // consumer.moments.taps
        members.append(Member(f"layer{number}.weight", 1, "input", slots.numpy()))
        moments[f"layer{number}"] = consumer.moments
    units = ChannelGroup("group", len(readers[0][1].columns), 1, 1, tuple(members))
    return CRITERIA[name](ScoringContext({}, Statistics(moments), 0), units)


def contributions(readers: list[Reader]) -> Tensor:
    """``(rows, width)``: all that each unit adds to all outputs, so that mean squares are errors."""
    parts = []
    for x, consumer in readers:
        for rows, weights, importance in zip(
            x, consumer.moments.weights, consumer.moments.importance, strict=True
        ):
            added = torch.stack([rows[:, c] @ (weights[c] * importance.sqrt()) for c in consumer.columns])
            parts.append(added.flatten(1).T / len(rows) ** 0.5)
    return torch.cat(parts)


CASES = {
    "one tap": [random_consumer(7, 1)],
    "nine taps": [random_consumer(7, 9, 5, others=2, importance=True)],
    "two readers": [random_consumer(7, 9, 4, seed=1), random_consumer(7, 1, 7, importance=True, seed=2)],
    "conv groups": [random_consumer(7, 4, 2, conv_groups=3, seed=3)],
}


@pytest.mark.parametrize("readers", CASES.values(), ids=CASES)
class TestSevenChannels:
    def test_inner_products_of_contributions(self, readers: list[Reader]) -> None:
        added = contributions(readers)
        found = contribution_gram([consumer for _, consumer in readers])
        torch.testing.assert_close(found, added.T @ added)

    def test_thinet_grows_the_removed_set_of_least_energy(self, readers: list[Reader]) -> None:
        added, order, energies = contributions(readers), [], [0.0]
        while len(order) < 7:
            left = [unit for unit in range(7) if unit not in order]
            costs = [float(added[:, [*order, unit]].sum(dim=1).square().sum()) for unit in left]
            order.append(left[int(np.argmin(costs))])
            energies.append(min(costs))
        scores = scored("thinet", readers)
        assert keep_order(scores).flip(0).tolist() == order
        wanted = torch.tensor(energies, dtype=torch.float64).diff().cummax(0).values
        torch.testing.assert_close(scores[order], wanted, rtol=1e-8, atol=1e-8)

    def test_lasso_scores_are_penalties_at_which_units_enter(self, readers: list[Reader]) -> None:
        added = contributions(readers)
        scores = scored("lasso", readers)
        for unit in range(7):
            before, after = (descended(added, float(scores[unit]) * factor) for factor in (1.0001, 0.9999))
            assert before[unit] == 0
            assert after[unit] != 0

    def test_obs_scores_are_growths_of_the_error(self, readers: list[Reader]) -> None:
        elimination = backward_elimination([consumer for _, consumer in readers])
        scores = scored("obs", readers)
        assert keep_order(scores).tolist() == elimination.order.flip(0).tolist()
        wanted = elimination.increases.cummax(0).values
        torch.testing.assert_close(scores[elimination.order], wanted, rtol=1e-8, atol=1e-8)


def descended(added: Tensor, penalty: float) -> list[float]:
    """The LASSO's coefficients by coordinate descent on the raw contributions."""
    model = Lasso(penalty / len(added), fit_intercept=False, tol=1e-14, max_iter=100_000)
    return model.fit(added.numpy(), added.sum(dim=1).numpy()).coef_.tolist()


@pytest.mark.parametrize("name", ["thinet", "lasso", "obs"])
def test_with_blocks_only_a_units_own_error_counts(name: str) -> None:
    x, consumer = random_consumer(6, 4)
    own = torch.arange(24).reshape(6, 4)
    blocks = consumer.moments.gram[:, own[:, :, None], own[:, None, :]]
    approximate = replace(consumer.moments, gram=None, held=None, blocks=blocks)
    readers = [(x, replace(consumer, moments=approximate))]
    wanted = contributions([(x, consumer)]).square().sum(dim=0)
    torch.testing.assert_close(scored(name, readers), wanted, rtol=1e-7, atol=0)


@pytest.mark.parametrize("name", ["thinet", "lasso", "obs"])
def test_silent_and_copied_units_are_no_obstacle(name: str) -> None:
    x, consumer = random_consumer(6, 4)
    first, second, third = consumer.columns[[0, 1, 2]]
    x[:, :, second] = x[:, :, first]
    x[:, :, third] = 0
    weights = consumer.moments.weights.clone()
    weights[:, second] = weights[:, first]
    scores = scored(name, [(x, Consumer(moments_of("layer", x, weights, 4), consumer.columns))])
    assert scores.isfinite().all()
    assert len(scores.unique()) == 6
    assert keep_order(scores)[-1] == 2
    assert float(scores[2]) < 1e-6 * float(scores.max())
    silent = scored(name, [(x, Consumer(moments_of("layer", x, weights * 0, 4), consumer.columns))])
    assert silent.tolist() == pytest.approx([0.0] * 6)
    assert len(silent.unique()) == 6


def test_consumers_are_layers_with_moments_that_read_the_group() -> None:
    moments = Moments("next", torch.zeros(1, 28, 2), None, None, torch.zeros(1, 3, 9, 9), torch.ones(1, 2), 9)
    context = ScoringContext({}, Statistics({"next": moments, "own": moments}), 0)
    slots = np.array([[2], [0]])
    members = (
        Member("next.weight", 1, "input", slots),
        Member("next.bias", 0, "input", slots),
        Member("own.weight", 0, "output", slots),
        Member("unknown.weight", 1, "input", slots),
    )
    (consumer,) = context.consumers(ChannelGroup("g", 2, 1, 1, members))
    assert consumer.moments is moments
    assert consumer.columns.tolist() == [[*range(18, 27)], [*range(9)]]
    with pytest.raises(NotApplicable, match="'h' has no layer with moments that reads it"):
        context.consumers(ChannelGroup("h", 2, 1, 1, members[1:]))


def learning_context(measured: int, seed: int = 0) -> tuple[ScoringContext, dict[str, Tensor]]:
    """Three groups with a telling criterion, a misleading one, and one that is missing in a group."""
    generator = torch.Generator().manual_seed(seed)
    groups = tuple(group(name, width) for name, width in (("a", 20), ("b", 40), ("c", 30)))
    truth = {g.name: torch.rand(g.width, generator=generator, dtype=torch.float64).exp() - 1 for g in groups}
    noise = {g.name: torch.rand(g.width, generator=generator, dtype=torch.float64) for g in groups}
    scores = {"told": {n: t**2 for n, t in truth.items()}, "noise": noise, "partly": {"a": truth["a"]}}
    removals = {
        g.name: torch.stack([units.double(), truth[g.name][units]], dim=1)
        for g in groups
        for units in [torch.randperm(g.width, generator=generator)[:measured]]
    }
    return ScoringContext({}, Statistics(removals=removals), 0, scores, groups), truth


def test_learned_finds_out_which_criterion_tells_the_truth() -> None:
    context, truth = learning_context(measured=12)
    for units in context.groups:
        predicted = CRITERIA["learned"](context, units)
        ranks = torch.stack([v.argsort().argsort().double() for v in (predicted, truth[units.name])])
        assert torch.corrcoef(ranks)[0, 1] > 0.95


def test_learned_reads_neither_chance_nor_itself() -> None:
    context, _ = learning_context(measured=6)
    added = {name: {"a": torch.rand(20, dtype=torch.float64)} for name in ("random", "learned")}
    more = replace(context, scores={**context.scores, **added})
    units = context.groups[0]
    assert torch.equal(CRITERIA["learned"](context, units), CRITERIA["learned"](more, units))


def test_learned_needs_scores_and_removals() -> None:
    context, _ = learning_context(measured=2)
    units = context.groups[0]
    with pytest.raises(NotApplicable, match="'a' has no measured removals to learn from: 6 of at least 8"):
        CRITERIA["learned"](context, units)
    context, _ = learning_context(measured=3)
    with pytest.raises(NotApplicable, match="'a' has no scores to learn from"):
        CRITERIA["learned"](replace(context, scores={"random": {"a": torch.rand(20)}}), units)
    assert CRITERIA["learned"](context, units).shape == (20,)
