"""Where in a foreign model something happens, in words."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from types import FrameType, TracebackType

#: Code below these folders, or made from strings, is not the model's own.
_FOREIGN = (*(os.path.dirname(path) + os.sep for path in (torch.__file__, __file__)), "<")


def locate(
    frames: Iterable[tuple[FrameType, int]], names: Mapping[int, str], model: nn.Module
) -> tuple[nn.Module, str | None]:
    """The innermost module that runs, and the innermost line of the model's own code.

    Args:
        frames: With their current lines, innermost first.
        names: By ``id`` of the modules of ``model``.
        model: What runs.
    """
    module = None
    frames = list(frames)
    for frame, _ in frames:
        code = frame.f_code
        if module is None and code.co_argcount:
            first = frame.f_locals.get(code.co_varnames[0])
            module = first if isinstance(first, nn.Module) and id(first) in names else None
    return model if module is None else module, line_among(frames)


def line_among(frames: Iterable[tuple[FrameType, int]]) -> str | None:
    """The innermost line of the model's own code, such as ``resnet.py:92``.

    Args:
        frames: With their current lines, innermost first.
    """
    for frame, number in frames:
        if not frame.f_code.co_filename.startswith(_FOREIGN):
            return f"{os.path.basename(frame.f_code.co_filename)}:{number}"
    return None


def frames_of(traceback: TracebackType | None) -> Iterator[tuple[FrameType, int]]:
    """What ran when an exception was raised, innermost first, with current lines."""
    found = []
    while traceback is not None:
        found.append((traceback.tb_frame, traceback.tb_lineno))
        traceback = traceback.tb_next
    return reversed(found)


def frames_inside(outer: FrameType) -> Iterator[tuple[FrameType, int]]:
    """What runs now, innermost first, up to the frame that called the model."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame is not outer:
        yield frame, frame.f_lineno
        frame = frame.f_back


def named(name: str) -> str:
    """A module in a sentence."""
    return f"`{name}`" if name else "the model"


def described(name: str, module: nn.Module) -> str:
    """A module and its class in a sentence."""
    return f"{named(name)} ({type(module).__name__})"


def shown_call(args: Sequence[Any], kwargs: Mapping[str, Any]) -> str:
    """The inputs of a call, tensors by dtype and shape."""
    keywords = (f"{key}={_shown(value)}" for key, value in kwargs.items())
    return f"({', '.join((*map(_shown, args), *keywords))})"


def _shown(value: Any) -> str:
    """A tensor by dtype, shape and device, anything else as briefly as it can be told."""
    if isinstance(value, Tensor):
        device = "" if value.device.type == "cpu" else f" on {value.device}"
        return f"{str(value.dtype).removeprefix('torch.')}{list(value.shape)}{device}"
    if isinstance(value, (tuple, list)):
        return f"({', '.join(map(_shown, value))})"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{key}: {_shown(some)}' for key, some in value.items())}}}"
    if isinstance(value, (bool, int, float, type(None))):
        return repr(value)
    return type(value).__name__
