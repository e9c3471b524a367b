"""Verified or frozen: a joint random cut must run and equal the network that it stands for."""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.utils import _pytree as pytree

from spaces.double import full_precision
from spaces.duplicate import duplicate
from spaces.neutral import seed
from spaces.reference import expected
from spaces.slots import Place
from spaces.structure import flatten
from spaces.surgery import cut

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

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


@dataclass(frozen=True, slots=True)
class Failure:
    """What goes wrong when some groups are cut.

    Attributes:
        reason: For the reader.
        modules: Names of the modules on the way to the one that raised, outermost first.
        line: The line of the model's own code.
        number: Of the cut, among those that were tried.
    """

    reason: str
    modules: tuple[str, ...] = ()
    line: str | None = None
    number: int | None = None

    @property
    def place(self) -> Place:
        """Where it went wrong."""
        return Place(None, self.modules[-1] if self.modules else None, self.line)

    def suspects(self, groups: Sequence[ChannelGroup]) -> list[ChannelGroup]:
        """Groups with a tensor in the innermost module that has any."""
        for module in reversed(self.modules):
            near = [g for g in groups if any(f"{m.tensor}.".startswith(f"{module}.") for m in g.members)]
            if near:
                return near
        return []


#: What goes wrong when only these groups are cut; with the cut of one number alone, or with all of them.
Check = Callable[["Sequence[ChannelGroup]", "int | None"], "Failure | None"]


def culprits(groups: Sequence[ChannelGroup], failure: Check) -> dict[str, Failure]:
    """The groups that fail, alone or together with others that may then stay, and how.

    Those near the module that raised are looked at first; where that does not help, halves.

    Args:
        groups: What may be at fault.
        failure: What goes wrong when only these groups are cut; ``None`` when nothing does.
    """
    found: dict[str, Failure] = {}
    while True:
        rest = [group for group in groups if group.name not in found]
        what = failure(rest, None) if rest else None
        if what is None:
            return found
        # Blocks of one kind stand or fall together, which saves looking at each.
        kinds = {kind_of(name) for name in found}
        alike = [group for group in what.suspects(rest) if kind_of(group.name) in kinds]
        if alike:
            found |= {group.name: what for group in alike}
        else:
            found |= _guilty(rest, [], what, failure)


def _guilty(
    groups: Sequence[ChannelGroup],
    others: Sequence[ChannelGroup],
    what: Failure,
    failure: Check,
) -> dict[str, Failure]:
    """Some of ``groups``, at least one, that fail when ``others`` are cut, too.

    Args:
        groups: What may be at fault.
        others: Cut with them; alone they do not fail.
        what: What goes wrong when all are cut.
        failure: See :func:`culprits`.
    """
    if len(groups) == 1:
        return {groups[0].name: what}
    near = what.suspects(groups)
    first = near if 0 < len(near) < len(groups) else list(groups[: len(groups) // 2])
    names = {group.name for group in first}
    second = [group for group in groups if group.name not in names]
    found: dict[str, Failure] = {}
    for part in (first, second):
        alone = failure([*others, *part], what.number)
        if alone is not None:
            found |= _guilty(part, others, alone, failure)
            if alone.modules:  # others like it are known by their kind
                return found
    if found:
        return found
    # Neither fails without the other: the part near the failure stays whole.
    return _guilty(first, [*others, *second], what, failure)


def kind_of(name: str) -> str:
    """The name without the numbers that tell blocks apart."""
    return re.sub(r"\d+", "#", name)


def first_line(error: Exception) -> str:
    """Class and first line of an exception."""
    lines = str(error).splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


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


def random_kept(
    groups: Sequence[ChannelGroup], generator: torch.Generator, counts: Mapping[str, int] | None = None
) -> dict[str, Tensor]:
    """Random units of each group.

    Args:
        groups: Of a space.
        generator: Source of randomness.
        counts: How many units of each group; at least half where it is not said. A single unit stretches to
            whatever it meets, which would hide that two groups belong together, and of few units all may be
            silent behind a ReLU, which would hide anything.
    """
    kept = {}
    for group in groups:
        half = max(-(-group.width // 2), group.fewest)
        size = int(torch.randint(half, max(half + 1, group.width), (), generator=generator))
        size = size if counts is None else counts[group.name]
        kept[group.name] = torch.randperm(group.width, generator=generator)[:size].sort().values
    return kept


def spread_counts(groups: Sequence[ChannelGroup]) -> Iterator[dict[str, int]]:
    """Kept counts, for several cuts, such that two groups of equal width differ in at least one of them.

    Code that wants two groups to have the same size would go unnoticed where both happen to keep as many.
    """
    place: dict[str, int] = {}
    size_of: Counter[int] = Counter()
    for group in groups:
        place[group.name] = size_of[group.width]
        size_of[group.width] += 1
    fewest = max((group.fewest for group in groups), default=1)
    options: dict[int, range] = {}
    for width, size in size_of.items():
        half = min(max(-(-width // 2), fewest), width)
        # Nothing goes in some of the cuts where there are more groups than widths from half to full.
        options[width] = range(half, width if size <= width - half else width + 1)
    digit = 0
    while any(size > len(options[width]) ** digit for width, size in size_of.items()) or digit == 0:
        digits = {
            group.name: place[group.name] // len(options[group.width]) ** digit % len(options[group.width])
            for group in groups
        }
        yield {group.name: options[group.width][digits[group.name]] for group in groups}
        if any(width in some for width, some in options.items()):
            # Of two that differ, the one that lost nothing loses some now.
            yield {group.name: options[group.width][-1 - digits[group.name]] for group in groups}
        digit += 1


@dataclass(frozen=True, slots=True)
class Cuts:
    """The cuts that every set of groups must survive.

    Attributes:
        random: Some units of each group.
        spread: Others, see :func:`spread_counts`.
        least: The last unit of each, or as few as there may be.
    """

    random: dict[str, Tensor]
    spread: tuple[dict[str, Tensor], ...]
    least: dict[str, Tensor]

    @classmethod
    def of(cls, groups: Sequence[ChannelGroup], generator: torch.Generator) -> Cuts:
        """Cuts of all groups."""
        return cls(
            random_kept(groups, generator),
            tuple(random_kept(groups, generator, counts) for counts in spread_counts(groups)),
            {group.name: torch.arange(group.width)[-group.fewest :] for group in groups},
        )

    def only(self, groups: Sequence[ChannelGroup]) -> Cuts:
        """Cuts of some of the groups."""

        def part(kept: dict[str, Tensor]) -> dict[str, Tensor]:
            return {group.name: kept[group.name] for group in groups}

        return Cuts(part(self.random), tuple(map(part, self.spread)), part(self.least))


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
        """See :data:`Check`."""
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
