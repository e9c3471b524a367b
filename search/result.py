"""What a finished run hands over: the contents of ``front.json`` as frozen values."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

SCHEMA = 1

DEFAULT_OBJECTIVES = ("score", "macs")


@dataclass(frozen=True, slots=True)
class Summary:
    """Mean and standard deviation over training seeds; ``sd`` is ``None`` for a single one."""

    mean: float
    sd: float | None
    n: int


@dataclass(frozen=True, slots=True)
class Point:
    """One candidate at the highest rung of the run.

    Attributes:
        id: The candidate's id; names its folder under ``architectures/``.
        macs: Multiply-adds for a batch of one.
        params: Number of parameters.
        score: Holdout score of ``weights``, mean over seeds; higher is better.
        rung: The run's highest rung.
        weights: Method whose weights are saved, chosen on holdout.
        scores: Holdout score of each method.
        test: Test score of each method.
        saved_test: Test score of the very weights in the folder (one of the seeds), fp32.
        criteria: Criterion of each group that loses units.
        widths: Kept units of each group.
        origin: Who proposed it: ``seed: uniform``, ``sampler: front``, ``control: random`` and so on.
        control_of: For a control, the id of the point that it stands beside, at equal MACs.
        latency_ms: Measured, where latency was an objective; see :class:`evaluators.latency.LatencyMeter`.
    """

    id: str
    macs: int
    params: int
    score: float
    rung: int
    weights: str
    scores: dict[str, Summary]
    test: dict[str, Summary]
    saved_test: float | None
    criteria: dict[str, str]
    widths: dict[str, int]
    origin: str
    control_of: str | None = None
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Dense:
    """The network that came in.

    Attributes:
        score: On holdout, fp32.
        test: On test, fp32.
        macs: Multiply-adds for a batch of one.
        params: Number of parameters.
        widths: Units of each group; what a point's ``widths`` are read against.
        latency_ms: Measured, where latency was an objective.
    """

    score: float
    test: float
    macs: int
    params: int
    widths: dict[str, int] = field(default_factory=dict)
    latency_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Comparison:
    """Search minus control at equal MACs, paired over points: does the search pay?

    Attributes:
        control: ``uniform`` or ``random``.
        split: ``holdout`` or ``test``.
        mean: Mean difference of the score; positive means that the search is better.
        low: Lower end of the 95% interval (Student's t over the pairs); ``None`` for fewer than two pairs.
        high: Upper end.
        n: Number of pairs.
        alike: Those of them in which both are one network: the search found just what the control is, and
            the difference is zero.
    """

    control: str
    split: str
    mean: float
    low: float | None
    high: float | None
    n: int
    alike: int = 0

    @property
    def conclusive(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True, slots=True)
class Correlation:
    """How far two scores put the same candidates in the same order.

    Attributes:
        tau: Kendall's tau-b: 1 for the same order, -1 for the reverse; ``None`` where all scores of one side
            are equal.
        low: Lower end of the 95% interval; ``None`` for fewer than four candidates, or without a tau.
        high: Upper end.
        n: Candidates that have both scores.
    """

    tau: float | None
    low: float | None
    high: float | None
    n: int


@dataclass(frozen=True, slots=True)
class RungCorrelation(Correlation):
    """What the cheaper of two rungs says about the dearer one, over the candidates that reached both.

    Attributes:
        rungs: The cheaper and the dearer rung.
    """

    rungs: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Hypervolume:
    """What the front dominates, costs as shares of dense times score, up to ``reference``."""

    value: float
    reference: dict[str, float]


@dataclass(frozen=True, slots=True)
class Result:
    """What ``front.json`` holds.

    Attributes:
        points: The front: sorted by ``macs``, none dominated in the objectives, all of one rung.
        dominated: Finals that another final beats; shown in the report, not part of the front.
        controls: Uniform and random widths at equal MACs, treated as the points were.
        counts: Evaluations per rung, e.g. ``{"rung-1": 24, "rung-2": 8, "rung-3": 5}``.
        seconds: Wall clock per phase.
        warnings: What a reader must know about the space, the statistics and the criteria.
        correlations: Of each pair of rungs that enough candidates reached; empty in files of older versions.
        objectives: ``score`` and costs: fields of a point. In the file only where they are not the default.
    """

    task: str
    metric: str
    dense: Dense
    points: tuple[Point, ...]
    dominated: tuple[Point, ...]
    controls: tuple[Point, ...]
    hypervolume: Hypervolume
    comparisons: tuple[Comparison, ...]
    counts: dict[str, int]
    seconds: dict[str, float]
    warnings: tuple[str, ...] = field(default=())
    correlations: tuple[RungCorrelation, ...] = field(default=())
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES

    def to_json(self) -> str:
        """JSON text, with ``schema`` first; latencies and objectives only where they are not the default."""
        raw: dict[str, Any] = {"schema": SCHEMA, **asdict(self)}
        for row in (raw["dense"], *raw["points"], *raw["dominated"], *raw["controls"]):
            if row["latency_ms"] is None:
                del row["latency_ms"]
        if self.objectives == DEFAULT_OBJECTIVES:
            del raw["objectives"]
        return json.dumps(raw, indent=1, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Result:
        """Decode at the edge.

        Raises:
            ValueError: If the schema is not the one that this version writes, or a field is missing.
        """
        raw: dict[str, Any] = json.loads(text)
        if raw.pop("schema", None) != SCHEMA:
            raise ValueError(f"front.json: `schema` must be {SCHEMA}.")
        try:
            return cls(
                points=tuple(_point(p) for p in raw.pop("points")),
                dominated=tuple(_point(p) for p in raw.pop("dominated")),
                controls=tuple(_point(p) for p in raw.pop("controls")),
                dense=Dense(**raw.pop("dense")),
                hypervolume=Hypervolume(**raw.pop("hypervolume")),
                comparisons=tuple(Comparison(**c) for c in raw.pop("comparisons")),
                warnings=tuple(raw.pop("warnings")),
                correlations=tuple(_correlation(c) for c in raw.pop("correlations", ())),
                objectives=tuple(raw.pop("objectives", DEFAULT_OBJECTIVES)),
                **raw,
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"front.json: not a front of schema {SCHEMA} ({error}).") from error

    @classmethod
    def load(cls, folder: Path) -> Result:
        """Read ``front.json`` of a run folder."""
        return cls.from_json((folder / "front.json").read_text())


def _point(raw: dict[str, Any]) -> Point:
    for key in ("scores", "test"):
        raw[key] = {method: Summary(**summary) for method, summary in raw[key].items()}
    return Point(**raw)


def _correlation(raw: dict[str, Any]) -> RungCorrelation:
    lower, upper = raw.pop("rungs")
    return RungCorrelation(**raw, rungs=(lower, upper))
