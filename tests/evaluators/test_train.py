from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from toys import PLAIN, same_state, state, toy_data, toy_model, toy_task

from evaluators.scoring import evaluate
from evaluators.task import Recipe, Task, TensorLoader
from evaluators.train import make_optimizer, rate, train


def run(task: Task, **changes: object) -> list[tuple[int, int]]:
    steps: list[tuple[int, int]] = []
    settings = {"epochs": 2, "lr": 0.1, "seed": 0, "precision": PLAIN} | changes
    train(task.model, task, on_step=lambda done, total: steps.append((done, total)), **settings)
    return steps


def test_training_learns() -> None:
    task = toy_task()
    before = evaluate(task.model, task, task.holdout, PLAIN)
    run(task, epochs=6)
    assert evaluate(task.model, task, task.holdout, PLAIN) > max(before + 0.2, 0.8)


@pytest.mark.parametrize(("epochs", "steps"), [(2, 12), (0.5, 3), (1.25, 8), (0.01, 1)])
def test_a_fraction_of_an_epoch_is_rounded_to_steps(epochs: float, steps: int) -> None:
    assert run(toy_task(), epochs=epochs) == [(done, steps) for done in range(1, steps + 1)]


def test_equal_seeds_give_bit_equal_weights_and_others_do_not() -> None:
    tasks = [toy_task() for _ in range(3)]
    for task, seed in zip(tasks, (5, 5, 6), strict=True):
        run(task, seed=seed)
    first, again, other = (state(task.model) for task in tasks)
    assert same_state(first, again)
    assert not same_state(first, other)


def test_the_callers_random_state_is_neither_used_nor_touched() -> None:
    tasks = [toy_task(), toy_task()]
    torch.manual_seed(1)
    run(tasks[0])
    torch.manual_seed(2)
    before = torch.get_rng_state()
    run(tasks[1])
    assert torch.equal(before, torch.get_rng_state())
    assert same_state(state(tasks[0].model), state(tasks[1].model))


def test_the_network_is_left_in_eval_mode() -> None:
    task = toy_task(model=toy_model().train())
    run(task)
    assert not any(module.training for module in task.model.modules())


def test_a_loss_that_is_not_finite_names_its_step() -> None:
    inputs, targets = toy_data(96, seed=1)
    inputs[40] = torch.inf
    task = toy_task(train=TensorLoader(inputs, targets, 16))
    with pytest.raises(FloatingPointError, match="in step 3 of 12"):
        run(task)


def test_a_training_split_without_batches_is_refused() -> None:
    with pytest.raises(ValueError, match="no batch to train on"):
        run(toy_task(train=TensorLoader(torch.zeros(0, 1, 6, 6), torch.zeros(0, dtype=torch.long), 16)))


def test_the_rate_rises_linearly_and_falls_as_a_cosine() -> None:
    rates = [rate(step, 100, 0.1) for step in range(100)]
    assert rates[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert rates[10] == 1
    assert rates[55] == pytest.approx(0.5)
    assert rates[99] == pytest.approx(0.5 * (1 + math.cos(math.pi * 89 / 90)))
    assert rate(0, 1, 0.0) == 1
    assert rate(0, 1, 1.0) > 0


def test_one_step_of_sgd_by_hand() -> None:
    model = nn.Linear(1, 1, bias=True)
    nn.init.constant_(model.weight, 2.0)
    nn.init.constant_(model.bias, 0.0)
    task = toy_task(
        model=model,
        train=TensorLoader(torch.ones(2, 1), torch.zeros(2), 2),
        recipe=Recipe(weight_decay=0.1, warmup=0.0),
        loss=lambda outputs, targets: (outputs[:, 0] - targets).mean(),
    )
    run(task, epochs=1, lr=0.5)
    # gradient 1 (+ 0.1 * 2 of decay on the weight alone); Nesterov's first step is (1 + 0.9) times as long
    assert model.weight.item() == pytest.approx(2 - 0.5 * 1.9 * 1.2)
    assert model.bias.item() == pytest.approx(-0.5 * 1.9)


@pytest.mark.parametrize(("name", "kind"), [("sgd", torch.optim.SGD), ("adamw", torch.optim.AdamW)])
def test_norms_biases_and_frozen_weights_are_not_decayed(name: str, kind: type) -> None:
    model = toy_model()
    model.head.weight.requires_grad_(False)
    optimizer = make_optimizer(model, Recipe(optimizer=name, weight_decay=0.3), lr=0.1)
    assert isinstance(optimizer, kind)
    decayed, plain = optimizer.param_groups
    assert decayed["weight_decay"] == 0.3
    assert plain["weight_decay"] == 0.0
    assert [id(p) for p in decayed["params"]] == [id(model.conv1.weight), id(model.conv2.weight)]
    assert len(plain["params"]) == 6


def test_an_unknown_optimizer_is_named() -> None:
    with pytest.raises(ValueError, match="`optimizer` must be sgd or adamw, got 'lion'"):
        make_optimizer(toy_model(), Recipe(optimizer="lion"), lr=0.1)


def test_a_score_is_the_mean_over_samples_not_over_batches() -> None:
    inputs, targets = toy_data(7, seed=9)
    task = toy_task(
        holdout=TensorLoader(inputs, targets, 4), score=lambda _, t: torch.arange(len(t), dtype=torch.float32)
    )
    task.model.train()
    # batches of 4 and 3: 0 + 1 + 2 + 3 and 0 + 1 + 2
    assert evaluate(task.model, task, task.holdout, PLAIN) == pytest.approx(9 / 7)
    assert task.model.training


def test_scoring_uses_running_statistics_and_leaves_them() -> None:
    task = toy_task(model=toy_model().train())
    before = state(task.model)
    one = evaluate(task.model, task, TensorLoader(*toy_data(60, seed=2), 60), PLAIN)
    many = evaluate(task.model, task, TensorLoader(*toy_data(60, seed=2), 1), PLAIN)
    assert one == many
    assert same_state(before, state(task.model))


def test_scores_that_are_not_finite_or_of_nothing_are_errors() -> None:
    nothing = TensorLoader(torch.zeros(0, 1, 6, 6), torch.zeros(0, dtype=torch.long), 16)
    with pytest.raises(ValueError, match="a split without samples"):
        evaluate(toy_model(), toy_task(), nothing, PLAIN)
    task = toy_task(score=lambda _, targets: torch.full((len(targets),), torch.nan))
    with pytest.raises(FloatingPointError, match="`top1` is nan"):
        evaluate(task.model, task, task.holdout, PLAIN)


@pytest.mark.parametrize("kind", [tuple, dict])
def test_tuples_and_dicts_of_inputs_are_unpacked(kind: type) -> None:
    class Sum(nn.Module):
        def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
            return left - 2 * right

    left, right = torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 1.0]])  # differences: 1, -2
    inputs = {"right": right, "left": left} if kind is dict else (left, right)
    task = toy_task(model=Sum())
    assert evaluate(task.model, task, [(inputs, torch.tensor([0]))], PLAIN) == 1.0
