"""Did the cheap scores rank the candidates as dearer rungs do?"""

from __future__ import annotations

from collections import defaultdict
from statistics import fmean
from typing import TYPE_CHECKING

from search.correlation import METHOD_OF
from search.report import words
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.report.data import Run
    from search.report.section import Role
    from search.report.words import Metric
    from search.result import RungCorrelation

_TITLE = "Did the cheap scores rank the candidates rightly?"

_ROLES: dict[int, Role] = {2: "rung-2", 3: "front"}

_EXPLAINED = (
    "Kendall's tau compares candidates pair by pair: 1 when both rungs put every pair in the same order, 0 "
    "when the cheaper one might as well toss a coin, \N{MINUS SIGN}1 when it has every pair the wrong way "
    "round. Only candidates that climbed have both scores. They climbed because the cheaper rung liked them "
    "at their MACs, so they differ less than all that was proposed, which lowers tau; they differ in MACs "
    "too, which both rungs reward, and this raises it."
)


def rungs(run: Run) -> Section:
    """The pair that matters first: rung 1 against the highest that shares candidates with it."""
    found = sorted(run.result.correlations, key=lambda c: (c.rungs[0], -c.rungs[1]))
    if not found:
        return Section("rungs", _TITLE, ("Not known: fewer than three candidates were scored on two rungs.",))
    metric, scores = run.metric, _scores(run)
    charts = tuple(chart for c in found if (chart := _chart(c, scores, metric)) is not None)
    return Section(
        "rungs", _TITLE, (*map(words.correlation_words, found), _EXPLAINED), charts, (_table(found),)
    )


def _scores(run: Run) -> dict[int, dict[str, float]]:
    """Score of each candidate on each rung by the method that rungs are compared by, mean over seeds."""
    seeds: dict[tuple[int, str], list[float]] = defaultdict(list)
    for record in run.history.records:
        evaluation = record.evaluation
        if evaluation.method == METHOD_OF.get(evaluation.rung):
            seeds[evaluation.rung, evaluation.candidate].append(evaluation.score)
    found: dict[int, dict[str, float]] = defaultdict(dict)
    for (rung, candidate), values in seeds.items():
        found[rung][candidate] = fmean(values)
    return found


def _chart(found: RungCorrelation, scores: dict[int, dict[str, float]], metric: Metric) -> Chart | None:
    lower, upper = found.rungs
    shared = sorted(scores[lower].keys() & scores[upper].keys())
    if not shared:
        return None
    x = [metric.plain(scores[lower][name]) for name in shared]
    y = [metric.plain(scores[upper][name]) for name in shared]
    hover = tuple(
        f"{name}\nrung {lower}: {metric.value(scores[lower][name])}\n"
        f"rung {upper}: {metric.value(scores[upper][name])}"
        for name in shared
    )
    return Chart(
        name=f"rung-{lower}-against-rung-{upper}",
        title=f"Score on rung {lower} against score on rung {upper}",
        x=Axis(f"Rung {lower}, holdout {metric.axis}"),
        y=Axis(f"Rung {upper}, holdout {metric.axis}"),
        series=(Series("candidate", "points", tuple(x), tuple(y), _ROLES[upper], hover=hover),),
        note=_method_note(found),
        description=words.correlation_words(found),
    )


def _method_note(found: RungCorrelation) -> str:
    names = {1: "re-fitted, not trained", 2: "fine-tuned briefly", 3: "fine-tuned to the end"}
    parts = [f"Rung {rung}: {names[rung]}." for rung in found.rungs if rung in names]
    return " ".join([*parts, "Means over training seeds."])


def _table(found: Sequence[RungCorrelation]) -> Table:
    columns = (
        cells.plain("rungs"),
        cells.two_digits("tau", "Kendall's tau-b"),
        cells.two_digits("low", "95% from"),
        cells.two_digits("high", "to"),
        cells.plain("n", "candidates"),
    )
    rows = tuple(
        {"rungs": f"{c.rungs[0]} and {c.rungs[1]}", "tau": c.tau, "low": c.low, "high": c.high, "n": c.n}
        for c in found
    )
    return Table("rung-correlations", "Every pair of rungs", columns, rows)
