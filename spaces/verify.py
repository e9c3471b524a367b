"""Verified or frozen: a joint random cut must run and equal the network that it stands for."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from spaces.blame import Failure, culprits, first_line
from spaces.double import full_precision
from spaces.duplicate import duplicate
from spaces.neutral import seed
from spaces.reference import expected
from spaces.structure import flatten
from spaces.surgery import cut
from spaces.trial_cuts import Cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from spaces.follow import Arguments
    from spaces.groups import ChannelGroup
    from spaces.space import Space

logger = logging.getLogger(__name__)

#: Allowed difference, relative to the largest output: in float64, and in the model's own arithmetic where it
#: does not run in float64 (a wrong cut differs by much more).
_TOLERANCES = {torch.float64: 1e-8, None: 1e-2}

#: Random numbers drawn once and repeated over larger tensors, which drawing would make slow.
_POOL = 1_000_003


def wrong_values(model: nn.Module, space: Space, inputs: Arguments, *, trains: bool) -> dict[str, Failure]:
    """Groups whose cut does not run, changes the outputs' structure or has other values, and what happened.

    Weights are drawn at random, so that a zero-initialised layer can not hide a difference; the arithmetic
    is float64 where the model runs in it. A cut to a single unit per group must run as well, in train mode
    too.

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
            failure = Failure(f"not verified: {first_line(error)}")
        else:
            return culprits(space.groups, check.failure)
    return {group.name: failure for group in space.groups}


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
    # Numbers that are drawn anyway need no copy before.
    drawn: dict[int, Tensor] = {
        id(parameter): nn.Parameter(
            torch.empty(parameter.shape, dtype=dtype or parameter.dtype), parameter.requires_grad
        )
        for parameter in model.parameters()
        if parameter.is_floating_point()
    }
    twin = duplicate(model, drawn).cpu().eval()
    twin = twin if dtype is None else twin.to(dtype)
    args, kwargs = inputs
    pool = torch.randn(_POOL, generator=generator, dtype=torch.float64)
    with torch.no_grad():
        for name, parameter in twin.named_parameters():
            if not parameter.is_floating_point():
                continue
            _draw(parameter.view(-1), pool, generator)
            fan_in = parameter[0].numel() if parameter.dim() > 1 else 0
            parameter.mul_((2 / fan_in) ** 0.5 if fan_in else 0.2)
            if not fan_in and not name.endswith("bias"):
                parameter.add_(1)
        hooks = [
            module.register_forward_pre_hook(_set_statistics(generator))
            for module in twin.modules()
            if isinstance(module, _NormBase) and module.running_mean is not None
        ]
        try:
            with full_precision(twin):
                twin(*args, **kwargs)
        finally:
            for hook in hooks:
                hook.remove()
    return twin


def _draw(target: Tensor, pool: Tensor, generator: torch.Generator) -> None:
    """Fill ``target`` with numbers of the pool from a random place on, over and over."""
    place, filled = int(torch.randint(_POOL, (), generator=generator)), 0
    while filled < len(target):
        some = pool[place : place + len(target) - filled]
        target[filled : filled + len(some)].copy_(some)
        place, filled = 0, filled + len(some)


def _set_statistics(generator: torch.Generator) -> Callable[[_NormBase, tuple[Tensor, ...]], None]:
    def hook(module: _NormBase, inputs: tuple[Tensor, ...]) -> None:
        assert module.running_mean is not None
        assert module.running_var is not None
        mean, std = inputs[0].mean(), inputs[0].std().clamp_min(1e-6)
        draws = torch.randn(2, module.num_features, generator=generator, dtype=mean.dtype)
        module.running_mean.copy_(mean + 0.2 * std * draws[0])
        module.running_var.copy_((std * (1 + 0.2 * draws[1]).clamp_min(0.5)) ** 2)

    return hook


