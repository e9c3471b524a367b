from __future__ import annotations

import hashlib
import subprocess
import sys
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import PLAIN, group, same_state, slow_statistics, state, toy_model, toy_task

from evaluators.calibration import calibration_batches
from evaluators.criteria import (
    CRITERIA,
    NORMALISATIONS,
    NotApplicable,
    ScoringContext,
    keep_order,
    kept_units,
    score,
)
from evaluators.criteria.ranking import removal_scores
from evaluators.statistics.probes import curvature, removals
from evaluators.statistics.records import Statistics
from spaces import trace
from spaces.groups import ChannelGroup, Member

CONV1 = group(
    "conv1",
    6,
    output=[("conv1.weight", 0)],
    bias=[("conv1.bias", 0), ("bn1.bias", 0)],
    scale=[("bn1.weight", 0)],
    input=[("conv2.weight", 1)],
)
CONV2 = group(
    "conv2",
    4,
    output=[("conv2.weight", 0)],
    bias=[("bn2.bias", 0)],
    scale=[("bn2.weight", 0)],
    input=[("head.weight", 1)],
)
GROUPS = (CONV1, CONV2)


def context_of(model: nn.Module, seed: int = 0) -> ScoringContext:
    """All that any criterion reads, the scores of all others included."""
    task = toy_task(model=model.eval())
    batches = list(calibration_batches(task, PLAIN))
    space = trace(task.model, task.example_inputs)
    statistics = replace(
        slow_statistics(model, batches, GROUPS),
        curvature=curvature(task, space, batches[:1], PLAIN, seed),
        removals=removals(task, space, None, batches[:2], PLAIN, seed),
    )
    context = ScoringContext(model.state_dict(), statistics, seed, groups=GROUPS)
    others = {
        name: {g.name: criterion(context, g) for g in GROUPS if name != "hrank" or g is CONV1}
        for name, criterion in CRITERIA.items()
        if name != "learned"
    }
    return replace(context, scores=others)


@cache
def toy_context(repetition: int = 0) -> ScoringContext:
    assert repetition in (0, 1)
    return context_of(toy_model())


@cache
def context_with_a_dead_unit() -> ScoringContext:
    """Unit 4 computes nothing and nothing reads it."""
    model = toy_model()
    with torch.no_grad():
        for tensor in (model.conv1.weight, model.conv1.bias, model.bn1.weight, model.bn1.bias):
            tensor[4] = 0
        model.conv2.weight[:, 4] = 0
    return context_of(model)


def hand_context(**tensors: list[object]) -> ScoringContext:
    values = {
        name.replace("__", "."): torch.tensor(value, dtype=torch.float32) for name, value in tensors.items()
    }
    return ScoringContext(values, Statistics(), 0)


@pytest.mark.parametrize("name", CRITERIA)
class TestEveryCriterion:
    def test_scores_are_finite_float64_one_per_unit(self, name: str) -> None:
        scores = CRITERIA[name](toy_context(), CONV1)
        assert scores.shape == (6,)
        assert scores.dtype == torch.float64
        assert scores.isfinite().all()
        assert len(scores.unique()) == 6

    def test_equal_seeds_give_equal_scores(self, name: str) -> None:
        assert torch.equal(CRITERIA[name](toy_context(0), CONV1), CRITERIA[name](toy_context(1), CONV1))

    def test_the_model_and_the_statistics_do_not_change(self, name: str) -> None:
        model = toy_model().train()
        model.conv1.weight.requires_grad_(False)
        before, context = state(model), replace(toy_context(), parameters=model.state_dict())
        tensors = [*context.statistics.gradients.values(), *context.statistics.curvature.values()]
        tensors += [m.gram for m in context.statistics.moments.values()]
        tensors += [s for scores in context.scores.values() for s in scores.values()]
        copies = [tensor.clone() for tensor in tensors]
        CRITERIA[name](context, CONV1)
        assert same_state(before, state(model))
        assert all(module.training for module in model.modules())
        assert not model.conv1.weight.requires_grad
        assert all(parameter.grad is None for parameter in model.parameters())
        assert all(torch.equal(one, other) for one, other in zip(tensors, copies, strict=True))


