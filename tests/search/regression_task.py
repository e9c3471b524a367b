"""A task with a metric of its own, which is negative: minus the squared error of a regression."""

from __future__ import annotations

import torch
from sklearn.datasets import load_diabetes
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from evaluators.task import Recipe, Task


class Regression(nn.Sequential):
    """Outputs have no dimension beside that of the samples, as those of many such networks."""

    def __init__(self) -> None:
        super().__init__(
            nn.Linear(10, 48), nn.ReLU(), nn.Linear(48, 48), nn.BatchNorm1d(48), nn.ReLU(), nn.Linear(48, 1)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x).squeeze(-1)


def task() -> Task:
    """Progress of diabetes from ten measurements, standardised."""
    data = load_diabetes()
    inputs = torch.tensor(data.data, dtype=torch.float32) * 20
    targets = torch.tensor(data.target, dtype=torch.float32)
    targets = (targets - targets.mean()) / targets.std()
    order = torch.randperm(len(inputs), generator=torch.Generator().manual_seed(0))
    parts = [TensorDataset(inputs[i], targets[i]) for i in (order[:280], order[280:360], order[360:])]
    train, holdout, test = (DataLoader(part, batch_size=40) for part in parts)
    torch.manual_seed(0)
    model = Regression()
    return Task(
        name="diabetes",
        model=model,
        example_inputs=torch.zeros(1, 10),
        train=train,
        holdout=holdout,
        test=test,
        pretrained=False,
        recipe=Recipe(epochs=6, finetune_epochs=2, lr=0.01, finetune_lr=0.003, batch_size=40),
        metric="neg_mse",
        score=lambda outputs, targets: -((outputs - targets) ** 2),
        loss=F.mse_loss,
        divisor=2,
    )
