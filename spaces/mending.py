"""Python integers that modules keep of their own widths, and how a cut changes them.

``view(batch, -1, self.num_heads, head_width)`` needs another ``num_heads`` once heads are gone. Which
integers those are can not be seen from tensors. So the trace notes, for each module, the labelled dimensions
that have as many slots as one of its integers says; where a cut network does not run, the integers of the
module that raised are tried one by one, and whatever lets the network run further is kept. Verification has
the last word.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spaces.attributes import Attribute
from spaces.follow import Watch, Whereabouts, line_of
from spaces.modules import keeps_own_sizes
from spaces.slots import FROZEN
from spaces.structure import flatten
from spaces.surgery import cut
from spaces.verify import Cuts, Failure, first_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from numpy.typing import NDArray
    from torch import Tensor

    from spaces.assemble import Sizes
    from spaces.attributes import Mend
    from spaces.follow import Arguments
    from spaces.groups import ChannelGroup
    from spaces.rules import Call
    from spaces.slots import Labels, Slots
    from spaces.space import Space


@dataclass(slots=True)
class Candidates:
    """Labelled dimensions, by the integers that may stand for their sizes.

    Attributes:
        values: The integers of each module.
        kinds: Class of each module.
        vectors: For each integer, labels of dimensions of that size which its module met, first met first.
        known: Integers that no run needs to tell.
        entered: Labels of what each module was given.
        results: Name of each operator of each module, and sizes and labels of its first output.
    """

    values: dict[str, dict[int, list[Attribute]]]
    kinds: dict[str, type]
    vectors: dict[Attribute, dict[bytes, NDArray[np.int64]]] = field(default_factory=dict)
    known: dict[Attribute, NDArray[np.int64]] = field(default_factory=dict)
    results: dict[str, list[tuple[str, list[tuple[int, Labels]]]]] = field(default_factory=dict)
    entered: dict[str, list[NDArray[np.int64]]] = field(default_factory=dict)

    @classmethod
    def of(cls, model: nn.Module) -> Candidates:
        """Nothing met yet."""
        values: dict[str, dict[int, list[Attribute]]] = {}
        for name, module in model.named_modules():
            for attribute, value in _integers(name, module):
                values.setdefault(name, {}).setdefault(value, []).append(attribute)
        return cls(values, {name: type(module) for name, module in model.named_modules()})

    def observe(self, slots: Slots, whereabouts: Whereabouts, call: Call) -> None:
        """Note the dimensions that the modules which run now have met."""
        wanted = [self.values[name] for name in whereabouts.modules if name in self.values]
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

    def in_module(self, module: str) -> list[Attribute]:
        """Integers of one module that may have to change."""
        return [a for some in self.values.get(module, {}).values() for a in some if a in self.vectors]

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


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 1


class Mender:
    """Runs cut copies without numbers, and mends what modules know of their widths until they run.

    Args:
        model: A copy whose forward is cheap: on the meta device where the model runs there.
        inputs: Positional and keyword arguments for it.
        space: Its space, with nothing mended.
        candidates: What the trace met.
        sizes: Of labelled dimensions in that space.
        mended: Integers that are known to follow a cut, and the dimensions that they count.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Arguments,
        space: Space,
        candidates: Candidates,
        sizes: Sizes,
        mended: Mapping[Attribute, NDArray[np.int64]],
    ) -> None:
        self.mended = candidates.known | dict(mended)
        self._model, self._inputs, self._candidates, self._sizes = model, inputs, candidates, sizes
        self._bare = space
        # By the identity of label vectors, which the candidates keep alive.
        self._known_sizes: dict[int, tuple[int, tuple[int, ...]] | None] = {}
        self._structure = self._shapes(model(*inputs[0], **inputs[1]))
        self._cuts = Cuts.of(space.groups, torch.Generator().manual_seed(0))

    @property
    def space(self) -> Space:
        """The space with what was mended so far."""
        return self._space(self.mended)

    def _space(self, mended: Mapping[Attribute, NDArray[np.int64]]) -> Space:
        mends = (self._sizes.mend(attribute, vector) for attribute, vector in mended.items())
        return replace(self._bare, mends=tuple(mend for mend in mends if mend.per_unit))

    def failure(self, groups: Sequence[ChannelGroup]) -> Failure | None:
        """What goes wrong when these groups are cut together and integers were mended as far as possible."""
        cuts = self._cuts.only(groups)
        for kept in (cuts.random, cuts.least):
            attempt = self._attempt(kept, self.mended)
            while attempt.failure is not None and (better := self._mend(kept, attempt)) is not None:
                attempt = better
            if attempt.failure is not None:
                return attempt.failure
        return None

    def _mend(self, kept: Mapping[str, Tensor], failed: _Attempt) -> _Attempt | None:
        """Mend the integer that lets the network run furthest, of the innermost module that has one."""
        assert failed.failure is not None
        for module in reversed(failed.failure.modules):
            best, chosen = failed, self.mended
            for attribute in self._candidates.in_module(module):
                for number in range(len(self._options(attribute))):
                    mended = self._with(attribute, number)
                    attempt = self._attempt(kept, mended)
                    if attempt.reaches(best):
                        best, chosen = attempt, mended
                    if attempt.failure is None:
                        break
            if best is not failed:
                self.mended = chosen
                return best
        return None

    def _options(self, attribute: Attribute) -> list[NDArray[np.int64]]:
        """Every different way in which an integer may follow the widths."""
        options: dict[Mend, NDArray[np.int64]] = {}
        for vector in self._candidates.vectors[attribute].values():
            mend = self._sizes.mend(attribute, vector)
            if mend.per_unit:
                options.setdefault(mend, vector)
        return list(options.values())

    def _with(self, attribute: Attribute, number: int) -> dict[Attribute, NDArray[np.int64]]:
        """What was mended, one more integer, and the same one in modules of the same class."""
        mended = dict(self.mended)
        for other in self._candidates.alike(attribute):
            options = self._options(other)
            if other == attribute or (other not in mended and number < len(options)):
                mended[other] = options[number]
        return mended

    def _attempt(self, kept: Mapping[str, Tensor], mended: Mapping[Attribute, NDArray[np.int64]]) -> _Attempt:
        try:
            small = cut(self._model, self._space(mended), kept)
        except Exception as error:  # a module may refuse to be cut
            return _Attempt(Failure(f"a cut does not run: {first_line(error)}"), -1)
        whereabouts = Whereabouts(small)
        widths = {g.name: len(kept[g.name]) if g.name in kept else g.width for g in self._bare.groups}
        try:
            with Watch(whereabouts, self._checker(widths)):
                outputs = small(*self._inputs[0], **self._inputs[1])
        except Exception as error:  # a foreign forward may raise anything
            failure: Failure | None = Failure(
                f"a cut does not run: {first_line(error)}", tuple(whereabouts.modules), line_of(error)
            )
            return _Attempt(failure, whereabouts.num_operators)
        same = self._shapes(outputs) == self._structure
        failure = None if same else Failure("a cut changes the structure of the outputs")
        return _Attempt(failure, whereabouts.num_operators)

    def _checker(self, widths: Mapping[str, int]) -> Callable[[str, str, list[int]], None]:
        """Raises where an operator's outputs have other sizes than the labels say.

        A stale integer need not raise: in ``view(batch, heads, -1)`` another dimension takes what is left.
        """
        counts = np.array([widths[group.name] for group in self._bare.groups], dtype=np.int64)
        left = {module: iter(results) for module, results in self._candidates.results.items()}

        def check(module: str, operator: str, sizes: list[int]) -> None:
            name, dims = next(left.get(module, iter(())), ("", []))
            if name != operator or len(dims) != len(sizes):
                left.pop(module, None)  # the module takes another path
                return
            for size, (dense, labels) in zip(sizes, dims, strict=True):
                wanted = dense if labels is None else self._size(labels, counts)
                if wanted is not None and size != wanted:
                    raise RuntimeError(f"{operator} made {size} of {dense} where {wanted} should stay")

        return check

    def _size(self, labels: NDArray[np.int64], counts: NDArray[np.int64]) -> int | None:
        key = id(labels)
        if key not in self._known_sizes:
            self._known_sizes[key] = None if self._sizes.unbound[labels].any() else self._sizes(labels)
        known = self._known_sizes[key]
        return None if known is None else known[0] + int(np.dot(known[1], counts))

    def _shapes(self, outputs: Any) -> tuple[object, list[torch.Size]]:
        tensors, structure = flatten(outputs)
        return structure, [tensor.shape for tensor in tensors]


@dataclass(frozen=True, slots=True)
class _Attempt:
    """How far a cut network ran.

    Attributes:
        failure: What went wrong.
        num_operators: Operators that ran.
    """

    failure: Failure | None
    num_operators: int

    def reaches(self, other: _Attempt) -> bool:
        """Whether it ran further."""
        return self.failure is None or self.num_operators > other.num_operators
