"""Tracing: run a model once, follow the slot labels, and verify what follows from them."""

from __future__ import annotations

import contextlib
import gc
import logging
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spaces.assemble import Limits, Sizes, assemble
from spaces.blame import culprits, first_line
from spaces.candidates import Candidates
from spaces.data_paths import data_warning, depends_on_data
from spaces.duplicate import duplicate
from spaces.failure import describe_failure, first_non_finite
from spaces.follow import Arguments, run_labelled
from spaces.mending import Mender
from spaces.neutral import neutral
from spaces.revise import Choices
from spaces.slots import Cause, Slots
from spaces.structure import flatten
from spaces.verify import twice, wrong_values

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from spaces.blame import Failure
    from spaces.groups import ChannelGroup
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
    ignore: Sequence[str] = (),
    divisor_of: Mapping[str, int] | None = None,
    smallest_of: Mapping[str, float] | None = None,
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
        ignore: Shell patterns of names of modules whose parameters stay whole.
        divisor_of: ``divisor`` of the groups whose names a shell pattern fits; the last that fits counts.
        smallest_of: ``smallest`` in the same way.

    Raises:
        ValueError: If the model does not run on ``example_inputs``, or an argument breaks its rule.
    """
    limits = Limits(
        divisor, smallest, tuple(include), tuple(exclude), dict(divisor_of or {}), dict(smallest_of or {})
    )
    whole = as_call(example_inputs)
    with neutral(model), _rare_collections():
        traced = _first(model, (batch_of_one(*whole), whole))
        notes = [] if traced.on_meta else _data_notes(traced)
        _refuse_nan(traced)
        while (choices := traced.choices.wiser(traced.slots)) is not None:
            traced = traced.again(choices)
        while True:
            trains = traced.follow_training()
            traced.ignore(ignore)
            space, refused, choices = _verified(traced, limits, trains=trains)
            if choices is None:
                break
            traced = traced.again(choices)
    return replace(space, warnings=(*space.warnings, *notes, *_notes(refused)))


@dataclass(frozen=True, slots=True)
class _Traced:
    """A model that ran, and what was learnt.

    Attributes:
        model: The caller's.
        inputs: Those that it runs on.
        on_meta: Whether it runs on the meta device.
        choices: The choices that were made.
        slots: Labels and ties.
        candidates: Integers of its modules, and dimensions that they may count.
    """

    model: nn.Module
    inputs: Arguments
    on_meta: bool
    choices: Choices
    slots: Slots
    candidates: Candidates

    @classmethod
    def of(cls, model: nn.Module, inputs: Arguments, choices: Choices, *, on_meta: bool) -> _Traced:
        """Run a copy in eval mode."""
        slots = Slots(choices.parts)
        twin, arguments = _prepared(model, inputs, on_meta)
        candidates = Candidates.of(model)
        run_labelled(
            slots,
            twin,
            arguments,
            observe=lambda where, call: candidates.observe(slots, where, call),
            entering=lambda module, tensors: candidates.enter(slots, module, tensors),
        )
        for left, right in choices.all_ties:
            slots.tie(left, right)
        return cls(model, inputs, on_meta, choices, slots, candidates)

    def follow_training(self) -> bool:
        """Run a copy in train mode, which may use more layers than eval mode; whether it runs at all."""
        self.slots.counting = False
        try:
            twin, inputs = _prepared(self.model, twice(self.inputs), self.on_meta)
            run_labelled(self.slots, twin, inputs, training=True)
        except Exception as error:  # a model may have no train mode; its eval mode is traced
            logger.info("Not traced in train mode: %s", error)
            self.slots.warnings[f"Not traced in train mode: {first_line(error)}"] = None
            return False
        return True

    def again(self, choices: Choices) -> _Traced:
        """The same with other choices."""
        return _Traced.of(self.model, self.inputs, choices, on_meta=self.on_meta)

    def ignore(self, patterns: Sequence[str]) -> None:
        """Freeze the parameters of modules whose names fit."""
        for tensor in dict.fromkeys(owner.tensor for owner in self.slots.owners):
            parts = tensor.split(".")[:-1]
            modules = [".".join(parts[: depth + 1]) for depth in range(len(parts))] or [""]
            if any(fnmatchcase(module, pattern) for module in modules for pattern in patterns):
                self.slots.freeze_tensor(tensor, "ignored")

    def cheap(self) -> tuple[nn.Module, Arguments]:
        """A copy in eval mode, and its inputs, without numbers where it runs so."""
        twin, inputs = _prepared(self.model, self.inputs, self.on_meta)
        return twin.eval(), inputs


@contextlib.contextmanager
def _rare_collections() -> Iterator[None]:
    """Python looks for cyclic garbage less often: a trace makes many small objects, nearly none of it.

    With the usual thresholds a fifth of its time goes there.
    """
    before = gc.get_threshold()
    gc.set_threshold(max(before[0], 50_000) if before[0] else 0, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def _first(model: nn.Module, calls: Sequence[Arguments]) -> _Traced:
    """On the meta device where that works, else for real; with a batch of one where that works."""
    for inputs in calls:
        for on_meta in (True, False):
            try:
                return _Traced.of(model, inputs, Choices(), on_meta=on_meta)
            except Exception as error:  # a foreign forward may raise anything
                failure = error
                logger.info("No trace %s: %s", "on the meta device" if on_meta else "for real", error)
    what = describe_failure(model, *calls[-1]) or first_line(failure)
    raise ValueError(f"The model does not run on `example_inputs`: {what}") from failure


def _data_notes(traced: _Traced) -> list[str]:
    """A warning where Python code looks at numbers: without any, on the meta device, it would have raised."""
    readings = depends_on_data(traced.model, *traced.inputs)
    return [data_warning(readings)] if readings else []


def _refuse_nan(traced: _Traced) -> None:
    if any(tensor.is_meta for tensor in (*traced.model.parameters(), *traced.model.buffers())):
        return
    args, kwargs = pytree.tree_map_only(Tensor, torch.clone, traced.inputs)
    try:
        outputs = duplicate(traced.model).eval()(*args, **kwargs)
    except Exception as error:  # what runs without numbers may not run with them
        what = describe_failure(traced.model, *traced.inputs) or first_line(error)
        raise ValueError(f"The model does not run on `example_inputs`: {what}") from error
    if any(tensor.isnan().any() for tensor in flatten(outputs)[0]):
        culprit = first_non_finite(traced.model, *traced.inputs)
        raise ValueError(f"The model returns NaN on `example_inputs`; the first to make it: {culprit}.")


def _verified(
    traced: _Traced, limits: Limits, *, trains: bool
) -> tuple[Space, dict[str, Failure], Choices | None]:
    """The space without the groups whose cuts fail, what those did, and choices that may be better."""
    refused: dict[str, Failure] = {}
    groups: list[ChannelGroup] = []
    choices, slots = traced.choices, traced.slots
    while True:
        causes = {name: Cause(what.reason, what.place) for name, what in refused.items()}
        space = replace(assemble(slots, limits, causes), splits=tuple(choices.parts.items()))
        mender = Mender(*traced.cheap(), space, traced.candidates, Sizes.of(slots, space))
        first = mender.failure(space.groups, None) if space.groups else None
        if first is not None and first.modules:
            better = choices.equating(slots, traced.candidates, first.modules[-1])
            if better is not None:
                return space, refused, better
        found = culprits(space.groups, mender.failure) if first is not None else {}
        if not found:
            found = wrong_values(traced.model, mender.space, traced.inputs, trains=trains)
        if not found:
            return mender.space, refused, choices.without(slots, groups)
        for name, what in found.items():
            logger.info("%s: %s", name, what.reason)
        refused |= found
        groups += [group for group in space.groups if group.name in found]


def _notes(refused: Mapping[str, Failure]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for name, what in refused.items():
        by_reason.setdefault(what.reason, []).append(name)
    return [f"Frozen: {', '.join(sorted(names))} ({reason})." for reason, names in by_reason.items()]


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
