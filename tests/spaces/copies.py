"""Holds a copy of a model against the one that ``copy.deepcopy`` makes."""

from __future__ import annotations

import types
import weakref
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

#: Objects that a copy may share.
_ATOMS = (bool, int, float, complex, str, bytes, type, type(None), torch.dtype, torch.device, torch.Size)
_FUNCTIONS = (types.FunctionType, types.BuiltinFunctionType)


class Comparison:
    """Walks a model, its copy and its deep copy side by side.

    What is one object in the deep copy must be one in the copy, and the same in the model exactly where the
    deep copy shares it with the model.
    """

    def __init__(self) -> None:
        self._twin_of: dict[int, Any] = {}
        self._deep_of: dict[int, Any] = {}
        self._seen: dict[int, Any] = {}
        self.num_objects = 0

    def walk(self, model: Any, twin: Any, deep: Any, path: str = "model") -> None:
        assert type(twin) is type(deep), path
        if isinstance(deep, (*_ATOMS, *_FUNCTIONS)):
            assert twin == deep, path
            return
        if type(deep) is not tuple:  # which of equal tuples it is does not matter
            assert (twin is model) == (deep is model), path
            assert self._twin_of.setdefault(id(deep), twin) is twin, path
            assert self._deep_of.setdefault(id(twin), deep) is deep, path
        if id(deep) in self._seen:
            return
        self._seen[id(deep)] = deep
        self.num_objects += 1
        self._contents(model, twin, deep, path)

    def _contents(self, model: Any, twin: Any, deep: Any, path: str) -> None:
        if isinstance(deep, Tensor):
            self._tensors(model, twin, deep, path)
        elif isinstance(deep, dict):
            assert list(twin) == list(deep), path
            for key in deep:
                self.walk(model.get(key), twin[key], deep[key], f"{path}[{key!r}]")
        elif isinstance(deep, (list, tuple)):
            for number, three in enumerate(zip(model, twin, deep, strict=True)):
                self.walk(*three, f"{path}[{number}]")
        elif isinstance(deep, types.MethodType):
            assert twin.__func__ is deep.__func__, path
            self.walk(model.__self__, twin.__self__, deep.__self__, f"{path}.__self__")
        elif isinstance(deep, partial):
            self.walk(model.args, twin.args, deep.args, f"{path}.args")
            assert twin.func is deep.func
        elif isinstance(deep, weakref.ref):
            self.walk(model(), twin(), deep(), f"{path}()")
        elif isinstance(deep, set):
            assert twin == deep, path
        elif hasattr(deep, "__dict__"):
            self.walk(vars(model), vars(twin), vars(deep), f"vars({path})")

    def _tensors(self, model: Tensor, twin: Tensor, deep: Tensor, path: str) -> None:
        assert (twin.dtype, twin.device, twin.requires_grad) == (deep.dtype, deep.device, deep.requires_grad)
        if nn.parameter.is_lazy(deep):
            return
        assert twin.is_leaf == deep.is_leaf, path
        assert torch.equal(twin, deep), path
        assert twin.stride() == deep.stride(), path
        assert twin.storage_offset() == deep.storage_offset(), path
        assert (storage(twin) == storage(model)) == (storage(deep) == storage(model)), path
        self.walk(model.grad if deep.grad is not None else None, twin.grad, deep.grad, f"{path}.grad")


def storage(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()
