from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from toys import PLAIN, group, same_state, state, toy_model, toy_task

from evaluators.calibration import calibration_batches
from evaluators.criteria import (
    CRITERIA,
    NotApplicable,
    ScoringContext,
    gather_gradients,
    keep_order,
    kept_units,
    score,
)
from spaces.groups import ChannelGroup, Member

CONV1 = group(
    "conv1",
    6,
    output=[("conv1.weight", 0)],
    bias=[("conv1.bias", 0), ("bn1.bias", 0)],
    scale=[("bn1.weight", 0)],
    input=[("conv2.weight", 1)],
)


def context_of(model: nn.Module, seed: int = 0) -> ScoringContext:
    task = toy_task(model=model)
    return ScoringContext(
        model.state_dict(), gather_gradients(task, calibration_batches(task, PLAIN), PLAIN), seed
    )


def hand_context(**tensors: list[object]) -> ScoringContext:
    values = {
        name.replace("__", "."): torch.tensor(value, dtype=torch.float32) for name, value in tensors.items()
    }
    return ScoringContext(values, {}, 0)


@pytest.mark.parametrize("name", CRITERIA)
class TestEveryCriterion:
    def test_scores_are_finite_float64_one_per_unit(self, name: str) -> None:
        scores = CRITERIA[name](context_of(toy_model()), CONV1)
        assert scores.shape == (6,)
        assert scores.dtype == torch.float64
        assert scores.isfinite().all()
        assert len(scores.unique()) == 6

    def test_equal_seeds_give_equal_scores(self, name: str) -> None:
        assert torch.equal(
            CRITERIA[name](context_of(toy_model()), CONV1), CRITERIA[name](context_of(toy_model()), CONV1)
        )

    def test_the_model_does_not_change(self, name: str) -> None:
        model = toy_model().train()
        model.conv1.weight.requires_grad_(False)
        before = state(model)
        CRITERIA[name](context_of(model), CONV1)
        assert same_state(before, state(model))
        assert all(module.training for module in model.modules())
        assert not model.conv1.weight.requires_grad
        assert all(parameter.grad is None for parameter in model.parameters())


@pytest.mark.parametrize("name", sorted(CRITERIA.keys() - {"random"}))
def test_a_dead_unit_goes_first(name: str) -> None:
    model = toy_model()
    with torch.no_grad():
        for tensor in (model.conv1.weight, model.conv1.bias, model.bn1.weight, model.bn1.bias):
            tensor[4] = 0
        model.conv2.weight[:, 4] = 0
    scores = CRITERIA[name](context_of(model), CONV1)
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
    context = ScoringContext({"next.weight": weight}, {"next.weight": gradient}, 0)
    # unit 0: 1 * 0.5 + 3 * 1 = 3.5; unit 1: 2 * -1 + 4 * 0 = -2
    assert CRITERIA["taylor"](context, group("a", 2, input=[("next.weight", 1)])).tolist() == [12.25, 4.0]


def test_taylor_equals_the_squared_gradient_of_a_real_gate() -> None:
    model = toy_model()
    gate = torch.ones(6, 1, 1, requires_grad=True)
    task = toy_task(model=model)
    inputs = torch.cat([x for x, _ in task.calibration])
    targets = torch.cat([y for _, y in task.calibration])
    hook = model.conv2.register_forward_pre_hook(lambda _, args: (args[0] * gate,))
    torch.nn.functional.cross_entropy(model(inputs), targets).backward()
    hook.remove()
    scores = CRITERIA["taylor"](context_of(toy_model()), CONV1)
    torch.testing.assert_close(scores, gate.grad.flatten().double() ** 2, rtol=1e-4, atol=1e-12)


def test_random_depends_on_the_seed_and_the_groups_name_alone() -> None:
    parameters = toy_model().state_dict()

    def draw(seed: int, name: str) -> Tensor:
        return CRITERIA["random"](ScoringContext(parameters, {}, seed), group(name, 6))

    assert not torch.equal(draw(0, "a"), draw(1, "a"))
    assert not torch.equal(draw(0, "a"), draw(0, "b"))
    expected = int.from_bytes(hashlib.sha256(b"0/a").digest()[:8], "big") >> 1
    generator = torch.Generator().manual_seed(expected)
    assert torch.equal(draw(0, "a"), torch.rand(6, generator=generator, dtype=torch.float64))


@pytest.mark.parametrize(("name", "needs"), [("l1", "output"), ("bn_scale", "scale"), ("taylor", "input")])
def test_a_group_without_the_slots_is_not_applicable(name: str, needs: str) -> None:
    with pytest.raises(NotApplicable, match=f"'a' has no {needs} slots"):
        CRITERIA[name](hand_context(), group("a", 2, bias=[("a.bias", 0)]))


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


def test_gradients_weigh_every_sample_alike_whatever_the_batches() -> None:
    inputs, targets = (
        torch.cat([x for x, _ in toy_task().calibration]),
        torch.cat([y for _, y in toy_task().calibration]),
    )
    uneven = [(inputs[:50], targets[:50]), (inputs[50:], targets[50:])]
    halves, whole = (
        gather_gradients(toy_task(), batches, PLAIN) for batches in (uneven, [(inputs, targets)])
    )
    for name in whole:
        torch.testing.assert_close(halves[name], whole[name], rtol=1e-4, atol=1e-6)


def test_random_is_the_same_in_another_process() -> None:
    script = (
        "from evaluators.criteria import CRITERIA, ScoringContext; from spaces.groups import ChannelGroup\n"
        "g = ChannelGroup('layer1.0', 3, 1, 1, ())\n"
        "import sys; sys.stdout.write(repr(CRITERIA['random'](ScoringContext({}, {}, 5), g).tolist()))"
    )
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    here = CRITERIA["random"](ScoringContext({}, {}, 5), ChannelGroup("layer1.0", 3, 1, 1, ())).tolist()
    assert other == repr(here)
