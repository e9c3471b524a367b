"""Python integers that modules keep of their own widths, and how a cut changes them.

``view(batch, -1, self.num_heads, head_width)`` needs another ``num_heads`` once heads are gone. Which
integers those are can not be seen from tensors. So the trace notes, for each module, the labelled dimensions
that have as many slots as one of its integers says; where a cut network does not run, the integers of the
module that raised are tried one by one, and whatever lets the network run further is kept. Verification has
the last word.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from spaces.attributes import Attribute, read_attribute, write_attributes
from spaces.blame import Failure, first_line, kind_of
from spaces.follow import Watch, Whereabouts
from spaces.places import frames_of, line_among
from spaces.structure import flatten
from spaces.surgery import cut
from spaces.trial_cuts import Cuts

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from numpy.typing import NDArray

    from spaces.assemble import Sizes
    from spaces.attributes import Mend
    from spaces.candidates import Candidates, Results
    from spaces.follow import Arguments
    from spaces.groups import ChannelGroup
    from spaces.space import Space

#: Pairs of integers that are tried where none helps alone; a module with more has other troubles.
_MOST_PAIRS = 15

#: Blocks of one kind in which nothing helped, after which others like them are not looked at.
_ENOUGH = 3

#: Integers that follow a cut, and labels of the dimensions whose sizes they are.
Mended = Mapping[Attribute, "NDArray[np.int64]"]


class Mender:
    """Runs cut copies without numbers, and mends what modules know of their widths until they run.

    Args:
        model: A copy whose forward is cheap: on the meta device where the model runs there.
        inputs: Positional and keyword arguments for it.
        space: Its space, with nothing mended.
        candidates: What the trace met.
        sizes: Of labelled dimensions in that space.
    """

    def __init__(
        self,
        model: nn.Module,
        inputs: Arguments,
        space: Space,
        candidates: Candidates,
        sizes: Sizes,
    ) -> None:
        self.mended = dict(candidates.known)
        self._model, self._inputs, self._candidates, self._sizes = model, inputs, candidates, sizes
        self._bare = space
        # By the identity of label vectors, which the candidates keep alive.
        self._known_sizes: dict[int, tuple[int, tuple[int, ...]] | None] = {}
        self._options_of: dict[Attribute, list[NDArray[np.int64]]] = {}
        #: Places where no integer helped, by module and by kind of module.
        self._hopeless: Counter[tuple[str, str | None]] = Counter()
        self._structure = shapes(model(*inputs[0], **inputs[1]))
        self._cuts = Cuts.of(space.groups, torch.Generator().manual_seed(0))

    @property
    def space(self) -> Space:
        """The space with what was mended so far."""
        return self._space(self.mended)

    def _space(self, mended: Mended) -> Space:
        mends = (self._sizes.mend(attribute, vector) for attribute, vector in mended.items())
        return replace(self._bare, mends=tuple(mend for mend in mends if mend.per_unit))

    def failure(self, groups: Sequence[ChannelGroup], number: int | None = None) -> Failure | None:
        """What goes wrong with integers mended as far as possible; see :data:`spaces.blame.Check`."""
        cuts = self._cuts.only(groups)
        for place, kept in enumerate((*cuts.spread, cuts.least)):
            if number not in (None, place):
                continue
            widths = {g.name: len(kept[g.name]) if g.name in kept else g.width for g in self._bare.groups}
            try:
                small = cut(self._model, self._bare, kept)
            except Exception as error:  # a module may refuse to be cut
                return Failure(f"a cut does not run: {first_line(error)}")
            results = self._candidates.results
            trial = _Trial(small, self._inputs, results, self._expected(widths), self._structure)

            def run(mended: Mended, trial: _Trial = trial, widths: Mapping[str, int] = widths) -> _Attempt:
                return trial.run({m.attribute: m.value(widths) for m in self._space(mended).mends})

            attempt = run(self.mended)
            while attempt.failure is not None and (better := self._mend(run, attempt)) is not None:
                attempt = better
            if attempt.failure is not None:
                return replace(attempt.failure, number=place)
        return None

    def _mend(self, run: Callable[[Mended], _Attempt], failed: _Attempt) -> _Attempt | None:
        """Mend the integer that lets the network run furthest, of the innermost module that has one."""
        assert failed.failure is not None
        module, line = failed.failure.modules[-1], failed.failure.line
        if self._hopeless[module, line] or self._hopeless[kind_of(module), line] >= _ENOUGH:
            return None
        for near in self._candidates.near(failed.failure.modules):
            alone = self._candidates.in_module(near)
            # ``width // num_heads`` needs both.
            pairs = [[*one, *other] for one, other in combinations(alone, 2)]
            innermost = near == module
            for attempts in (alone, pairs if innermost and len(pairs) <= _MOST_PAIRS else []):
                best, chosen = failed, self.mended
                for attributes in attempts:
                    for number in range(max(len(self._options(attribute)) for attribute in attributes)):
                        mended = self._with(attributes, number)
                        attempt = run(mended)
                        if attempt.reaches(best):
                            best, chosen = attempt, mended
                        if attempt.failure is None:
                            break
                if best is not failed:
                    self.mended = chosen
                    return best
        self._hopeless[module, line] += 1
        self._hopeless[kind_of(module), line] += 1
        return None

    def _options(self, attribute: Attribute) -> list[NDArray[np.int64]]:
        """Every different way in which an integer may follow the widths."""
        if attribute in self._options_of:
            return self._options_of[attribute]
        options: dict[Mend, NDArray[np.int64]] = {}
        for vector in self._candidates.vectors[attribute].values():
            mend = self._sizes.mend(attribute, vector)
            if mend.per_unit and self._sizes.is_linear(vector):
                options.setdefault(mend, vector)
        self._options_of[attribute] = list(options.values())
        return self._options_of[attribute]

    def _with(self, attributes: Sequence[Attribute], number: int) -> dict[Attribute, NDArray[np.int64]]:
        """What was mended, some more integers, and the same ones in modules of the same class."""
        mended = dict(self.mended)
        for place, attribute in enumerate(attributes):
            # Of a tuple's equal sizes each stands for another dimension.
            wanted = self._chosen(attribute, number + place)
            if wanted is None:
                continue
            for other in self._candidates.alike(attribute):
                vector = self._chosen(other, number + place)
                if vector is None:
                    continue
                if other == attribute or (other not in mended and self._follows(other, vector, like=wanted)):
                    mended[other] = vector
        return mended

    def _chosen(self, attribute: Attribute, number: int) -> NDArray[np.int64] | None:
        options = self._options(attribute)
        return options[number % len(options)] if options else None

    def _follows(self, attribute: Attribute, vector: NDArray[np.int64], *, like: NDArray[np.int64]) -> bool:
        """Whether two integers follow widths by the same counts.

        One head's width shrinks where there is a single head; where there are several, their number does.
        """
        counts, wanted = (
            (mend.fixed, sorted(count for _, count in mend.per_unit))
            for mend in (self._sizes.mend(attribute, some) for some in (vector, like))
        )
        return counts == wanted

    def _expected(self, widths: Mapping[str, int]) -> Callable[[NDArray[np.int64]], int | None]:
        """Size of a labelled dimension for these kept units; ``None`` where Python code may choose it."""
        counts = np.array([widths[group.name] for group in self._bare.groups], dtype=np.int64)

        def size(labels: NDArray[np.int64]) -> int | None:
            key = id(labels)
            if key not in self._known_sizes:
                known = not self._sizes.unbound[labels].any() and self._sizes.is_linear(labels)
                self._known_sizes[key] = self._sizes(labels) if known else None
            size = self._known_sizes[key]
            return None if size is None else size[0] + int(np.dot(size[1], counts))

        return size


#: A slice that takes all of a tensor runs as another operator.
_PARTS = dict.fromkeys(("aten.alias.default", "aten.slice.Tensor"), "part")


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


class _Trial:
    """One cut copy, run again and again with other integers.

    Args:
        small: Its tensors are cut; its integers are those of the dense model.
        inputs: Positional and keyword arguments.
        results: What the dense model's operators made, see :class:`~spaces.candidates.Candidates`.
        size: What each labelled dimension must have.
        structure: Of what the dense model returns.
    """

    def __init__(
        self,
        small: nn.Module,
        inputs: Arguments,
        results: Mapping[str, Results],
        size: Callable[[NDArray[np.int64]], int | None],
        structure: object,
    ) -> None:
        self._small, self._inputs, self._results = small, inputs, results
        self._size, self._structure = size, structure
        self._whereabouts = Whereabouts(small)

    def run(self, values: Mapping[Attribute, int]) -> _Attempt:
        """Run with these integers; those of the dense model are put back."""
        where = self._whereabouts
        where.restart()
        before = {attribute: read_attribute(self._small, attribute) for attribute in values}
        write_attributes(self._small, values)
        try:
            with Watch(where, self._checker()):
                outputs = self._small(*self._inputs[0], **self._inputs[1])
        except Exception as error:  # a foreign forward may raise anything
            what = Failure(
                f"a cut does not run: {first_line(error)}",
                tuple(where.modules),
                line_among(frames_of(error.__traceback__)),
            )
            return _Attempt(what, where.num_operators)
        finally:
            write_attributes(self._small, before)
        if shapes(outputs) == self._structure:
            return _Attempt(None, where.num_operators)
        return _Attempt(Failure("a cut changes the structure of the outputs"), where.num_operators)

    def _checker(self) -> Callable[[str, str, list[int]], None]:
        """Raises where an operator's outputs have other sizes than the labels say.

        A stale integer need not raise: in ``view(batch, heads, -1)`` another dimension takes what is left.
        """
        left = {module: iter(results) for module, results in self._results.items()}

        def check(module: str, operator: str, sizes: list[int]) -> None:
            name, dims = next(left.get(module, iter(())), ("", []))
            if _PARTS.get(name, name) != _PARTS.get(operator, operator) or len(dims) != len(sizes):
                left.pop(module, None)  # the module takes another path
                return
            wanted = [dense if labels is None else self._size(labels) for dense, labels in dims]
            # In any order: ``einsum`` arranges dimensions in another way where one has become 1.
            if Counter(size for size in wanted if size is not None) - Counter(sizes):
                before = tuple(dense for dense, _ in dims)
                raise RuntimeError(f"{operator} made {tuple(sizes)} of {before}, wanted {tuple(wanted)}")

        return check


def shapes(outputs: Any) -> tuple[object, list[torch.Size]]:
    """Structure of what a model returns, and the shape of every tensor in it."""
    tensors, structure = flatten(outputs)
    return structure, [tensor.shape for tensor in tensors]