class _Check:
    def __init__(
        self, model: nn.Module, space: Space, inputs: Arguments, dtype: torch.dtype | None, *, trains: bool
    ) -> None:
        generator = torch.Generator().manual_seed(0)
        self._space, self._trains, self._tolerance = space, trains, _TOLERANCES[dtype]
        self._inputs: Arguments = pytree.tree_map_only(Tensor, lambda x: _converted(x, dtype), inputs)
        try:
            several = _with_another(self._inputs, generator)
            self._model = randomised(model, generator, several, dtype)
            self._inputs = several
        except Exception:  # a foreign forward may take no batch, or only this one
            self._model = randomised(model, generator, self._inputs, dtype)
        self._cuts = Cuts.of(space.groups, generator)
        self._scratch: dict[str, Tensor] = {}

    def failure(self, groups: Sequence[ChannelGroup], number: int | None = None) -> Failure | None:
        """See :data:`spaces.blame.Check`."""
        cuts = self._cuts.only(groups)
        try:
            # Where the spread cuts leave some groups whole, another cuts all.
            several = {0: cuts.random} if len(cuts.spread) > 1 else {}
            several |= {1: cuts.spread[0], 2: cuts.least}
            for place, kept in several.items():
                if number not in (None, place):
                    continue
                seed(0)
                reference = expected(self._model, self._space, kept, self._inputs, scratch=self._scratch)
                difference = self._difference(self._outputs(kept), reference)
                if difference is not None:
                    return Failure(difference, number=place)
            if self._trains and number is None:
                args, kwargs = twice(self._inputs)
                small = cut(self._model, self._space, cuts.least).train()
                with full_precision(small):
                    small(*args, **kwargs)
        except Exception as error:  # a foreign forward may raise anything; what makes it raise is frozen
            return Failure(f"a cut does not run: {first_line(error)}")
        return None

    def _outputs(self, kept: dict[str, Tensor]) -> Any:
        seed(0)
        args, kwargs = self._inputs
        small = cut(self._model, self._space, kept)
        with full_precision(small):
            return small(*args, **kwargs)

    def _difference(self, left: Any, right: Any) -> str | None:
        """Same structure, shapes and numbers; ``None`` where all is equal."""
        mine, structure = flatten(left)
        theirs, other = flatten(right)
        if structure != other or [x.shape for x in mine] != [x.shape for x in theirs]:
            return "a cut changes the structure of the outputs"
        if any(b.isnan().any() for b in theirs):
            return "not verified: NaN with random weights"
        if not all(self._close(a, b) for a, b in zip(mine, theirs, strict=True)):
            return "a cut differs from the masked network"
        return None

    def _close(self, a: Tensor, b: Tensor) -> bool:
        if not a.is_floating_point():
            return torch.equal(a, b)
        finite = b.isfinite()
        if not torch.equal(a.isfinite(), finite):
            return False
        scale = b[finite].abs().max() if finite.any() else 0
        return bool(((a - b)[finite].abs() <= self._tolerance * scale).all())


def _with_another(inputs: Arguments, generator: torch.Generator) -> Arguments:
    """A second, random sample beside the first: of few units all may be silent for one."""

    def doubled(x: Tensor) -> Tensor:
        if not x.is_floating_point():
            return torch.cat([x, x.flip(-1)])
        noise = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.dtype)
        return torch.cat([x, x + noise])

    several: Arguments = pytree.tree_map_only(Tensor, lambda x: doubled(x) if x.dim() else x, inputs)
    return several


def _converted(x: Tensor, dtype: torch.dtype | None) -> Tensor:
    return x.cpu().to(dtype) if dtype is not None and x.is_floating_point() else x.cpu()


def twice(inputs: Arguments) -> Arguments:
    """A batch of two, which BatchNorm can train on."""
    doubled: Arguments = pytree.tree_map_only(Tensor, lambda x: torch.cat([x, x]) if x.dim() else x, inputs)
    return doubled
