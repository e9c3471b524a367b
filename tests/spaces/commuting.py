"""What rules and traces promise: what is cut from the inputs is cut from the outputs, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evaluators.flops import count_macs
from spaces import Architecture, cut, trace
from spaces.follow import Follow, Whereabouts
from spaces.slots import FROZEN, Slots
from spaces.surgery import masked
from spaces.trial_cuts import random_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spaces.slots import TensorLabels


def free_dims(slots: Slots, tensors: Sequence[Tensor]) -> list[set[int]]:
    """For each tensor, the dimensions longer than one that may lose slots."""
    roots = slots.roots()
    return [
        {
            dim
            for dim, some in enumerate(slots.of(tensor))
            if some is not None and (roots[some] != FROZEN).any()
        }
        for tensor in tensors
    ]


def check_commutes(
    function: Callable[..., object], tensors: Sequence[Tensor], *, seed: int = 0
) -> list[set[int]]:
    """Run with labels, remove random slots that may go, and compare ``f(cut x)`` with ``cut f(masked x)``.

    Args:
        function: Made of operators with rules.
        tensors: Its inputs; each dimension of each has slots of its own.
        seed: Of the choice of slots.

    Returns:
        As :func:`free_dims`.
    """
    slots = Slots()
    for number, tensor in enumerate(tensors):
        slots.register(f"x{number}", tensor, is_parameter=True)
    torch.manual_seed(seed)
    with torch.no_grad(), Follow(slots, Whereabouts(nn.Module())):
        whole = function(*tensors)
    assert not slots.warnings
    labels_out = [slots.of(out) for out in pytree.tree_leaves(whole)]
    roots = slots.roots()
    goes = np.zeros(len(roots), dtype=bool)
    # Sizes that only the code made do not follow any cut, and means are not what is tested here.
    owned = np.concatenate([roots[some] for x in tensors for some in slots.of(x) if some is not None])
    may_go = np.setdiff1d(owned, [FROZEN, *slots.inexact_roots(roots)])
    rng = np.random.default_rng(seed)
    for root in rng.permutation(may_go):
        goes[roots == root] = rng.random() < 0.5
        labels = [some for x in tensors for some in slots.of(x)] + [s for out in labels_out for s in out]
        if any(some is not None and len(some) and goes[some].all() for some in labels):
            goes[roots == root] = False  # a dimension keeps at least one slot
    with torch.no_grad():
        torch.manual_seed(seed)
        masked = function(*(_masked(x, slots.of(x), goes) for x in tensors))
        torch.manual_seed(seed)
        small = function(*(_cut(x, slots.of(x), goes) for x in tensors))
    for out, labels, found in zip(
        pytree.tree_leaves(masked), labels_out, pytree.tree_leaves(small), strict=True
    ):
        torch.testing.assert_close(found, _cut(out, labels, goes), rtol=1e-10, atol=1e-12)
    return free_dims(slots, tensors)


def _cut(tensor: Tensor, labels: TensorLabels, goes: np.ndarray) -> Tensor:
    assert tensor.dim() == len(labels)
    for dim, some in enumerate(labels):
        if some is not None:
            assert len(some) == tensor.shape[dim]
            tensor = tensor.index_select(dim, torch.from_numpy(np.flatnonzero(~goes[some])))
    return tensor


def _masked(tensor: Tensor, labels: TensorLabels, goes: np.ndarray) -> Tensor:
    masked = tensor.clone()
    for dim, some in enumerate(labels):
        if some is not None:
            masked.index_fill_(dim, torch.from_numpy(np.flatnonzero(goes[some])), 0)
    return masked


def check_trace(
    model: nn.Module, example: Tensor, *, counted: bool = True
) -> dict[str, tuple[int, set[tuple[str, int]]]]:
    """Trace, and compare random cuts with masked networks and with their costs.

    Args:
        model: Its groups must be exact.
        example: Its input.
        counted: Whether fvcore knows all of its operators.

    Returns:
        For each group its width, and the tensors and dimensions of its members.
    """
    model = model.double().eval()
    space = trace(model, example)
    assert not space.warnings
    for seed in range(3):
        kept = random_kept(space.groups, torch.Generator().manual_seed(seed))
        small = cut(model, space, kept)
        torch.manual_seed(seed)
        expected = masked(model, space, kept)(example)
        torch.manual_seed(seed)
        torch.testing.assert_close(small(example), expected, rtol=1e-8, atol=1e-10)
        widths = Architecture.of({name: len(units) for name, units in kept.items()})
        assert space.params(widths) == sum(p.numel() for p in small.parameters())
        if counted:
            assert space.macs(widths) == count_macs(small, example)
    return {
        group.name: (group.width, {(member.tensor, member.dim) for member in group.members})
        for group in space.groups
    }
