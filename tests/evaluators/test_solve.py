from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from evaluators.reconstruct.solve import best_solution, ridge_solution, squared_error


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def problem(rows: int = 50, columns: int = 6, outputs: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two conv groups of correlated inputs on different scales, with a constant one, and noisy outputs."""
    mix = random(columns, columns, seed=seed + 1) + 2 * torch.eye(columns)
    x = random(2, rows, columns, seed=seed) @ mix * torch.logspace(-1, 1, columns, dtype=torch.float64) + 0.5
    x = torch.cat([x, torch.ones(2, rows, 1)], dim=2)
    y = x @ random(2, columns + 1, outputs, seed=seed + 2) + random(2, rows, outputs, seed=seed + 3)
    return x, y


def moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return x.mT @ x / x.shape[1], x.mT @ y / x.shape[1], y.square().mean(1)


def test_it_tends_to_least_squares_as_the_ridge_goes_to_zero() -> None:
    x, y = problem()
    wanted = torch.linalg.lstsq(x, y).solution
    gram, cross, _ = moments(x, y)
    for constant in (True, False):
        torch.testing.assert_close(ridge_solution(gram, cross, 0.0, constant=constant), wanted)
        errors = [
            float((ridge_solution(gram, cross, ridge, constant=constant) - wanted).norm())
            for ridge in (1e-2, 1e-4, 1e-6, 1e-8)
        ]
        assert errors == sorted(errors, reverse=True)
        assert errors[-1] < 1e-3 * errors[0]


def test_it_is_ridge_regression_on_the_raw_rows() -> None:
    x, y = problem()
    gram, cross, _ = moments(x, y)
    found = ridge_solution(gram, cross, 0.3, constant=False)
    for b in range(2):
        strength = 0.3 * gram[b].diagonal().mean()
        rows = torch.cat([x[b], (strength * x.shape[1]).sqrt() * torch.eye(7)])
        targets = torch.cat([y[b], torch.zeros(7, 3, dtype=torch.float64)])
        torch.testing.assert_close(found[b], torch.linalg.lstsq(rows, targets).solution)


def test_the_constant_column_carries_no_ridge() -> None:
    x, y = problem()
    gram, cross, _ = moments(x, y + 100)
    far = ridge_solution(gram, cross, 1e9, constant=True)
    torch.testing.assert_close(far[:, -1], (y + 100).mean(1), rtol=1e-4, atol=0)
    assert far[:, :-1].abs().max() < 1e-3
    assert ridge_solution(gram, cross, 1e9, constant=False)[:, -1].abs().max() < 1e-3
    # The columns' own mean diagonal sets the ridge, whatever the constant is.
    near, _, _ = moments(x[..., :-1] - x[..., :-1].mean(1, keepdim=True), y)
    assert near.shape[1] == 6


def test_columns_that_are_always_zero_get_zero_and_change_nothing() -> None:
    x, y = problem()
    dead = x.clone()
    dead[..., 2] = 0
    gram, cross, _ = moments(dead, y)
    found = ridge_solution(gram, cross, 0.0, constant=True)
    assert torch.equal(found[:, 2], torch.zeros(2, 3, dtype=torch.float64))
    alive = [0, 1, 3, 4, 5, 6]
    torch.testing.assert_close(found[:, alive], torch.linalg.lstsq(x[..., alive], y).solution)
    nothing = torch.zeros(1, 4, 4, dtype=torch.float64)
    assert torch.equal(ridge_solution(nothing, nothing, 0.1, constant=False), nothing)


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_singular_or_not_finite_has_no_solution(value: float) -> None:
    x, y = problem()
    gram, cross, _ = moments(torch.cat([x[..., :1], x], dim=2), y)
    assert ridge_solution(gram, cross, 0.0, constant=True) is None
    assert ridge_solution(gram, cross, 1e-6, constant=True) is not None
    good, cross, _ = moments(x, y)
    for broken in (good.clone(), cross.clone()):
        broken[1, 0, 0] = value
        matrices = (broken, cross) if broken.shape == good.shape else (good, broken)
        assert ridge_solution(*matrices, 1e-2, constant=True) is None


def test_copies_share_their_weight() -> None:
    x, y = problem(columns=1)
    twice = torch.cat([x[..., :1], x], dim=2)
    gram, cross, _ = moments(twice, y)
    found = ridge_solution(gram, cross, 1e-8, constant=True)
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=1e-5, atol=0)
    torch.testing.assert_close(found[:, 0] * 2, torch.linalg.lstsq(x, y).solution[:, 0], rtol=1e-5, atol=0)


def test_the_error_is_that_of_the_raw_rows() -> None:
    x, y = problem()
    weights = random(2, 7, 3, seed=9)
    torch.testing.assert_close(squared_error(*moments(x, y), weights), (y - x @ weights).square().mean(1))
    exact = torch.linalg.lstsq(x, x @ weights).solution
    assert (squared_error(*moments(x, x @ weights), exact) >= 0).all()


RIDGES = (1e-3, 1e-2, 1e-1, 1.0, 10.0)


def held_errors(fit: tuple[Tensor, Tensor], held: tuple[Tensor, Tensor]) -> list[Tensor]:
    """For every ridge, ``(conv groups, outputs)`` errors on the raw held-out rows."""
    gram, cross, _ = moments(*fit)
    solutions = [ridge_solution(gram, cross, ridge, constant=True) for ridge in RIDGES]
    return [(held[1] - held[0] @ weights).square().mean(1) for weights in solutions]


@pytest.mark.parametrize("seed", range(6))
def test_the_ridge_that_does_best_on_held_out_rows_is_taken(seed: int) -> None:
    fit, held = problem(rows=12, seed=10 * seed), problem(rows=200, seed=10 * seed)
    y = held[0] @ torch.linalg.lstsq(*problem(rows=500, seed=10 * seed)).solution
    held = held[0], y
    importance = random(2, 3, seed=seed).abs()
    errors = held_errors(fit, held)
    totals = [float((error * importance).sum()) for error in errors]
    # From the mildest on, for as long as a stronger one does better.
    wanted = next((i for i, (a, b) in enumerate(pairwise(totals)) if b >= a), 4)
    found = best_solution(moments(*fit)[:2], moments(*held), importance, constant=True, ridges=RIDGES)
    assert found.ridge == RIDGES[wanted]
    torch.testing.assert_close(found.errors, errors[wanted])
    torch.testing.assert_close(
        found.weights, ridge_solution(*moments(*fit)[:2], RIDGES[wanted], constant=True)
    )


def test_both_clean_and_noisy_data_get_the_ridge_that_they_need() -> None:
    def chosen(noise: float) -> float:
        x = random(1, 40, 30)
        y, held = x @ random(1, 30, 1, seed=1), random(1, 400, 30, seed=2)
        fit = moments(x, y + noise * random(1, 40, 1, seed=3))
        exact = moments(held, held @ random(1, 30, 1, seed=1))
        one = torch.ones(1, 1, dtype=torch.float64)
        return best_solution(fit[:2], exact, one, constant=False, ridges=RIDGES).ridge

    assert chosen(0.0) == RIDGES[0]
    assert chosen(30.0) >= 1.0


def test_a_singular_ridge_is_passed_over_and_none_that_works_is_none() -> None:
    x, y = problem()
    x = torch.cat([x[..., :1], x], dim=2)
    parts, importance = moments(x, y), torch.ones(2, 3, dtype=torch.float64)
    settings = {"constant": True, "importance": importance}
    assert best_solution(parts[:2], parts, ridges=(0.0, 1e-4), **settings).ridge == 1e-4
    assert best_solution(parts[:2], parts, ridges=(0.0,), **settings) is None
    broken = (torch.full_like(parts[0], torch.nan), *parts[1:])
    assert best_solution(broken[:2], parts, **settings) is None
    assert best_solution(parts[:2], broken, **settings) is None
