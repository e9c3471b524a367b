"""What copies of a model share with it, and how to put it back.

``copy.deepcopy`` does not copy functions with what they enclose, such as hooks that collect activations, nor
classes, nor the globals of the model's code, nor what weak references point to. A forward pass of a copy may
change all of these.
"""

from __future__ import annotations

import contextlib
import dis
import random
import sys
import weakref
from collections import OrderedDict, deque
from functools import cache, partial
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType, ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

#: Objects visited at most: a model's code may reach the whole of a large library.
_MOST = 50_000
#: Bytes of the largest shared array that is remembered: a larger one is a data set.
_LARGEST = 2**28
_ATOMS = frozenset({bool, int, float, complex, str, bytes, type(None), torch.dtype, torch.device, torch.Size})
_CONTAINERS = (list, OrderedDict, dict, set, deque)
_INSTALLED = ("site-packages", "dist-packages")


def remember(model: nn.Module) -> list[Callable[[], None]]:
    """One function for each thing that a forward pass of a copy could change; it puts that thing back.

    Shared are functions (with closures, defaults and globals), classes, what weak references point to, and
    objects with a ``__deepcopy__`` of their own. Classes and globals of Python itself and of installed
    packages are trusted: there are too many. The model's own attributes, hooks, modes and gradients are
    remembered, too; its numbers only where they are shared.

    Args:
        model: Left as it is.
    """
    return _Shared(model).restores


class _Shared:
    def __init__(self, model: nn.Module) -> None:
        self.restores: list[Callable[[], None]] = []
        self._seen: dict[tuple[int, bool], Any] = {}
        #: Objects still to visit, and whether copies share them.
        self._waiting: list[tuple[Any, bool]] = []
        for module in model.modules():
            self._bindings(vars(module))
            self._waiting.append((module, False))
        for parameter in model.parameters():
            self.restores.append(_remember_gradient(parameter))
        while self._waiting and len(self._seen) < _MOST:
            one, shared = self._waiting.pop()
            if type(one) not in _ATOMS and (id(one), shared) not in self._seen:
                self._seen[id(one), shared] = one  # kept, so that no other object gets its id
                with contextlib.suppress(Exception):  # a foreign object may refuse even to be looked at
                    self._visit(one, shared)

    def _visit(self, one: Any, shared: bool) -> None:
        if isinstance(one, FunctionType):
            self._function(one)
        elif isinstance(one, MethodType):
            self._waiting += [(one.__func__, True), (one.__self__, shared)]
        elif isinstance(one, partial):
            self._waiting += [(part, shared) for part in (one.func, *one.args, *one.keywords.values())]
        elif isinstance(one, (staticmethod, classmethod)):
            self._waiting.append((one.__func__, True))
        elif isinstance(one, property):
            self._waiting += [(part, True) for part in (one.fget, one.fset)]
        elif isinstance(one, weakref.ref):
            self._waiting.append((one(), True))
        elif isinstance(one, type):
            self._class(one)
        elif isinstance(one, (Tensor, np.ndarray)):
            if shared and one.nbytes <= _LARGEST:
                self.restores.append(_remember_numbers(one))
        elif isinstance(one, (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)):
            if shared:
                self.restores.append(_remember_generator(one))
        elif isinstance(one, _CONTAINERS):
            if shared:
                self.restores.append(_remember_content(one))
            self._contents(one, shared)
        elif isinstance(one, (tuple, frozenset)):
            self._waiting += [(item, shared) for item in one]
        elif not isinstance(one, (ModuleType, BuiltinFunctionType)):
            self._object(one, shared)

    def _contents(self, container: Any, shared: bool) -> None:
        items = container.values() if isinstance(container, dict) else container
        self._waiting += [(item, shared) for item in items]

    def _object(self, one: Any, shared: bool) -> None:
        self._waiting.append((type(one), True))
        if _of_a_library(type(one)) and not isinstance(one, nn.Module):
            return
        # Parametrised modules have a ``__deepcopy__`` from torch, which does copy.
        own = getattr(type(one), "__deepcopy__", None)
        shared = shared or (own is not None and not _of_a_library(own))
        fields = getattr(one, "__dict__", None)
        if isinstance(fields, dict):
            if shared:
                self._bindings(fields)
            self._contents(fields, shared)

    def _function(self, function: FunctionType) -> None:
        for cell in function.__closure__ or ():
            with contextlib.suppress(ValueError):  # a cell that is not filled yet
                self.restores.append(_remember_cell(cell, cell.cell_contents))
                self._waiting.append((cell.cell_contents, True))
        if _of_a_library(function):
            return
        self._bindings(function.__dict__)
        self._waiting += [(function.__dict__, True), (function.__defaults__, True)]
        self._waiting.append((function.__kwdefaults__, True))
        space = function.__globals__
        names = _globals_of(function.__code__) & space.keys()
        self.restores.append(_remember_globals(space, {name: space[name] for name in names}))
        self._waiting += [(space[name], True) for name in names]

    def _class(self, kind: type) -> None:
        for one in kind.__mro__:
            if (id(one), True) in self._seen and one is not kind:
                continue
            self._seen[id(one), True] = one
            if not _of_a_library(one):
                self.restores.append(_remember_class(one, dict(vars(one))))
                self._waiting += [(value, True) for value in vars(one).values()]

    def _bindings(self, fields: dict[str, Any]) -> None:
        """Names of an object, and the containers that it holds directly, such as hooks."""
        self.restores.append(_remember_content(fields))
        for value in fields.values():
            if isinstance(value, _CONTAINERS):
                self.restores.append(_remember_content(value))


