"""How many evaluations the living nodes hold: it grows and shrinks with the cluster."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import ray

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from search.ray_cluster.resources import Resources

#: Seconds for which what is known of the nodes is believed.
_FRESH = 1.0


@dataclass(frozen=True, slots=True)
class Node:
    """A living node of the cluster.

    Attributes:
        id: Ray's.
        address: IP address.
        resources: ``{"CPU": ..., "GPU": ...}``: all that it has, used or not.
    """

    id: str
    address: str
    resources: Mapping[str, float]


def living_nodes() -> list[Node]:
    """Nodes that Ray believes to be alive."""
    known = ray.nodes()  # type: ignore[no-untyped-call]
    alive = (raw for raw in known if raw["Alive"])
    return [Node(raw["NodeID"], raw["NodeManagerAddress"], raw["Resources"]) for raw in alive]


class Capacity:
    """Decides whether one more evaluation may start.

    Proposals are made when there is room for them and not earlier: one that waited for a node would have
    been made without knowing what ended meanwhile.

    Args:
        resources: Of each rung.
        limit: Evaluations at a time at most, or ``None``.
    """

    def __init__(self, resources: Mapping[int, Resources], limit: int | None) -> None:
        self._resources, self._limit = resources, limit
        self._places: dict[Resources, int] = {}
        self._asked = -_FRESH
        self._told: dict[str, str] = {}
        self.nodes: list[Node] = []

    @property
    def places(self) -> int:
        """Evaluations of the smallest kind at a time."""
        self._refresh()
        most = max(self._places.values(), default=0)
        return most if self._limit is None else min(most, self._limit)

    def changes(self) -> Iterator[str]:
        """A line for each node that left or joined since the last call; the first call has none."""
        self._refresh()
        nodes = {node.id: node.address for node in self.nodes}
        if not nodes:
            return
        before, self._told = self._told, nodes
        if not before:
            return
        now = f"{len(nodes)} nodes, {self.places} evaluations at a time"
        for gone in before.keys() - nodes.keys():
            yield f"node {before[gone]} left: {now}"
        for new in nodes.keys() - before.keys():
            yield f"node {nodes[new]} joined: {now}"

    def has_room(self, running: Iterable[Resources]) -> bool:
        """Whether beside those that run another one of the smallest kind has a place."""
        self._refresh()
        running = list(running)
        if self._limit is not None and len(running) >= self._limit:
            return False
        least = max(self._places.values(), default=0)
        if not least:
            return False
        # Each occupies its share of the cluster. That is exact for one kind; with several, one may wait.
        used = sum(1 / max(self._places[resources], 1) for resources in running)
        return used + 1 / least <= 1 + 1e-9

    def _refresh(self) -> None:
        now = time.monotonic()
        if now - self._asked < _FRESH:
            return
        self._asked = now
        self.nodes = living_nodes()
        nodes: list[Mapping[str, Any]] = [node.resources for node in self.nodes]
        self._places = {kind: kind.places(nodes) for kind in set(self._resources.values())}