def test_no_two_criteria_order_the_units_of_all_groups_alike() -> None:
    contexts = [toy_context(), context_of(toy_model(1))]
    orders = {
        name: [keep_order(criterion(c, CONV1)).tolist() for c in contexts]
        for name, criterion in CRITERIA.items()
    }
    for name, found in orders.items():
        assert [other for other in orders if orders[other] == found] == [name]


#: Distances to other filters do not see it, and the rest guesses.
BLIND = {"fpgm", "random", "learned"}


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - BLIND))
def test_a_dead_unit_goes_first(name: str) -> None:
    scores = CRITERIA[name](context_with_a_dead_unit(), CONV1)
    assert scores.argmin() == 4
    assert scores[4] == 0


def test_l1_sums_absolute_weights_over_all_output_members_without_biases() -> None:
    context = hand_context(a__weight=[[1, -2], [3, 0]], b__weight=[[-5], [0.5]], a__bias=[100, 200])
    residual = group("a", 2, output=[("a.weight", 0), ("b.weight", 0)], bias=[("a.bias", 0)])
    assert CRITERIA["l1"](context, residual).tolist() == [8.0, 3.5]


def test_l2_is_one_root_over_all_output_members() -> None:
    context = hand_context(a__weight=[[1, -2], [3, 0]], b__weight=[[-2], [4]])
    assert CRITERIA["l2"](context, group("a", 2, output=[("a.weight", 0), ("b.weight", 0)])).tolist() == [
        3.0,
        5.0,
    ]


def test_bn_scale_is_the_mean_absolute_gain() -> None:
    context = hand_context(n__weight=[-2, 0.5], m__weight=[1, 1])
    assert CRITERIA["bn_scale"](
        context, group("a", 2, scale=[("n.weight", 0), ("m.weight", 0)])
    ).tolist() == [
        1.5,
        0.75,
    ]


def test_a_unit_of_several_slots_counts_all_of_them() -> None:
    context = hand_context(a__weight=[[1], [2], [3], [4]])
    conv_group = Member("a.weight", 0, "output", np.array([[0, 2], [1, 3]]))
    assert CRITERIA["l1"](context, ChannelGroup("a", 2, 1, 2, (conv_group,))).tolist() == [4.0, 6.0]


def test_slots_are_read_along_the_members_dimension() -> None:
    transposed = group("a", 2, output=[("a.weight", 1)])
    assert CRITERIA["l1"](hand_context(a__weight=[[1, 2], [3, 4], [5, 6]]), transposed).tolist() == [
        9.0,
        12.0,
    ]


def test_taylor_by_hand_is_the_squared_sum_of_weight_times_gradient() -> None:
    weight, gradient = torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[0.5, -1.0], [1.0, 0.0]])
    context = ScoringContext({"next.weight": weight}, Statistics(gradients={"next.weight": gradient}), 0)
    # unit 0: 1 * 0.5 + 3 * 1 = 3.5; unit 1: 2 * -1 + 4 * 0 = -2
    assert CRITERIA["taylor"](context, group("a", 2, input=[("next.weight", 1)])).tolist() == [12.25, 4.0]


def test_consumer_l2_is_one_root_over_all_input_members() -> None:
    context = hand_context(a__weight=[[2, 3], [1, 0]], b__weight=[[-2, 4]])
    readers = group("x", 2, input=[("a.weight", 1), ("b.weight", 1)])
    assert CRITERIA["consumer_l2"](context, readers).tolist() == [3.0, 5.0]


