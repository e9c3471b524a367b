"""What one unit of a group is, in words: a channel, an attention head, a conv group."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import nn
from torch.nn.modules.conv import _ConvNd

if TYPE_CHECKING:
    from collections.abc import Iterator

    from spaces.groups import ChannelGroup, Member

#: What the model zoos call the number of attention heads.
_HEADS = ("num_heads", "num_attention_heads", "n_heads", "n_head", "nhead", "heads", "nheads")


def unit_words(model: nn.Module, group: ChannelGroup) -> str:
    """``channel``, ``head of 64``, ``channel of 12 heads``, ``conv group of 4``, ``unit of 8 channels``."""
    size = group.unit_channels
    conv_groups = _narrower(model, group)
    if conv_groups is not None:
        return f"channel of {conv_groups} conv groups"
    if size == 1:
        return "channel"
    # Other places have several slots per channel, or one per unit as a table of biases per head has.
    member = min(group.members, key=lambda one: abs(one.slots.shape[1] - size))
    together = bool((np.diff(member.slots, axis=1) == 1).all())
    heads = {
        value
        for module in _around(model, group)
        for name in _HEADS
        if isinstance(value := getattr(module, name, None), int)
    }
    if together and group.width in heads:
        return f"head of {size}"
    if not together and size in heads:
        return f"channel of {size} heads"
    if together and any(_is_conv_group(module, group) for module in _owners(model, group)):
        return f"conv group of {size}"
    if together and any(
        isinstance(module, nn.GroupNorm) and module.num_groups == group.width
        for module in _owners(model, group)
    ):
        return f"norm group of {size}"
    return f"unit of {size} channels"


def _narrower(model: nn.Module, group: ChannelGroup) -> int | None:
    """Conv groups of a layer each of which loses a channel with every unit."""
    for member in group.members:
        module = model.get_submodule(_owner(member))
        if not isinstance(module, _ConvNd) or module.groups == 1 or not member.tensor.endswith("weight"):
            continue
        of_unit = member.slots[0] // (module.weight.shape[0] // module.groups)
        one_of_each = len(of_unit) == module.groups and bool((np.diff(of_unit) == 1).all())
        if member.dim == 1 or (member.dim == 0 and one_of_each):
            return int(module.groups)
    return None


def _is_conv_group(module: nn.Module, group: ChannelGroup) -> bool:
    return isinstance(module, _ConvNd) and module.groups == group.width


def _owners(model: nn.Module, group: ChannelGroup) -> Iterator[nn.Module]:
    """The modules whose own tensors the group's units live in."""
    for member in group.members:
        yield model.get_submodule(_owner(member))


def _around(model: nn.Module, group: ChannelGroup) -> Iterator[nn.Module]:
    """Those modules and everything around them, up to the model."""
    for name in dict.fromkeys(_owner(member) for member in group.members):
        parts = name.split(".") if name else []
        for end in range(len(parts), -1, -1):
            yield model.get_submodule(".".join(parts[:end]))


def _owner(member: Member) -> str:
    return member.tensor.rpartition(".")[0]
