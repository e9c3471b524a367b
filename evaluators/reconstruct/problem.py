"""One layer's fit to sampled values, also where a ReLU follows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from evaluators.reconstruct.solve import best_solution, ridge_solution, squared_error

if TYPE_CHECKING:
    from torch import Tensor

#: Every fourth position is held out: it chooses the ridge and decides whether the fit is an improvement.
_HELD_OUT = 4
#: Rounds that move the targets below zero. On ResNet-20 two rounds gain what twenty do.
_ROUNDS = 2


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    r"""Find weights such that ``gain * (x @ weights + constant) + offset`` comes near to ``wanted``.

    With a ReLU behind, a negative wanted value is reached by any negative one:

    .. math:: \min_W \sum_{z^* > 0} (z - z^*)^2 + \sum_{z^* \le 0} \max(z, 0)^2

    is majorised by the least-squares problem whose target is :math:`\min(z, 0)` in the second sum, and meets
    it where the last round ended: each round solves one with the same matrix and never does worse than the
    one before on what it was fitted to. (Where a positive value is wanted, a negative one counts with all
    its distance: behind the ReLU it would have no slope that leads out again.)

    Attributes:
        x: ``(conv groups, rows, columns)`` unfolded inputs, without a constant.
        wanted: ``(conv groups, rows, outputs)``.
        gain: ``(conv groups, 1, outputs)``, not zero.
        offset: ``(conv groups, rows, outputs)``.
        importance: ``(conv groups, outputs)`` float64 weights of squared errors in ``x @ weights``; zero for
            outputs that do not count.
        rectified: Whether a ReLU follows.
        constant: Whether there is a constant to choose.

    References:
        Zhang et al., Accelerating Very Deep Convolutional Networks for Classification and Detection, TPAMI
        2016, for fits through a ReLU on the changed network's own inputs.
    """

    x: Tensor
    wanted: Tensor
    gain: Tensor
    offset: Tensor
    importance: Tensor
    rectified: bool
    constant: bool

    def solve(self, inherited: Tensor) -> tuple[Tensor, Tensor | None] | None:
        """The weights, and the constant where there is one.

        Where ``inherited`` does better on held-out positions with the constant that suits it, it stays and
        only the constant is new; ``None`` where there is none either.

        Args:
            inherited: ``(conv groups, columns, outputs)`` weights that the layer has.

        Returns:
            ``(conv groups, columns, outputs)`` and ``(conv groups, outputs)``.

        Raises:
            ArithmeticError: If the problem is singular or not finite.
        """
        # Centred, the constant falls out of the problem, and float32 products keep their digits.
        x_mean = self.x.mean(1, keepdim=True) if self.constant else torch.zeros_like(self.x[:, :1])
        x = self.x - x_mean
        y = (self.wanted - self.offset) / self.gain
        y_mean = self._mean(y)
        held = torch.arange(x.shape[1], device=x.device) % _HELD_OUT == _HELD_OUT - 1
        fit_gram, fit_cross, _ = _moments(x[:, ~held], (y - y_mean)[:, ~held])
        parts = _moments(x[:, held], (y - y_mean)[:, held])
        best = best_solution((fit_gram, fit_cross), parts, self.importance, constant=False)
        if best is None:
            raise ArithmeticError("The problem is singular or not finite.")
        before = squared_error(*parts, inherited.double().cpu())
        is_better = float((best.errors * self.importance).sum()) < float((before * self.importance).sum())
        if not is_better and not self.constant:
            return None
        weights = best.weights.to(x) if is_better else inherited.to(x)
        if self.rectified and is_better:
            share = float(held.sum()) / len(held)
            gram = (1 - share) * fit_gram + share * parts[0]
            weights, y_mean = self._through_relu(x, gram, best.ridge, weights, y_mean)
        return weights, (y_mean - x_mean @ weights)[:, 0] if self.constant else None

    def _mean(self, y: Tensor) -> Tensor:
        return y.mean(1, keepdim=True) if self.constant else torch.zeros_like(y[:, :1])

    def _through_relu(
        self, x: Tensor, gram: Tensor, ridge: float, weights: Tensor, y_mean: Tensor
    ) -> tuple[Tensor, Tensor]:
        for _ in range(_ROUNDS):
            reached = self.gain * (x @ weights + y_mean) + self.offset
            target = torch.where(self.wanted > 0, self.wanted, reached.clamp_max(0))
            y = (target - self.offset) / self.gain
            mean = self._mean(y)
            cross = (x.transpose(1, 2) @ (y - mean)).double().cpu() / x.shape[1]
            better = ridge_solution(gram, cross, ridge, constant=False)
            if better is None:
                break
            weights, y_mean = better.to(x), mean
        return weights, y_mean


def _moments(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """``gram``, ``cross`` and ``energy``, means over rows, float64 on the CPU."""
    columns = x.shape[2]
    product = (x.transpose(1, 2) @ torch.cat([x, y], dim=-1)).double().cpu() / x.shape[1]
    return product[..., :columns], product[..., columns:], y.double().square().mean(1).cpu()
