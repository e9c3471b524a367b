"""Why a foreign model does not run, or returns no numbers: one line for whoever has to mend it.

Copies of the model run for real here, in plain PyTorch, so that what is reported is the model's own doing.
"""

from __future__ import annotations

import contextlib
import copy
import inspect
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from spaces.duplicate import duplicate
from spaces.neutral import neutral
from spaces.places import described, frames_of, locate, shown_call
from spaces.structure import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: Longest first line of a foreign exception that is passed on.
_LONGEST = 300


def describe_failure(
    model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any], *, training: bool = False
) -> str:
    """Why a model does not run on its example inputs, in one line.

    Args:
        model: Left as it is.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments.
        training: Whether it runs in train mode.

    Returns:
        Which module raised what, at which line of the model's code, and what went in. Empty if it runs.
    """
    for name, module in model.named_modules():
        lazy = [key for key, value in _own_tensors(module) if nn.parameter.is_lazy(value)]
        if lazy:
            who = described(name, module)
            return f"{who} has no shapes before the first call ({', '.join(lazy)}): call the model once."
    with neutral(model):
        try:
            twin = duplicate(model).train(training)
        except Exception as error:  # a foreign object may refuse to be copied in any way
            return _why_no_copy(model) or f"the model can not be copied: {_said(error)}"
        names = {id(module): name for name, module in twin.named_modules()}
        entered: dict[int, str] = {}
        for module in twin.modules():
            with contextlib.suppress(Exception):  # scripted modules take no such hooks
                module.register_forward_pre_hook(_noting_inputs(entered), prepend=True, with_kwargs=True)
        try:
            twin(*_copied(args), **_copied(kwargs))
        except Exception as error:  # a foreign forward may raise anything
            mismatch = _mismatch(twin, args, kwargs) if isinstance(error, TypeError) else None
            return mismatch or _told(twin, names, entered, error)
    return ""


def _told(model: nn.Module, names: Mapping[int, str], entered: Mapping[int, str], error: Exception) -> str:
    module, line = locate(frames_of(error.__traceback__), names, model)
    name = names[id(module)]
    at = f" at {line}" if line else ""
    inputs = f"; its inputs: {entered[id(module)]}" if id(module) in entered else ""
    return f"{described(name, module)}{at} raised {_said(error)}{inputs}"


def _said(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or ["(no message)"]
    # TorchScript begins with a line that says nothing and ends with the reason.
    first = lines[-1] if "TorchScript interpreter" in lines[0] else lines[0]
    return f"{type(error).__name__}: {first[:_LONGEST]}"


def _mismatch(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """What is wrong with the number or the names of the inputs."""
    try:
        signature = inspect.signature(model.forward)
    except (TypeError, ValueError):  # not a Python function
        return None
    try:
        signature.bind(*args, **kwargs)
    except TypeError as error:
        given = shown_call(args, kwargs)
        return f"{described('', model)} takes {signature}, the example inputs are {given}: {error}"
    return None


def _noting_inputs(entered: dict[int, str]) -> Any:
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        entered[id(module)] = shown_call(args, kwargs)

    return hook


def _why_no_copy(model: nn.Module) -> str | None:
    """The attribute that can not be copied."""
    for name, module in model.named_modules():
        for key, value in vars(module).items():
            if key in ("_modules", "_parameters", "_buffers") or (isinstance(value, Tensor)):
                continue
            try:
                copy.deepcopy(value)
            except Exception as error:  # a foreign object may refuse in any way
                return (
                    f"{described(name, module)} can not be copied for its attribute {key!r}: {_said(error)}"
                )
    return None


def first_non_finite(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> str | None:
    """The module that first makes NaN or infinity out of finite inputs.

    Args:
        model: Left as it is; runs in eval mode.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments.

    Returns:
        Its name and class, or ``the example inputs`` where those are not finite themselves. ``None`` if
        what the model returns is finite.

    Raises:
        Exception: Whatever the model raises.
    """
    found: list[tuple[bool, str]] = []
    finite: dict[int, list[bool]] = defaultdict(list)
    with neutral(model):
        twin = duplicate(model).eval()
        for name, module in twin.named_modules():
            with contextlib.suppress(Exception):  # scripted modules take no such hooks
                module.register_forward_pre_hook(_checking_inputs(finite), prepend=True, with_kwargs=True)
                module.register_forward_hook(_checking_outputs(finite, found, described(name, module)))
        if _is_finite(twin(*_copied(args), **_copied(kwargs))):
            return None
    # Minus infinity is also what masks are made of.
    return min(found, key=lambda entry: entry[0], default=(False, "the example inputs"))[1]


def _checking_inputs(finite: dict[int, list[bool]]) -> Any:
    # Before the module runs: it may change its inputs in place.
    def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        finite[id(module)].append(_is_finite((args, kwargs)))

    return hook


def _checking_outputs(finite: dict[int, list[bool]], found: list[tuple[bool, str]], name: str) -> Any:
    def hook(module: nn.Module, _: tuple[Any, ...], output: Any) -> None:
        if finite[id(module)].pop() and not _is_finite(output):
            found.append((_is_finite([x.clamp_min(0) for x in _real_tensors(output)]), name))

    return hook


def _is_finite(value: Any) -> bool:
    return all(bool(torch.isfinite(x).all()) for x in _real_tensors(value))


def _real_tensors(value: Any) -> list[Tensor]:
    """Tensors that may hold NaN or infinity; of complex numbers both parts."""
    numbers = [x for x in flatten(value)[0] if not x.is_meta]
    return [
        torch.view_as_real(x) if x.is_complex() else x
        for x in numbers
        if x.is_floating_point() or x.is_complex()
    ]


def _own_tensors(module: nn.Module) -> list[tuple[str, Any]]:
    return [*module._parameters.items(), *module._buffers.items()]


def _copied(value: Any) -> Any:
    """A forward pass may change its inputs in place."""
    return pytree.tree_map_only(Tensor, lambda x: x.detach().clone(), value)
