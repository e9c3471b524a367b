"""Verified or frozen: a joint random cut must run and equal the masked network."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from spaces.surgery import cut, duplicate, masked

if TYPE_CHECKING:
    from collections.abc import Callable

    from spaces.groups import ChannelGroup
    from spaces.space import Space

logger = logging.getLogger(__name__)

#: Positional and keyword arguments of a call.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]

#: Allowed difference, relative to the largest output: in float64, and in the model's own arithmetic where it
#: does not run in float64 (a wrong cut differs by much more).
_TOLERANCES = {torch.float64: 1e-8, None: 1e-2}


def wrong_groups(model: nn.Module, space: Space, inputs: Arguments, *, trains: bool) -> list[str]:
    """Names of groups whose cut does not run, changes the outputs' structure, or differs from the mask.

    Weights are drawn at random, so that a zero-initialised layer can not hide a difference; the arithmetic
    is float64 where the model runs in it. Groups that are inexact by nature are compared in structure only.
    A cut to a single unit per group must run as well, in train mode too.

    Args:
        model: Left as it is.
        space: Its space.
        inputs: Positional and keyword arguments.
        trains: Whether the model runs in train mode.
    """
    for dtype in _TOLERANCES:
        try:
            check = _Check(model, space, inputs, dtype, trains=trains)
        except Exception as error:  # a foreign forward may raise anything
            logger.info("Not verified in %s: %s", dtype or "the model's own arithmetic", error)
        else:
            return [group.name for group in check.culprits(list(space.groups))]
    return [group.name for group in space.groups]


def randomised(
    model: nn.Module, generator: torch.Generator, inputs: Arguments, dtype: torch.dtype | None = torch.float64
) -> nn.Module:
    """A copy on the CPU with random weights and BatchNorm statistics.

    The statistics follow the activations that one run meets, so that every layer adds about as much to the
    output as any other: where activations grow or fade from layer to layer, rounding could pass for a wrong
    cut, or a wrong cut for rounding.

    Args:
        model: Left as it is.
        generator: Of the numbers.
        inputs: Positional and keyword arguments of that run.
        dtype: Of the copy; the model's own when ``None``.
    """
    twin = duplicate(model).cpu().eval()
    twin = twin if dtype is None else twin.to(dtype)
    args, kwargs = inputs
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if not parameter.is_floating_point():
                continue
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
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
    def __init__(
        self, model: nn.Module, space: Space, inputs: Arguments, dtype: torch.dtype | None, *, trains: bool
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self._space, self._trains, self._tolerance = space, trains, _TOLERANCES[dtype]
        self._inputs: Arguments = pytree.tree_map_only(Tensor, lambda x: _converted(x, dtype), inputs)
        self._model = randomised(model, generator, self._inputs, dtype)
        self._kept = random_kept(space.groups, generator)

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
        least = {group.name: torch.tensor([group.width - 1]) for group in groups}
        try:
            reference = self._outputs(masked(self._model, self._space, exact))
            if not self._alike(self._outputs(self._cut(exact)), reference, values=True):
                return False
            for kept in (everything, least):
                if not self._alike(self._outputs(self._cut(kept)), reference, values=False):
                    return False
            if self._trains:
                args, kwargs = twice(self._inputs)
                self._cut(least).train()(*args, **kwargs)
        except Exception:  # a foreign forward may raise anything; the group that makes it raise is frozen
            return False
        return True

    def _cut(self, kept: dict[str, Tensor]) -> nn.Module:
        return cut(self._model, self._space, kept)

    def _outputs(self, model: nn.Module) -> Any:
        torch.manual_seed(0)
        args, kwargs = self._inputs
        return model(*args, **kwargs)

    def _alike(self, left: Any, right: Any, *, values: bool) -> bool:
        """Same structure and shapes and, when asked for, the same numbers."""
        mine, structure = pytree.tree_flatten(left)
        theirs, other = pytree.tree_flatten(right)
        if structure != other:
            return False
        for a, b in zip(mine, theirs, strict=True):
            if isinstance(a, Tensor) != isinstance(b, Tensor):
                return False
            if isinstance(a, Tensor) and (a.shape != b.shape or (values and not self._close(a, b))):
                return False
        return True

    def _close(self, a: Tensor, b: Tensor) -> bool:
        if not a.is_floating_point():
            return torch.equal(a, b)
        scale = b.abs().max() if b.numel() else 0
        return bool(((a - b).abs() <= self._tolerance * scale).all())


def _converted(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x.cpu().to(dtype) if dtype is not None and x.is_floating_point() else x.cpu()


def twice(inputs: Arguments) -> Arguments:
    """A batch of two, which BatchNorm can train on."""
    doubled: Arguments = pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x]) if x.dim() else x, inputs)
    return doubled
