"""Tracing: run a model once, follow the slot labels, and verify what follows from them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from spaces.assemble import assemble
from spaces.rules import Call, apply
from spaces.slots import Slots
from spaces.surgery import duplicate
from spaces.verify import Arguments, twice, wrong_groups

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from spaces.space import Space

logger = logging.getLogger(__name__)


def trace(
    model: nn.Module,
    example_inputs: Any,
    *,
    divisor: int = 1,
    include: Sequence[str] = (),
    exclude: Sequence[str] = (),
    smallest: float = 0.0,
) -> Space:
    """Find out what may be pruned and what each choice costs, with nothing to configure.

    The model runs on the meta device where that works, else for real, in eval mode and in train mode, so
    that auxiliary heads which only train are coupled too. Then a joint random cut is compared with the
    masked network; groups that fail are frozen and named.

    Args:
        model: Any module that runs; left as it is.
        example_inputs: A tensor, a tuple of arguments or a dict of keyword arguments. Costs are counted
            for a batch of one.
        divisor: Kept widths that a search proposes are multiples of it, in channels.
        include: Shell patterns of group names; others are frozen when any are given.
        exclude: Shell patterns of group names that are frozen.
        smallest: Share of each group's units that is always kept.

    Raises:
        ValueError: If the model does not run on ``example_inputs``, or an argument breaks its rule.
    """
    if divisor < 1:
        raise ValueError(f"`divisor` must be at least 1, got {divisor=}.")
    if not 0 <= smallest <= 1:
        raise ValueError(f"`smallest` must be in [0, 1], got {smallest=}.")
    whole = as_call(example_inputs)
    with _neutral():
        slots, inputs, trains = _follow(model, whole, batch_of_one(*whole))
        frozen: set[str] = set()
        while True:
            space = assemble(
                slots, divisor=divisor, smallest=smallest, include=include, exclude=exclude, frozen=frozen
            )
            wrong = wrong_groups(model, space, inputs, trains=trains)
            if not wrong:
                return _with_note(space, frozen)
            logger.info("A cut of %s differs from the masked network: frozen.", ", ".join(wrong))
            frozen |= set(wrong)


def _with_note(space: Space, frozen: set[str]) -> Space:
    if not frozen:
        return space
    note = f"A cut of {', '.join(sorted(frozen))} differed from the masked network: frozen."
    return replace(space, warnings=(*space.warnings, note))


def as_call(example_inputs: Any) -> Arguments:
    """Positional and keyword arguments of the call ``model(example_inputs)`` stands for."""
    if isinstance(example_inputs, dict):
        return (), example_inputs
    if isinstance(example_inputs, (tuple, list)):
        return tuple(example_inputs), {}
    return (example_inputs,), {}


def batch_of_one(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
    """Inputs cut to their first sample where all share a leading dimension, for costs per sample."""
    tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
    batches = {x.shape[0] for x in tensors if x.dim()}
    if len(batches) != 1 or any(x.dim() < 2 for x in tensors):
        return args, kwargs
    return pytree.tree_map_only(Tensor, lambda x: x[:1], (args, kwargs))  # type: ignore[no-any-return]


@contextlib.contextmanager
def _neutral() -> Iterator[None]:
    """Leave no mark on random state, gradients or backend flags; hide no operator from the dispatch mode."""
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        # Fused attention would hide its matrix products from the dispatch mode.
        with torch.random.fork_rng(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)


def _follow(model: nn.Module, whole: Arguments, single: Arguments) -> tuple[Slots, Arguments, bool]:
    """Labels after an eval run and a train run, the inputs that the model runs on, and whether it trains.

    On the meta device where that works, else for real; with a batch of one where that works, else with the
    inputs as they are.
    """
    for inputs in (single, whole):
        for on_meta in (True, False):
            slots = Slots()
            try:
                _run(slots, *_prepared(model, inputs, on_meta))
            except Exception as error:  # a foreign forward may raise anything
                failure = error
                logger.info("No trace %s: %s", "on the meta device" if on_meta else "for real", error)
                continue
            return slots, inputs, _follow_training(slots, model, inputs, on_meta)
    raise ValueError(f"The model does not run on `example_inputs`: {failure}") from failure


def _follow_training(slots: Slots, model: nn.Module, inputs: Arguments, on_meta: bool) -> bool:
    slots.counting = False
    try:
        _run(slots, *_prepared(model, twice(inputs), on_meta), training=True)
    except Exception as error:  # a model may have no train mode; its eval mode is traced
        logger.info("Not traced in train mode: %s", error)
        first_line = (str(error).splitlines() or [repr(error)])[0]
        slots.warnings[f"Not traced in train mode: {first_line}"] = None
        return False
    return True


def _prepared(model: nn.Module, inputs: Arguments, on_meta: bool) -> tuple[nn.Module, Arguments]:
    if not on_meta:
        return duplicate(model), inputs
    return on_meta_device(model), pytree.tree_map_only(Tensor, lambda x: x.to("meta"), inputs)


def on_meta_device(model: nn.Module) -> nn.Module:
    """A deep copy whose parameters and buffers have shapes and no numbers."""
    replaced: dict[int, Tensor] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        twin = torch.empty_like(tensor, device="meta")
        is_parameter = isinstance(tensor, nn.Parameter)
        replaced[id(tensor)] = nn.Parameter(twin, tensor.requires_grad) if is_parameter else twin
    return duplicate(model, replaced)


class _Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every ATen operator of a forward pass and applies its rule."""

    def __init__(self, slots: Slots) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots = slots

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        sizes = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
        result = func(*args, **(kwargs or {}))
        apply(self._slots, Call.of(func, args, kwargs or {}, result, sizes))
        return result


def _run(slots: Slots, model: nn.Module, inputs: Arguments, *, training: bool = False) -> None:
    """One forward pass of a copy; what the model returns is frozen."""
    model.train(training)
    for name, parameter in model.named_parameters():
        slots.register(name, parameter, is_parameter=True)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            slots.register(name, buffer, is_parameter=False)
    with _Follow(slots):
        outputs = model(*inputs[0], **inputs[1])
    for output in pytree.tree_leaves(outputs):
        if isinstance(output, Tensor):
            slots.freeze(*slots.of(output))
