"""The layers of a network in the order of execution, and which groups their outputs belong to."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from search.inspect.names import one_line

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.inspect.reads import Reads
    from spaces.groups import Member
    from spaces.space import Space


@dataclass(frozen=True, slots=True)
class Layer:
    """One weight that computes something from something else.

    Attributes:
        name: Of the tensor, without ``.weight``.
        kind: ``3x3``, ``dw 3x3``, ``linear``, ``embedding``, the class of another module, ``parameter``.
        width: Outputs.
        parts: ``(group name, outputs that belong to it)``; the other outputs stay.
        reads: Names of the groups whose units it reads.
        macs: Multiply-adds of the operators that read the weight, for a batch of one.
        params: Numbers in it.
        reason: Why outputs stay that are in no group; ``None`` where none stay or nothing is known.
    """

    name: str
    kind: str
    width: int
    parts: tuple[tuple[str, int], ...]
    reads: tuple[str, ...]
    macs: int
    params: int
    reason: str | None = None

    @property
    def stays(self) -> int:
        """Outputs that are in no group."""
        return self.width - sum(outputs for _, outputs in self.parts)


def find_layers(model: nn.Module, space: Space, reads: Reads) -> tuple[Layer, ...]:
    """Every weight that a group's units are computed by or read by, and what stays whole beside them."""
    members = _members(space)
    reasons = {one.name: one.reason for one in space.frozen}
    layers = []
    parameters = dict(model.named_parameters())
    last = len(reads.order)
    for name in sorted(parameters, key=lambda name: reads.order.get(name, last)):
        tensor, short = parameters[name], name.removesuffix(".weight")
        owner = model.get_submodule(name.rpartition(".")[0])
        made = [(group, one) for group, one in members.get(name, []) if one.role == "output"]
        # What is added or multiplied, such as a position embedding, is there for each unit as well.
        made = made or [(group, one) for group, one in members.get(name, []) if one.role != "input"]
        read = [group for group, one in members.get(name, []) if one.role == "input"]
        if not (short in reasons or _is_matrix(tensor)):
            continue
        layers.append(
            Layer(
                name=short,
                kind=_kind(owner, name),
                width=_width(owner, name, tensor, made),
                parts=tuple((group, member.slots.size) for group, member in made),
                reads=tuple(read),
                macs=reads.macs.get(name, 0),
                params=tensor.numel(),
                reason=reasons.get(short),
            )
        )
    return tuple(layers)


def _members(space: Space) -> Mapping[str, list[tuple[str, Member]]]:
    """Tensor name to the groups and members that live there."""
    found: dict[str, list[tuple[str, Member]]] = {}
    for group in space.groups:
        for member in group.members:
            found.setdefault(member.tensor, []).append((group.name, member))
    return found


def _is_matrix(tensor: Tensor) -> bool:
    """Whether it relates inputs to outputs; a scale of shape ``(n, 1, 1)`` does not."""
    return sum(size > 1 for size in tensor.shape) > 1


def _width(owner: nn.Module, name: str, tensor: Tensor, made: list[tuple[str, Member]]) -> int:
    """Outputs: those of the dimension in which groups make them, else by the kind of module."""
    if made:
        return tensor.shape[made[0][1].dim]
    if isinstance(owner, _ConvTransposeNd):
        return tensor.shape[1] * owner.groups
    computes = "weight" in name.rpartition(".")[2] and not isinstance(owner, nn.Embedding)
    return tensor.shape[0 if computes else -1] if tensor.dim() else 1


def _kind(owner: nn.Module, name: str) -> str:
    """Kernel, or what the module is called where the tensor is its weight."""
    if isinstance(owner, _ConvNd):
        kernel = "x".join(map(str, owner.kernel_size))
        if owner.groups == 1:
            return kernel
        return f"dw {kernel}" if owner.groups == owner.in_channels else f"{kernel} / {owner.groups}"
    if isinstance(owner, nn.Linear):
        return "linear"
    if isinstance(owner, nn.Embedding):
        return "embedding"
    return one_line(type(owner).__name__, 13) if "weight" in name.rpartition(".")[2] else "parameter"
