"""Integers that modules keep of their own widths, and how they follow a cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn


@dataclass(frozen=True, slots=True, order=True)
class Attribute:
    """An integer that a module keeps: ``module.name``, or ``module.name[index]`` of a tuple or list."""

    module: str
    name: str
    index: int | None = None


@dataclass(frozen=True, slots=True)
class Mend:
    """How an integer follows the kept widths: ``fixed`` plus so many per kept unit of some groups."""

    attribute: Attribute
    fixed: int
    per_unit: tuple[tuple[str, int], ...]

    def value(self, widths: Mapping[str, int]) -> int:
        """What the integer must be for these kept units per group."""
        return self.fixed + sum(count * widths[group] for group, count in self.per_unit)


def read_attribute(model: nn.Module, attribute: Attribute) -> object:
    """What a model keeps there.

    Raises:
        AttributeError: If the model has no such module or attribute.
        TypeError: If it keeps no tuple or list there, but an index is given.
    """
    kept = vars(model.get_submodule(attribute.module))
    if attribute.name not in kept:
        raise AttributeError(attribute.name)
    value = kept[attribute.name]
    if attribute.index is None:
        return value
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{attribute.name} is no tuple or list")
    return value[attribute.index]


def write_attributes(model: nn.Module, values: Mapping[Attribute, object]) -> None:
    """Set integers of a model's modules; tuples and lists are made anew."""
    for attribute, value in values.items():
        module = model.get_submodule(attribute.module)
        if attribute.index is None:
            setattr(module, attribute.name, value)
        else:
            old = getattr(module, attribute.name)
            new = list(old)
            new[attribute.index] = value
            make = getattr(type(old), "_make", type(old))  # named tuples take their values one by one
            setattr(module, attribute.name, make(new))
