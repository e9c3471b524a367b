"""Example inputs from text: ``1x3x224x224`` or ``1x3x32x32,1x16:int64``."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

_DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        torch.float32,
        torch.float64,
        torch.float16,
        torch.bfloat16,
        torch.int64,
        torch.int32,
        torch.uint8,
        torch.bool,
    )
}

#: Whole numbers are drawn below it: indices that any vocabulary has.
_NUM_TOKENS = 100

#: More values than this are a slip of the pen.
_MOST_VALUES = 2**30


def example_inputs(text: str) -> Tensor | tuple[Tensor, ...]:
    """Random tensors of the shapes in ``text``; a single one by itself, several as positional arguments.

    Args:
        text: Shapes such as ``1x3x224x224`` separated by commas, each with an optional type after a colon
            (``1x16:int64``). Numbers are drawn from a normal distribution, whole numbers below 100.

    Raises:
        OptionError: If ``text`` has another form; the option is ``input``.
    """
    tensors = tuple(_tensor(text, part.strip()) for part in text.split(","))
    return tensors[0] if len(tensors) == 1 else tensors


def random_tensor(shape: Sequence[int], dtype: torch.dtype = torch.float32) -> Tensor:
    """The same random numbers for the same shape; leaves the global random state alone."""
    generator = torch.Generator().manual_seed(0)
    if dtype.is_floating_point:
        return torch.randn(shape, generator=generator).to(dtype)
    high = 2 if dtype == torch.bool else _NUM_TOKENS
    return torch.randint(high, tuple(shape), generator=generator).to(dtype)


def _tensor(text: str, part: str) -> Tensor:
    sizes, colon, name = part.partition(":")
    if not re.fullmatch(r"\d+(x\d+)*", sizes):
        rule = "must be sizes such as 1x3x224x224; commas separate several, 1x16:int64 has a type."
        raise OptionError("input", repr(text), rule)
    shape = [int(size) for size in sizes.split("x")]
    if min(shape) < 1 or math.prod(shape) > _MOST_VALUES:
        raise OptionError("input", repr(text), f"{sizes} must hold between one and {_MOST_VALUES} values.")
    if colon and name not in _DTYPES:
        raise OptionError("input", repr(text), f"{name!r} is no type; choose one of {', '.join(_DTYPES)}.")
    return random_tensor(shape, _DTYPES[name] if colon else torch.float32)
