"""What a run starts from, noted in its record, so that it can be reported before there is a front."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.encoding import Encoding
    from search.problem import Problem
    from search.study import Book

_KEY = "start"


@dataclass(frozen=True, slots=True)
class Start:
    """The network that came in, as the search sees it.

    Attributes:
        task: Name of the task.
        metric: Name of the score; higher is better.
        score: Holdout score of the dense network.
        macs: Its multiply-adds for a batch of one.
        params: Its parameters.
        widths: Units of each group.
        warnings: What a reader must know about the space, the statistics and the criteria.
        latency_ms: Of the dense network, where latency is an objective.
    """

    task: str
    metric: str
    score: float
    macs: int
    params: int
    widths: dict[str, int]
    warnings: tuple[str, ...] = ()
    latency_ms: float | None = None


def note_start(book: Book, problem: Problem, encoding: Encoding, warnings: Sequence[str]) -> None:
    """Note it, unless the record says so already."""
    space = encoding.space
    dense = space.dense
    start = Start(
        task=problem.task,
        metric=problem.metric,
        score=problem.dense_score,
        macs=space.macs(dense),
        params=space.params(dense),
        widths=dict(dense.items),
        warnings=tuple(warnings),
        latency_ms=encoding.dense_latency_ms,
    )
    noted = asdict(start) | {"warnings": list(warnings)}
    if book.noted(_KEY) != noted:
        book.note(_KEY, noted)


def noted_start(notes: Mapping[str, Any]) -> Start | None:
    """What a record's notes say; ``None`` before the search began, and for records of older versions.

    Raises:
        ValueError: If the note is not what it should be.
    """
    raw = notes.get(_KEY)
    if raw is None:
        return None
    try:
        return Start(**raw | {"warnings": tuple(raw["warnings"])})
    except (TypeError, KeyError) as error:
        raise ValueError(f"the record's note of the start can not be read ({error})") from error
