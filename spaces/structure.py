"""Taking apart what a model returns: tensors in tuples, dictionaries and dataclasses."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from torch import Tensor


def flatten(value: Any) -> tuple[list[Tensor], object]:
    """Every tensor of a nested value, in order, and the structure around them.

    Objects of any other kind, such as a cache of keys and values, are told by their type alone.

    Returns:
        The tensors, and something that is equal for values of equal structure.
    """
    tensors: list[Tensor] = []
    return tensors, _structure(value, tensors)


def _structure(value: Any, tensors: list[Tensor]) -> object:
    if isinstance(value, Tensor):
        tensors.append(value)
        return "tensor"
    if isinstance(value, Mapping):
        items = [(key, _structure(some, tensors)) for key, some in value.items()]
        return (type(value).__name__, tuple((repr(key), some) for key, some in items))
    if isinstance(value, (tuple, list)):
        return (type(value).__name__, tuple(_structure(some, tensors) for some in value))
    if is_dataclass(value) and not isinstance(value, type):
        named = [(field.name, getattr(value, field.name, None)) for field in fields(value)]
        return (type(value).__name__, tuple((name, _structure(some, tensors)) for name, some in named))
    if isinstance(value, (bool, int, str, bytes, type(None))):
        return repr(value)
    return type(value).__name__