def test_fpgm_sums_the_distances_to_all_other_filters() -> None:
    context = hand_context(a__weight=[[0, 0], [3, 4], [0, 8]], b__weight=[[0], [0], [6]])
    # distances with both layers' slots: 0-1: 5, 0-2: 10, 1-2: sqrt(9 + 16 + 36) = sqrt(61)
    wanted = torch.tensor([15, 5 + 61**0.5, 10 + 61**0.5], dtype=torch.float64)
    found = CRITERIA["fpgm"](context, group("a", 3, output=[("a.weight", 0), ("b.weight", 0)]))
    torch.testing.assert_close(found, wanted)


def test_lamp_divides_each_square_by_all_that_are_no_smaller_in_its_layer() -> None:
    # squares 1 4 | 9 4 | 0 0, of which the group owns two rows; b: 4 | 16
    context = hand_context(a__weight=[[1, -2], [3, 2], [0, 0]], b__weight=[[2], [-4]])
    rows = Member("a.weight", 0, "output", np.array([[0], [1]]))
    other = Member("b.weight", 0, "output", np.array([[0], [1]]))
    wanted = [1 / 18 + 4 / 17 + 4 / 20, 9 / 9 + 4 / 17 + 16 / 16]
    found = CRITERIA["lamp"](context, ChannelGroup("a", 2, 1, 1, (rows, other)))
    torch.testing.assert_close(found, torch.tensor(wanted, dtype=torch.float64))
    silent = ChannelGroup("a", 2, 1, 1, (Member("a.weight", 0, "output", np.array([[2], [0]])),))
    torch.testing.assert_close(CRITERIA["lamp"](context, silent).tolist(), [0.0, 1 / 18 + 4 / 17])


def test_lamp_orders_units_unlike_l2() -> None:
    context = hand_context(a__weight=[[3, 3, 3, 3], [5, 0, 0, 0], [4, 3.5, 0, 0]])
    layer = group("a", 3, output=[("a.weight", 0)])
    assert keep_order(CRITERIA["l2"](context, layer)).tolist() == [0, 2, 1]
    assert keep_order(CRITERIA["lamp"](context, layer)).tolist() == [1, 2, 0]


def test_gradient_norm_and_taylor_on_weights_by_hand() -> None:
    weights, gradients = (
        {"a": [[1.0, 2.0], [3.0, 0.0]], "b": [[2.0], [-1.0]]},
        {
            "a": [[3.0, -1.0], [2.0, 5.0]],
            "b": [[0.5], [4.0]],
        },
    )
    context = ScoringContext(
        {f"{name}.weight": torch.tensor(value) for name, value in weights.items()},
        Statistics(gradients={f"{name}.weight": torch.tensor(value) for name, value in gradients.items()}),
        0,
    )
    both = group("a", 2, output=[("a.weight", 0), ("b.weight", 0)])
    torch.testing.assert_close(
        CRITERIA["gradient_norm"](context, both).square().tolist(), [9 + 1 + 0.25, 4 + 25 + 16.0]
    )
    assert CRITERIA["taylor_weights"](context, both).tolist() == [9 + 4 + 1.0, 36 + 0 + 16.0]


def test_random_depends_on_the_seed_and_the_groups_name_alone() -> None:
    parameters = toy_model().state_dict()

    def draw(seed: int, name: str) -> Tensor:
        return CRITERIA["random"](ScoringContext(parameters, Statistics(), seed), group(name, 6))

    assert not torch.equal(draw(0, "a"), draw(1, "a"))
    assert not torch.equal(draw(0, "a"), draw(0, "b"))
    expected = int.from_bytes(hashlib.sha256(b"0/a").digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(expected)
    assert torch.equal(draw(0, "a"), torch.rand(6, generator=generator, dtype=torch.float64))


NEEDS_SLOTS = {
    **dict.fromkeys(("l1", "l2", "fpgm", "lamp", "gradient_norm", "taylor_weights"), "output"),
    **dict.fromkeys(("consumer_l2", "taylor"), "input"),
    "bn_scale": "scale",
}


@pytest.mark.parametrize(("name", "needs"), NEEDS_SLOTS.items())
def test_a_group_without_the_slots_is_not_applicable(name: str, needs: str) -> None:
    with pytest.raises(NotApplicable, match=f"'a' has no {needs} slots"):
        CRITERIA[name](hand_context(), group("a", 2, bias=[("a.bias", 0)]))


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - NEEDS_SLOTS.keys() - {"random"}))
def test_a_group_without_statistics_is_not_applicable(name: str) -> None:
    with pytest.raises(NotApplicable, match="'conv1' has no "):
        CRITERIA[name](ScoringContext(toy_model().state_dict(), Statistics(), 0, groups=GROUPS), CONV1)


