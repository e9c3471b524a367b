"""One layer's fit, also where a ReLU follows."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from evaluators.reconstruct import problem
from evaluators.reconstruct.problem import Problem
from evaluators.reconstruct.solve import best_solution


class TestThroughARectifier:
    def problem(self, *, rectified: bool, constant: bool = True, seed: int = 0) -> tuple[Problem, Tensor]:
        generator = torch.Generator().manual_seed(seed)

        def random(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator, dtype=torch.float64)

        x = random(2, 400, 9)
        wanted = x @ random(2, 9, 4) + random(2, 1, 4)
        gain = random(2, 1, 4) + 0.1
        offset = random(2, 400, 4)
        made = Problem(
            x=x[:, :, :5].contiguous(),
            wanted=wanted,
            gain=gain,
            offset=offset,
            importance=gain[:, 0].square(),
            rectified=rectified,
            constant=constant,
        )
        return made, torch.zeros(2, 5, 4, dtype=torch.float64)

    def objective(self, made: Problem, fit: tuple[Tensor, Tensor | None]) -> Tensor:
        """What a round lowers: below zero, distances count only where a positive value is wanted."""
        weights, constant = fit
        y = made.x @ weights + (0 if constant is None else constant[:, None])
        reached = made.gain * y + made.offset
        missed = torch.where(made.wanted > 0, reached - made.wanted, torch.relu(reached))
        return missed.square().mean(1)

    @pytest.mark.parametrize("constant", [True, False])
    @pytest.mark.parametrize("seed", range(3))
    def test_what_is_below_zero_need_not_be_met(
        self, monkeypatch: pytest.MonkeyPatch, constant: bool, seed: int
    ) -> None:
        monkeypatch.setattr(problem, "best_solution", partial(best_solution, ridges=(1e-9,)))
        errors = []
        for rounds in (0, 1, 2, 5, 50):
            monkeypatch.setattr(problem, "_ROUNDS", rounds)
            made, inherited = self.problem(rectified=True, constant=constant, seed=seed)
            errors.append(self.objective(made, made.solve(inherited)))
        plain, _ = self.problem(rectified=False, constant=constant, seed=seed)
        torch.testing.assert_close(errors[0], self.objective(plain, plain.solve(inherited)))
        # Fitted to all rows from the first round on: never worse from there.
        for earlier, later in pairwise(errors[1:]):
            assert (later <= earlier + 1e-9).all()
        assert errors[2].sum() < 0.97 * errors[0].sum()

    def test_a_target_that_can_be_met_is_met(self) -> None:
        made, inherited = self.problem(rectified=True)
        weights, constant = torch.ones(2, 5, 4, dtype=torch.float64), torch.ones(2, 4, dtype=torch.float64)
        reached = made.gain * (made.x @ weights + constant[:, None]) + made.offset
        found = replace(made, wanted=reached).solve(inherited)
        torch.testing.assert_close(found, (weights, constant), rtol=1e-3, atol=1e-3)

    def test_a_problem_that_is_not_finite_is_an_arithmetic_error(self) -> None:
        made, inherited = self.problem(rectified=True)
        for name in ("x", "wanted", "offset"):
            broken = getattr(made, name).clone()
            broken[0, 3, 0] = torch.nan
            with pytest.raises(ArithmeticError):
                replace(made, **{name: broken}).solve(inherited)

    def test_weights_that_noise_would_spoil_stay(self) -> None:
        generator = torch.Generator().manual_seed(0)
        x = torch.randn(1, 24, 15, generator=generator, dtype=torch.float64)
        inherited = torch.randn(1, 15, 1, generator=generator, dtype=torch.float64)
        noise = torch.randn(1, 24, 1, generator=generator, dtype=torch.float64)
        one = torch.ones(1, 1, 1, dtype=torch.float64)
        made = Problem(x, x @ inherited + noise, one, 0 * noise, one[0], rectified=False, constant=True)
        weights, constant = made.solve(inherited)
        assert torch.equal(weights, inherited)
        torch.testing.assert_close(constant, noise.mean(1))
        assert replace(made, constant=False).solve(inherited) is None
        assert not torch.equal(made.solve(0 * inherited)[0], 0 * inherited)
