"""What a trace meets of the sizes that modules keep as Python integers."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.nn.modules.instancenorm import _InstanceNorm

from spaces.attributes import Attribute
from spaces.modules import keeps_own_sizes
from spaces.slots import FROZEN

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from spaces.follow import Whereabouts
    from spaces.rules import Call
    from spaces.slots import Labels, Slots


#: Operators in order: name, and size and labels of each dimension of the first output.
Results = list[tuple[str, list[tuple[int, "Labels"]]]]


@dataclass(slots=True)
class Candidates:
    """Labelled dimensions, by the integers that may stand for their sizes.

    Attributes:
        values: The integers of each module.
        kinds: Class of each module.
        inside: The modules directly inside each that keep integers.
        vectors: For each integer, labels of dimensions of that size which its module met, first met first.
        known: Integers that no run needs to tell.
        entered: Labels of what each module was given.
        results: Name of each operator of each module, and sizes and labels of its first output.
    """

    values: dict[str, dict[int, list[Attribute]]]
    kinds: dict[str, type]
    inside: dict[str, list[str]]
    vectors: dict[Attribute, dict[bytes, NDArray[np.int64]]] = field(default_factory=dict)
    known: dict[Attribute, NDArray[np.int64]] = field(default_factory=dict)
    results: dict[str, Results] = field(default_factory=dict)
    entered: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> Candidates:
        """Nothing met yet."""
        values: dict[str, dict[int, list[Attribute]]] = {}
        read = _names_read({type(module) for module in model.modules()})
        for name, module in model.named_modules():
            for attribute, value in _integers(name, module):
                if attribute.name in read:
                    values.setdefault(name, {}).setdefault(value, []).append(attribute)
        inside: dict[str, list[str]] = {}
        for name in values:
            if name:
                inside.setdefault(name.rpartition(".")[0], []).append(name)
        return cls(values, {name: type(module) for name, module in model.named_modules()}, inside)

    def observe(self, slots: Slots, whereabouts: Whereabouts, call: Call) -> None:
        """Note the dimensions that the modules which run now have met."""
        wanted = [self.values[name] for name in self.near(whereabouts.modules) if name in self.values]
        counts, slots.counts = slots.counts, []
        innermost = whereabouts.modules[-1]
        if counts and issubclass(self.kinds[innermost], nn.GroupNorm) and len(counts[0]) > 1:
            # A stale number of groups would run, with other values.
            self.known[Attribute(innermost, "num_groups")] = counts[0]
        first = call.outputs[:1]  # rules say little of the others
        dims = [(size, some) for x in first for size, some in zip(x.shape, slots.of(x), strict=True)]
        self.results.setdefault(innermost, []).append((str(call.operator), dims))
        if not wanted:
            return
        for counted in counts:
            self._note(wanted, counted)
        for tensor in (*call.inputs, *call.outputs):
            for labels in slots.of(tensor):
                if labels is not None:
                    self._note(wanted, labels)

    def enter(self, slots: Slots, module: str, tensors: list[Tensor]) -> None:
        """Note the dimensions of what a module is given."""
        if issubclass(self.kinds[module], _InstanceNorm) and tensors[0].dim() > 1:
            labels = slots.of(tensors[0])[1]
            if labels is not None:
                # A stale number only makes PyTorch warn.
                self.known[Attribute(module, "num_features")] = labels
        for tensor in tensors:
            for labels in slots.of(tensor):
                if labels is not None and labels.any():
                    self.entered.setdefault(module, []).append(labels)

    def _note(self, wanted: list[dict[int, list[Attribute]]], labels: NDArray[np.int64]) -> None:
        key = None
        for values in wanted:
            for attribute in values.get(len(labels), ()):
                if key is None:
                    if not (labels != FROZEN).any():
                        return
                    key = labels.tobytes()
                self.vectors.setdefault(attribute, {})[key] = labels

    def near(self, modules: Sequence[str]) -> list[str]:
        """Modules whose integers the running code may read, innermost first.

        Code may call methods of the modules inside its own, as ``self.bias.table()`` does, which is no
        forward pass of theirs.
        """
        *outer, innermost = modules
        return [innermost, *self.inside.get(innermost, ()), *reversed(outer)]

    def in_module(self, module: str) -> list[list[Attribute]]:
        """Integers of one module that may have to change; those of one tuple or list together."""
        together: dict[str, list[Attribute]] = {}
        for some in self.values.get(module, {}).values():
            for attribute in some:
                if attribute in self.vectors:
                    together.setdefault(attribute.name, []).append(attribute)
        return list(together.values())

    def alike(self, attribute: Attribute) -> list[Attribute]:
        """The same integer of all modules of the same class."""
        kind = self.kinds[attribute.module]
        return [
            other
            for other in self.vectors
            if (other.name, other.index) == (attribute.name, attribute.index)
            and self.kinds[other.module] is kind
        ]


def _integers(name: str, module: nn.Module) -> Iterator[tuple[Attribute, int]]:
    """Integers above one, also in tuples and lists; not of classes that follow their tensors anyway."""
    if keeps_own_sizes(module):
        return
    for attribute, value in vars(module).items():
        if _is_size(value):
            yield Attribute(name, attribute), value
        elif isinstance(value, (tuple, list)) and all(_is_size(some) for some in value):
            for index, some in enumerate(value):
                yield Attribute(name, attribute, index), some


def _names_read(kinds: Iterable[type]) -> set[str]:
    """Names that the methods of some classes use after construction."""
    read: set[str] = set()
    for base in {base for kind in kinds for base in kind.__mro__}:
        for name, value in vars(base).items():
            function = value.fget if isinstance(value, property) else getattr(value, "__func__", value)
            code = getattr(inspect.unwrap(function) if callable(function) else None, "__code__", None)
            if code is not None and name != "__init__":
                read |= set(code.co_names)
                read |= {word for const in code.co_consts for word in getattr(const, "co_names", ())}
    return read


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1
