"""Random weights without the time that good ones take: nobody looks at their quality here."""

from __future__ import annotations

import contextlib
import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Numbers that are drawn once and then repeated.
_NUM_DRAWN = 1_000_003


class _Tiled(TorchFunctionMode):
    """Repeats the same random numbers where an initialiser asks for new ones."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._normal = torch.randn(_NUM_DRAWN, generator=generator)
        self._uniform = torch.rand(_NUM_DRAWN, generator=generator)
        self._start = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        if func is Tensor.normal_:
            mean, std = _two(args[1:], kwargs, ("mean", "std"))
            return self._tile(args[0], self._normal * std + mean)
        if func is Tensor.uniform_:
            low, high = _two(args[1:], kwargs, ("from", "to"))
            return self._tile(args[0], self._uniform * (high - low) + low)
        if func is Tensor.erfinv_:  # the slow step of a truncated normal; its argument is as good here
            return args[0]
        return func(*args, **kwargs)

    def _tile(self, tensor: Tensor, numbers: Tensor) -> Tensor:
        """Go on where the last call stopped: an initialiser that rejects numbers must see other ones."""
        start, self._start = self._start, (self._start + tensor.numel()) % _NUM_DRAWN
        repeats = math.ceil((start + tensor.numel()) / _NUM_DRAWN)
        with torch.no_grad():
            return tensor.copy_(numbers.repeat(repeats)[start:][: tensor.numel()].view(tensor.shape))


def _two(args: tuple[Any, ...], kwargs: dict[str, Any], names: tuple[str, str]) -> tuple[float, float]:
    first, second = (args[i] if len(args) > i else kwargs.get(names[i], float(i)) for i in range(2))
    return float(first), float(second)


@contextlib.contextmanager
def drawn_quickly() -> Iterator[None]:
    """Models that are made inside get random weights of the usual size at the speed of copying."""
    with _Tiled():
        yield