def test_hrank_does_not_apply_where_no_maps_are_read() -> None:
    with pytest.raises(NotApplicable, match="'conv2' has no feature maps"):
        CRITERIA["hrank"](toy_context(), CONV2)


def test_a_nan_score_is_an_error_that_names_group_and_unit() -> None:
    context = hand_context(a__weight=[[1.0], [float("nan")]])
    with pytest.raises(ValueError, match=r"ChannelGroup 'a': scores of units \[1\] are not finite"):
        score(CRITERIA["l1"], context, group("a", 2, output=[("a.weight", 0)]))


def test_kept_units_are_the_best_ascending_and_ties_go_to_the_lower_index() -> None:
    scores = torch.tensor([1.0, 3.0, 2.0, 3.0, 2.0], dtype=torch.float64)
    assert [kept_units(keep_order(scores), k).tolist() for k in (1, 3, 5)] == [
        [1],
        [1, 2, 3],
        [0, 1, 2, 3, 4],
    ]


def test_removal_scores_give_the_order_back_whatever_the_increases() -> None:
    order = torch.tensor([2, 0, 3, 1])
    for increases in ([0.0, 2.0, 1.0, 5.0], [0.0] * 4, [1.0] * 4, [3.0, -1.0, 0.0, 2.0]):
        scores = removal_scores(order, torch.tensor(increases))
        assert keep_order(scores).tolist() == [1, 3, 0, 2]
        rising = torch.tensor(increases, dtype=torch.float64).cummax(0).values
        torch.testing.assert_close(scores[order], rising, rtol=1e-11, atol=1e-300)


def test_normalised_scores() -> None:
    scores = torch.tensor([1.0, -3.0, 4.0, 0.0], dtype=torch.float64)
    assert NORMALISATIONS["none"](scores).tolist() == [1, -3, 4, 0]
    assert NORMALISATIONS["mean"](scores).tolist() == [0.5, -1.5, 2, 0]
    gaussian = NORMALISATIONS["gaussian"](scores)
    torch.testing.assert_close(gaussian, (scores - 0.5) / (25 / 4) ** 0.5)


@pytest.mark.parametrize("name", NORMALISATIONS)
def test_normalising_keeps_the_order_and_bears_equal_scores(name: str) -> None:
    for values in ([3.0, -7.0, 0.1, -6.0], [-1.0, -2.0, -3.0]):
        scores = torch.tensor(values, dtype=torch.float64)
        assert torch.equal(keep_order(NORMALISATIONS[name](scores)), keep_order(scores))
    for value in (0.0, 0.1):
        equal = NORMALISATIONS[name](torch.full((3,), value, dtype=torch.float64))
        assert equal.isfinite().all()
        assert len(equal.unique()) == 1


def test_random_is_the_same_in_another_process() -> None:
    script = (
        "from evaluators.criteria import CRITERIA, ScoringContext; from spaces.groups import ChannelGroup\n"
        "from evaluators.statistics.records import Statistics; import sys\n"
        "g = ChannelGroup('layer1.0', 3, 1, 1, ())\n"
        "sys.stdout.write(repr(CRITERIA['random'](ScoringContext({}, Statistics(), 5), g).tolist()))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = CRITERIA["random"](
        ScoringContext({}, Statistics(), 5), ChannelGroup("layer1.0", 3, 1, 1, ())
    ).tolist()
    assert other == repr(here)
