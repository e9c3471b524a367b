"""What to read differently when cuts fail: other parts of split dimensions, and sizes that code equates.

Operators do not tell whether the heads of attention or the width of every head may shrink, and they do not
show that ``out.reshape(batch, positions, width)`` takes ``width`` from another tensor's shape. So a trace
starts with what is likely, and reads again with other choices where cuts fail.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import numpy as np
    from numpy.typing import NDArray

    from spaces.candidates import Candidates
    from spaces.groups import ChannelGroup
    from spaces.slots import SiteKey, Slots

#: Labels of two dimensions that must have the same size.
Tie = tuple["NDArray[np.int64]", "NDArray[np.int64]"]

_VIEWS = ("aten.view", "aten._unsafe_view", "aten.reshape", "aten._reshape_alias")


@dataclass(frozen=True, slots=True)
class Choices:
    """The choices that a trace makes.

    Attributes:
        parts: For splits, the part that may shrink, counted from the end.
        ties: Dimensions that Python code makes equal, by the class of the module whose code it is.
        revised: Why each split was read differently.
        tied: How often the code of a class was looked at.
    """

    parts: Mapping[SiteKey, int] = field(default_factory=dict)
    ties: Mapping[type, tuple[Tie, ...]] = field(default_factory=dict)
    revised: Mapping[SiteKey, str] = field(default_factory=dict)
    tied: Mapping[type, int] = field(default_factory=dict)

    @property
    def all_ties(self) -> list[Tie]:
        """Every tie of any class."""
        return [tie for ties in self.ties.values() for tie in ties]

    def wiser(self, slots: Slots) -> Choices | None:
        """Other parts for splits that turned out badly: each tried once, and back where that is no better."""
        unwise = dict(slots.unwise_splits())
        fresh = {key: why for key, why in unwise.items() if key not in self.revised}
        if "multiplied" in fresh.values():
            # What these froze may come free.
            fresh = {key: why for key, why in fresh.items() if why == "multiplied"}
        if not fresh:
            back = {key for key, why in unwise.items() if why == "frozen" and self.revised[key] != "back"}
            fresh = dict.fromkeys(sorted(back, key=str), "back")
        return self._with_parts(slots, fresh) if fresh else None

    def without(self, slots: Slots, refused: Iterable[ChannelGroup]) -> Choices | None:
        """Other parts for splits that shape groups whose cuts fail; each tried once."""
        roots = slots.roots()
        starts = {(owner.tensor, owner.dim): owner.start for owner in slots.owners}
        failed = {
            int(root)
            for group in refused
            for member in group.members
            for root in roots[starts[member.tensor, member.dim] + member.slots.ravel()]
        }
        fresh = {
            key: "refused"
            for key, site in slots.sites.items()
            if self.revised.get(key, "multiplied") == "multiplied"
            and not failed.isdisjoint(roots[site.kept].tolist())
        }
        return self._with_parts(slots, fresh) if fresh else None

    def equating(self, slots: Slots, candidates: Candidates, module: str) -> Choices | None:
        """Tie what a module that fails reads to views that it makes of the same size.

        First to the last of them, then to all; where neither was of help, the ties are taken back.
        """
        kind = candidates.kinds[module]
        tried = self.tied.get(kind, 0)
        if tried > 1:
            if kind not in self.ties:
                return None
            return replace(self, ties={other: ties for other, ties in self.ties.items() if other is not kind})
        roots = slots.roots()
        fresh = tuple(
            (mine, some)
            for name, other in candidates.kinds.items()
            if other is kind
            for mine in candidates.entered.get(name, ())
            for some in [
                some
                for some in _viewed(candidates, name)
                if len(some) == len(mine) and (roots[some] != roots[mine]).any()
            ][0 if tried else -1 :]
        )
        tied = {**self.tied, kind: tried + 1}
        if not fresh:
            return replace(self, tied=tied).equating(slots, candidates, module)
        return replace(self, ties={**self.ties, kind: (*self.ties.get(kind, ()), *fresh)}, tied=tied)

    def _with_parts(self, slots: Slots, fresh: Mapping[SiteKey, str]) -> Choices:
        parts = {key: -2 if slots.sites[key].dim == -1 else -1 for key in fresh}
        return replace(self, parts={**self.parts, **parts}, revised={**self.revised, **fresh})


def _viewed(candidates: Candidates, module: str) -> list[NDArray[np.int64]]:
    """Labels of dimensions that the views in a module's own code make."""
    found: dict[bytes, NDArray[np.int64]] = {}
    for operator, dims in candidates.results.get(module, ()):
        if operator.startswith(_VIEWS):
            for _, labels in dims:
                if labels is not None and labels.any():
                    found[labels.tobytes()] = labels
    return list(found.values())
