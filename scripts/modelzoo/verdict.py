"""What a pair of records says about one model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from modelzoo.entry import Entry
    from modelzoo.records import Records

#: Half widths are rounded differently: ours to the nearest, the peer's upwards or downwards.
HALF_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """One model's records, read."""

    entry: Entry
    ours: dict[str, Any]
    peer: dict[str, Any] | None

    @classmethod
    def of(cls, entry: Entry, records: Records) -> Verdict | None:
        """``None`` where the model was not measured."""
        ours = records.get((entry.label, "ours"))
        return cls(entry, ours, records.get((entry.label, "peer"))) if ours is not None else None

    @property
    def traced(self) -> bool:
        """``trace`` came back with a space."""
        return "groups" in self.ours

    @property
    def error(self) -> str | None:
        """What stopped the measurement, and where."""
        error = self.ours.get("error")
        return f"{self.ours.get('stage', 'start')}: {error}" if error else None

    @property
    def wrong(self) -> tuple[str, ...]:
        """Facts that must not be; a check that did not end is one."""
        found = tuple(self.ours.get("wrong", ()))
        return (*found, self.error) if self.traced and self.error is not None else found

    @property
    def halves(self) -> bool:
        """Can lose more than half of its MACs at the smallest widths."""
        return self.traced and self.ours["smallest"] < 0.5

    @property
    def peer_works(self) -> bool:
        """The peer prunes with its defaults, and the outputs keep their shapes."""
        return self.peer is not None and bool(self.peer.get("keeps_outputs")) and self.peer["half"] < 1

    @property
    def behind(self) -> tuple[str, ...]:
        """Where the peer works and removes more than we do."""
        if not self.peer_works:
            return ()
        assert self.peer is not None
        if not self.traced:
            return ("not traced",)
        found = []
        if self.ours["smallest"] > self.peer.get("smallest", 1.0):
            found.append(f"smallest {self.ours['smallest']:.2%}, peer {self.peer['smallest']:.2%}")
        if self.ours["half"] > self.peer["half"] + HALF_TOLERANCE:
            found.append(f"half widths {self.ours['half']:.1%}, peer {self.peer['half']:.1%}")
        return tuple(found)

    @property
    def peer_says(self) -> str:
        """How the peer did, in a few words."""
        if self.peer is None:
            return ""
        if self.peer.get("keeps_outputs"):
            return "works" if self.peer_works else "prunes nothing"
        if self.peer.get("keeps_outputs") is False:
            return "changes the outputs' shapes"
        return str(self.peer.get("error", "unknown"))
