"""Verified or frozen: a joint random cut must run and equal the masked network."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from spaces.surgery import cut, masked

if TYPE_CHECKING:
    from collections.abc import Callable

    from spaces.groups import ChannelGroup
    from spaces.space import Space

#: Allowed difference in float64, relative to the largest output.
_TOLERANCE = 1e-8


def wrong_groups(model: nn.Module, space: Space, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[str]:
    """Names of groups whose cut does not run, changes the outputs' structure, or differs from the mask.

    Weights are drawn at random, so that a zero-initialised layer can not hide a difference; the arithmetic
    is float64. Groups that are inexact by nature are compared in structure only.
    """
    check = _Check(model, space, args, kwargs)
    return [group.name for group in check.culprits(list(space.groups))]


def randomised(
    model: nn.Module, generator: torch.Generator, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> nn.Module:
    """A float64 copy with random weights and BatchNorm statistics.

    The statistics follow the activations that one run meets, so that every layer adds about as much to the
    output as any other: where activations grow or fade from layer to layer, rounding could pass for a wrong
    cut, or a wrong cut for rounding.
    """
    twin = copy.deepcopy(model).cpu().double().eval()
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 0
            scaled = noise * (2 / fan_in) ** 0.5 if fan_in else 0.2 * noise
            parameter.copy_(scaled if fan_in or name.endswith("bias") else 1 + scaled)
        hooks = [
            module.register_forward_pre_hook(_set_statistics(generator))
            for module in twin.modules()
            if isinstance(module, _NormBase) and module.running_mean is not None
        ]
        try:
            twin(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
    return twin


def _set_statistics(generator: torch.Generator) -> Callable[[_NormBase, tuple[Tensor, ...]], None]:
    def hook(module: _NormBase, inputs: tuple[Tensor, ...]) -> None:
        assert module.running_mean is not None
        assert module.running_var is not None
        mean, std = inputs[0].mean(), inputs[0].std().clamp_min(1e-6)
        draws = torch.randn(2, module.num_features, generator=generator, dtype=mean.dtype)
        module.running_mean.copy_(mean + 0.2 * std * draws[0])
        module.running_var.copy_((std * (1 + 0.2 * draws[1]).clamp_min(0.5)) ** 2)

    return hook


def random_kept(
    groups: list[ChannelGroup] | tuple[ChannelGroup, ...], generator: torch.Generator
) -> dict[str, Tensor]:
    """A random non-empty part of the units of each group."""
    kept = {}
    for group in groups:
        size = int(torch.randint(1, max(2, group.width), (), generator=generator))
        kept[group.name] = torch.randperm(group.width, generator=generator)[:size].sort().values
    return kept


class _Check:
    def __init__(self, model: nn.Module, space: Space, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._generator = torch.Generator().manual_seed(0)
        self._space = space
        self._args, self._kwargs = pytree.tree_map_only(
            Tensor, lambda x: x.cpu().double() if x.is_floating_point() else x.cpu(), (args, kwargs)
        )
        self._model = randomised(model, self._generator, self._args, self._kwargs)
        self._kept = random_kept(space.groups, self._generator)

    def culprits(self, groups: list[ChannelGroup]) -> list[ChannelGroup]:
        """Bisect: the groups that fail, alone or as the smallest set that fails together."""
        if not groups or self._passes(groups):
            return []
        if len(groups) == 1:
            return groups
        middle = len(groups) // 2
        return self.culprits(groups[:middle]) + self.culprits(groups[middle:]) or groups

    def _passes(self, groups: list[ChannelGroup]) -> bool:
        exact = {group.name: self._kept[group.name] for group in groups if group.exact}
        everything = {group.name: self._kept[group.name] for group in groups}
        try:
            reference = self._outputs(masked(self._model, self._space, exact))
            if not _alike(self._outputs(cut(self._model, self._space, exact)), reference):
                return False
            return len(exact) == len(everything) or _alike(
                self._outputs(cut(self._model, self._space, everything)), reference, values=False
            )
        except Exception:  # a foreign forward may raise anything; the group that makes it raise is frozen
            return False

    def _outputs(self, model: nn.Module) -> Any:
        torch.manual_seed(0)
        return model(*self._args, **self._kwargs)


def _alike(left: Any, right: Any, *, values: bool = True) -> bool:
    """Same structure and shapes and, when asked for, the same numbers."""
    mine, structure = pytree.tree_flatten(left)
    theirs, other = pytree.tree_flatten(right)
    if structure != other:
        return False
    for a, b in zip(mine, theirs, strict=True):
        if isinstance(a, Tensor) != isinstance(b, Tensor):
            return False
        if isinstance(a, Tensor):
            if a.shape != b.shape:
                return False
            if values and not _close(a, b):
                return False
    return True


def _close(a: Tensor, b: Tensor) -> bool:
    if not a.is_floating_point():
        return torch.equal(a, b)
    scale = b.abs().max() if b.numel() else 0
    return bool(((a - b).abs() <= _TOLERANCE * scale).all())