def _of_a_library(one: Any) -> bool:
    """Whether a class or function is from an installed package or from Python itself."""
    return _is_library((getattr(one, "__module__", None) or "builtins").partition(".")[0])


@cache
def _is_library(package: str) -> bool:
    if package in sys.stdlib_module_names or package == __name__.partition(".")[0]:
        return True
    path = getattr(sys.modules.get(package), "__file__", None) or ""
    return any(folder in path for folder in _INSTALLED)


def _globals_of(code: CodeType) -> set[str]:
    """Names that a function and the functions inside it read or write in their module."""
    found = {step.argval for step in dis.get_instructions(code) if step.opname.endswith("_GLOBAL")}
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return found.union(*map(_globals_of, inner))


def _remember_gradient(parameter: nn.Parameter) -> Callable[[], None]:
    gradient, required = parameter.grad, parameter.requires_grad

    def restore() -> None:
        if parameter.grad is not gradient:
            parameter.grad = gradient
        if parameter.requires_grad != required:
            parameter.requires_grad_(required)

    return restore


def _remember_numbers(array: Any) -> Callable[[], None]:
    if isinstance(array, np.ndarray):
        numbers = array.copy()

        def restore_array() -> None:
            if array.shape == numbers.shape and array.tobytes() != numbers.tobytes():
                array[...] = numbers

        return restore_array
    before, gradient = array.detach().clone(), array.grad if array.is_leaf else None

    def restore() -> None:
        if array.is_leaf and array.grad is not gradient:
            array.grad = gradient
        if not array.is_meta and not torch.equal(array, before):
            array.detach().copy_(before)

    return restore


def _remember_generator(generator: Any) -> Callable[[], None]:
    if isinstance(generator, np.random.Generator):
        return partial(setattr, generator.bit_generator, "state", generator.bit_generator.state)
    if isinstance(generator, random.Random):
        return partial(generator.setstate, generator.getstate())
    return partial(generator.set_state, generator.get_state())


def _remember_content(container: Any) -> Callable[[], None]:
    # The plain type's methods: a subclass may refuse to be changed.
    plain: Any = next(kind for kind in _CONTAINERS if isinstance(container, kind))
    before = dict(container) if isinstance(container, dict) else plain(container)

    def restore() -> None:
        if not _same(container, before):
            plain.clear(container)
            (plain.update if hasattr(plain, "update") else plain.extend)(container, before)

    return restore


def _same(left: Any, right: Any) -> bool:
    """Whether two containers hold the same objects in the same order."""
    if len(left) != len(right):
        return False
    if isinstance(left, dict):
        return all(a is b and left[a] is right[b] for a, b in zip(left, right, strict=True))
    if isinstance(left, set):
        return {id(item) for item in left} == {id(item) for item in right}
    return all(a is b for a, b in zip(left, right, strict=True))


def _remember_cell(cell: Any, content: Any) -> Callable[[], None]:
    def restore() -> None:
        cell.cell_contents = content

    return restore


def _remember_globals(space: dict[str, Any], before: dict[str, Any]) -> Callable[[], None]:
    return lambda: space.update(before)


def _remember_class(kind: type, before: dict[str, Any]) -> Callable[[], None]:
    def restore() -> None:
        for name in vars(kind).keys() | before.keys():
            if name not in before:
                delattr(kind, name)
            elif vars(kind).get(name, kind) is not before[name]:
                setattr(kind, name, before[name])

    return restore
