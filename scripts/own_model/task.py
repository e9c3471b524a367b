"""What Espalier has to know: the network, what it is called with, the data, how it is trained."""

import torch
from network import Attention, Hybrid, RMSNorm
from torch import nn
from train import CHECKPOINT, loader

from evaluators.task import Recipe, Task


def task() -> Task:
    """Named on the command line as ``--task scripts/own_model/task.py:task``."""
    model = Hybrid()
    model.load_state_dict(torch.load(CHECKPOINT, weights_only=True))
    return Task(
        name="own_model",
        model=model,
        example_inputs=torch.rand(1, 1, 8, 8),
        train=loader("train"),
        holdout=loader("holdout"),
        test=loader("test"),
        recipe=Recipe(epochs=30, finetune_epochs=10, lr=3e-3, finetune_lr=1e-3, optimizer="adamw"),
        initialise=initialise,
        divisor=1,
    )


def initialise(model: nn.Module) -> None:
    """Draw the parameters that no ``reset_parameters`` draws; only training from scratch needs it."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            nn.init.ones_(module.scale)
        elif isinstance(module, Attention):
            nn.init.constant_(module.sharpness, 4.0)
        elif isinstance(module, Hybrid):
            nn.init.normal_(module.position, std=0.02)
