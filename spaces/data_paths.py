"""Models whose Python code looks at numbers: a trace sees only the path that the example inputs took."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from spaces.duplicate import duplicate
from spaces.neutral import neutral
from spaces.places import frames_inside, locate, named
from spaces.structure import flatten

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

aten = torch.ops.aten

#: Operators whose result, or the shape of whose result, is known only from the numbers that they read: what
#: Python does next may depend on the data. A boolean mask makes ``aten.index`` one of them.
DATA_DEPENDENT = frozenset(
    {
        aten._ctc_loss,
        aten._local_scalar_dense,
        aten._unique,
        aten._unique2,
        aten.allclose,
        aten.argwhere,
        aten.bincount,
        aten.equal,
        aten.is_nonzero,
        aten.item,
        aten.masked_select,
        aten.nonzero,
        aten.nonzero_numpy,
        aten.one_hot,
        aten.unique_consecutive,
        aten.unique_dim,
        aten.unique_dim_consecutive,
    }
)
#: The same for some overloads only, or known once torchvision is there.
_DATA_DEPENDENT_NAMES = frozenset({"aten::repeat_interleave.Tensor", "torchvision::nms"})
#: Methods that hand numbers to Python behind the back of a dispatch mode.
_HANDS_OUT_NUMBERS = frozenset({Tensor.tolist, Tensor.numpy, Tensor.__array__})
#: Operators that read shapes and no numbers.
_SHAPES_ONLY = frozenset(
    {aten.empty_like, aten.full_like, aten.new_empty, aten.new_full, aten.new_ones, aten.new_zeros}
    | {aten.ones_like, aten.rand_like, aten.randn_like, aten.sym_size, aten.zeros_like}
)


@dataclass(frozen=True, slots=True)
class Reading:
    """A place where Python looks at numbers that follow from the inputs.

    Attributes:
        operator: Such as ``aten._local_scalar_dense``.
        module: Such as ``blocks.3.router``; empty for the model itself.
        line: Such as ``router.py:33``.
    """

    operator: str
    module: str
    line: str | None

    def __str__(self) -> str:
        at = f" at {self.line}" if self.line else ""
        return f"{named(self.module)}{at} ({self.operator})"


def depends_on_data(model: nn.Module, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Reading, ...]:
    """Where Python looks at numbers that follow from the inputs, and so may choose another path for others.

    Numbers that follow from shapes, parameters or constants alone are the same for every input.

    Args:
        model: Left as it is; runs in eval mode, for real.
        args: Positional arguments of its forward.
        kwargs: Keyword arguments.

    Raises:
        Exception: Whatever the model raises.
    """
    with neutral(model):
        twin = duplicate(model).eval()
        args, kwargs = pytree.tree_map_only(Tensor, torch.clone, (tuple(args), dict(kwargs)))
        readings: dict[Reading, None] = {}
        with _Watch(twin, (args, kwargs), readings) as watch, _WatchMethods(watch):
            twin(*args, **kwargs)
    return tuple(readings)


def data_warning(readings: Sequence[Reading]) -> str:
    """One sentence for the user.

    Args:
        readings: At least one.
    """
    more = {1: "", 2: " and 1 more place"}.get(len(readings), f" and {len(readings) - 1} more places")
    return (
        f"Python code looks at numbers that follow from the inputs in {readings[0]}{more}: "
        "only the path that the example inputs took was seen."
    )


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows through storages which numbers come from the inputs, and notes where Python reads them."""

    def __init__(self, model: nn.Module, inputs: Any, readings: dict[Reading, None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._model, self._readings, self._outer = model, readings, sys._getframe(1)
        self._names = {id(module): name for name, module in model.named_modules()}
        self._tainted = {_storage(x) for x in flatten(inputs)[0]} - {None}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        kwargs = kwargs or {}
        reads = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        tainted = any(_storage(x) in self._tainted for x in reads)
        if tainted and _is_data_dependent(func, reads):
            self.note(str(func.overloadpacket))
        result = func(*args, **kwargs)
        if tainted and func.overloadpacket not in _SHAPES_ONLY:
            made = [x for x in pytree.tree_leaves(result) if isinstance(x, Tensor)]
            written = [a for a, s in zip(args, func._schema.arguments, strict=False) if _is_written(a, s)]
            self._tainted |= {_storage(x) for x in (*made, *written)} - {None}
        return result

    def note(self, operator: str) -> None:
        module, line = locate(frames_inside(self._outer), self._names, self._model)
        self._readings[Reading(operator, self._names[id(module)], line)] = None

    def knows(self, tensor: Tensor) -> bool:
        return _storage(tensor) in self._tainted


class _WatchMethods(TorchFunctionMode):
    """Sees the methods that hand numbers to Python without an operator."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        if func in _HANDS_OUT_NUMBERS and self._watch.knows(args[0]):
            self._watch.note(f"Tensor.{func.__name__}")
        return func(*args, **(kwargs or {}))


def _is_data_dependent(func: Any, reads: Sequence[Tensor]) -> bool:
    if func.overloadpacket is aten.index:
        return any(x.dtype in (torch.bool, torch.uint8) for x in reads[1:])
    return func.overloadpacket in DATA_DEPENDENT or func.name() in _DATA_DEPENDENT_NAMES


def _is_written(argument: Any, schema: Any) -> bool:
    return isinstance(argument, Tensor) and schema.alias_info is not None and schema.alias_info.is_write


def _storage(tensor: Tensor) -> StorageWeakRef | None:
    try:
        return StorageWeakRef(tensor.untyped_storage())  # type: ignore[no-untyped-call]
    except (NotImplementedError, RuntimeError):  # a sparse tensor, for instance
        return None
