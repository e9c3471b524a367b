"""Running a copy of a model while the slot labels go along with its tensors."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from spaces import meta
from spaces.places import line_among
from spaces.rules import Call, apply
from spaces.slots import Place, Slots
from spaces.structure import flatten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

#: Positional and keyword arguments of a call.
Arguments = tuple[tuple[Any, ...], dict[str, Any]]


class Whereabouts:
    """The modules that run right now, innermost last.

    Attributes:
        operator: What runs.
        num_operators: How many ran so far.
        modules: Names of the modules on the way to the innermost one.
    """

    def __init__(self, model: nn.Module, entering: Callable[[str, list[Tensor]], None] | None = None) -> None:
        self._told = entering
        self.operator: str | None = None
        self.num_operators = 0
        self.modules: list[str] = [""]
        for name, module in model.named_modules():
            if name:
                module.register_forward_pre_hook(self._entering(name), with_kwargs=True)
                module.register_forward_hook(self._leaving(name))

    def restart(self) -> None:
        """The model runs anew."""
        self.operator, self.num_operators, self.modules = None, 0, [""]

    def place(self) -> Place:
        """Operator, module and the nearest line of the model's own code."""
        return Place(self.operator, self.modules[-1], line_among(_frames()))

    def _entering(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, args: Any, kwargs: Any) -> None:
            self.modules.append(name)
            if self._told is not None:
                self._told(name, flatten((args, kwargs))[0])

        return hook

    def _leaving(self, name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            # A module inside may have raised something that the model caught: its name is still there.
            while self.modules.pop() != name:
                pass

        return hook


def _frames() -> Iterator[tuple[FrameType, int]]:
    """What runs now, innermost first, up to the call of the model; nothing where no model runs."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_code is not run_labelled.__code__:
        yield frame, frame.f_lineno
        frame = frame.f_back


class Follow(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sees every ATen operator of a forward pass and applies its rule.

    Args:
        slots: Labels of the model's tensors.
        whereabouts: Of the model that runs.
        compute: Replaces the operators' own results.
        observe: Told every call.
    """

    def __init__(
        self,
        slots: Slots,
        whereabouts: Whereabouts,
        compute: Callable[[Slots, Any, Any, Any], Any] | None = None,
        observe: Callable[[Call], None] | None = None,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._slots, self._whereabouts = slots, whereabouts
        self._compute, self._observe = compute, observe

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        self._whereabouts.operator = str(func)
        self._whereabouts.num_operators += 1
        sizes = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else ()
        if self._compute is None:
            result = meta.run(func, args, kwargs)
        else:
            result = self._compute(self._slots, func, args, kwargs)
        call = Call.of(func, args, kwargs, result, sizes)
        apply(self._slots, call)
        if self._observe is not None:
            self._observe(call)
        return result


class Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operators that run, and has the sizes of their outputs checked.

    Args:
        whereabouts: Of the model that runs.
        check: Told module, operator and sizes of its first output's dimensions; may raise.
    """

    def __init__(self, whereabouts: Whereabouts, check: Callable[[str, str, list[int]], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._whereabouts, self._check = whereabouts, check

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = meta.run(func, args, kwargs or {})
        made = result if isinstance(result, (tuple, list)) else (result,)
        first = next((x for x in made if isinstance(x, Tensor)), None)
        sizes = [] if first is None else list(first.shape)
        self._check(self._whereabouts.modules[-1], str(func), sizes)
        self._whereabouts.num_operators += 1
        return result


def run_labelled(
    slots: Slots,
    model: nn.Module,
    inputs: Arguments,
    *,
    training: bool = False,
    compute: Callable[[Slots, Any, Any, Any], Any] | None = None,
    observe: Callable[[Whereabouts, Call], None] | None = None,
    entering: Callable[[str, list[Tensor]], None] | None = None,
) -> Any:
    """One forward pass of a copy, which gets hooks; what the model returns is frozen.

    Args:
        slots: What is learnt goes here; a second pass of the same model finds the same labels.
        model: A copy, on the meta device or with numbers.
        inputs: Positional and keyword arguments.
        training: Whether in train mode.
        compute: See :class:`Follow`.
        observe: Told every call, and where it happened.
        entering: Told every module's name and the tensors that it is given.

    Returns:
        What the model returned.
    """
    model.train(training)
    register(slots, model)
    whereabouts = Whereabouts(model, entering)
    slots.place = whereabouts.place
    slots.begin_pass()
    watch = None if observe is None else lambda call: observe(whereabouts, call)
    with _unfused(), Follow(slots, whereabouts, compute, watch):
        outputs = model(*inputs[0], **inputs[1])
    slots.place = Place
    for output in flatten(outputs)[0]:
        slots.freeze(*slots.of(output), reason="output of the model")
    return outputs


@contextlib.contextmanager
def _unfused() -> Iterator[None]:
    """Without MKL-DNN, which runs a recurrent layer as one operator and hides what it is made of."""
    before = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)  # the public switch warns of settings that nobody made
    try:
        yield
    finally:
        torch._C._set_mkldnn_enabled(before)


def register(slots: Slots, model: nn.Module) -> None:
    """Give every slot of the model its label: the same for every copy of one model."""
    for name, parameter in model.named_parameters():
        slots.register(name, parameter, is_parameter=True)
    for name, buffer in model.named_buffers():
        if buffer.is_floating_point():
            slots.register(name, buffer, is_parameter=False)
