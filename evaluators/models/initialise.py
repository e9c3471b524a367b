"""Fresh weights of the built-in models, drawn in place from torch's global generator."""

from __future__ import annotations

from torch import nn


def kaiming(model: nn.Module) -> None:
    """Convolutions and linear layers by He et al. (ICCV 2015, fan in); biases and norms are left alone."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)


def image_classifier(model: nn.Module) -> None:
    """Any torchvision classifier: convolutions by fan out, and what no ``reset_parameters`` draws.

    Such parameters arrive as NaN: ConvNeXt's ``layer_scale`` starts at 1e-6 as in its paper, vectors at 0,
    all others (tokens, positions, biases of attention) are normal with standard deviation 0.02.
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    for name, parameter in model.named_parameters():
        if not parameter.isnan().any():
            continue
        if name.endswith("layer_scale"):
            nn.init.constant_(parameter, 1e-6)
        elif parameter.ndim == 1:
            nn.init.zeros_(parameter)
        else:
            nn.init.trunc_normal_(parameter, std=0.02)
