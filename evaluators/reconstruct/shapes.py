"""What a cut leaves of a layer's rows and columns, and how fitted weights go back into it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from evaluators.statistics.sites import num_groups, num_taps

if TYPE_CHECKING:
    from spaces.surgery import KeptSlots


@dataclass(frozen=True, slots=True, eq=False)
class Remains:
    """Indices into a dense layer of what its cut form still has.

    Attributes:
        groups: Conv groups that stay.
        outputs: Outputs that stay, within each conv group that stays.
        columns: Columns of the unfolded inputs that stay, within each conv group; without the constant.
        per_group: Outputs of each conv group of the dense layer.
        is_narrower: Whether some columns went.
    """

    groups: Tensor
    outputs: Tensor
    columns: Tensor
    per_group: int
    is_narrower: bool

    @classmethod
    def of(cls, name: str, dense: nn.Module, slots: KeptSlots) -> Remains:
        """What ``slots`` leaves of the dense layer ``name``."""
        weight = dense.weight
        assert isinstance(weight, Tensor)
        cut = slots.get(f"{name}.weight", {})
        rows = torch.from_numpy(cut[0]) if 0 in cut else torch.arange(weight.shape[0])
        channels = torch.from_numpy(cut[1]) if 1 in cut else torch.arange(weight.shape[1])
        groups, taps = num_groups(dense), num_taps(dense)
        per_group = weight.shape[0] // groups
        # Either some conv groups go, or all of them lose the same outputs.
        stay, outputs = torch.unique(rows // per_group), torch.unique(rows % per_group)
        columns = (channels[:, None] * taps + torch.arange(taps)).flatten()
        return cls(stay, outputs, columns, per_group, is_narrower=1 in cut)

    @property
    def channels_out(self) -> Tensor:
        """Outputs that stay, counted over all conv groups of the dense layer."""
        return (self.groups[:, None] * self.per_group + self.outputs).flatten()


def inherited_weights(layer: nn.Module) -> Tensor:
    """``(conv groups, columns, outputs)`` weights of a layer as it is, without its bias."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    rows = weight.detach().reshape(num_groups(layer), -1, weight[0].numel())
    return rows.transpose(1, 2)


def has_constant(layer: nn.Module, norm: nn.Module | None) -> bool:
    """Whether a fit may shift the outputs: through a bias, or through the mean that the norm subtracts."""
    return layer.bias is not None or norm is not None


@torch.no_grad()
def write_back(
    layer: nn.Module,
    norm: nn.Module | None,
    weights: Tensor,
    constant: Tensor | None,
    rows: Tensor | None = None,
) -> None:
    """Put fitted weights into a layer, in place.

    Args:
        layer: Of the cut network.
        norm: The BatchNorm behind it.
        weights: ``(conv groups, columns, outputs)``.
        constant: ``(conv groups, outputs)``: replaces the bias; a layer without one has its norm subtract
            so much less.
        rows: ``(all outputs,)`` bool: which outputs are written; all when ``None``.
    """
    weight, bias = layer.weight, layer.bias
    assert isinstance(weight, Tensor)
    fitted = weights.transpose(1, 2).reshape(weight.shape).to(weight)
    chosen = torch.ones(len(weight), dtype=torch.bool, device=weight.device) if rows is None else rows
    weight[chosen] = fitted[chosen]
    if constant is None:
        return
    shift = constant.flatten().to(weight)
    if isinstance(bias, Tensor):
        bias[chosen] = shift[chosen]
    else:
        assert norm is not None
        mean = norm.running_mean
        assert isinstance(mean, Tensor)
        mean[chosen] -= shift[chosen]


def norm_of(model: nn.Module, name: str | None) -> nn.Module | None:
    """The module called ``name``."""
    return None if name is None else model.get_submodule(name)
