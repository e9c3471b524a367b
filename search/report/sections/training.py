"""Fine-tune the inherited weights, or train the architecture from scratch?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report import words
from search.report.data import training_gaps
from search.report.marks import MACS_AXIS
from search.report.section import Axis, Chart, Section, Series, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.report.data import Final, Gap, Run
    from search.report.section import Role
    from search.report.words import Metric
    from search.result import Summary

_ROLES: dict[str, Role] = {"scratch_e": "first", "scratch_b": "second"}

_NOTE = (
    "Zero: as good as fine-tuning; above: training from scratch is better. Bars: standard error of the "
    "difference over training seeds."
)


def training(run: Run) -> Section:
    """The question of Liu et al. (arXiv 1810.05270), over every final architecture, controls too."""
    metric, gaps = run.metric, training_gaps(run.result)
    title = "Fine-tune, or train from scratch?"
    if not gaps:
        unknown = "Not known: this run did not train its networks both ways and read test."
        return Section("training", title, (unknown,))
    found = [_answer(gaps, metric), *(words.training_verdict(gap, metric) for gap in gaps), _seeds(run)]
    return Section("training", title, tuple(found), (_chart(run, gaps, metric),), (_table(run, metric),))


def _answer(gaps: Sequence[Gap], metric: Metric) -> str:
    """In one sentence, which of the three to choose for architectures of this run."""
    for_scratch = [g for g in gaps if g.low is not None and g.low > 0]
    for_finetune = [g for g in gaps if g.high is not None and g.high < 0]
    if for_scratch and not for_finetune:
        best = max(for_scratch, key=lambda gap: gap.mean)
        name = words.METHOD_NAMES[best.method]
        return f"Train from scratch: {name} ends {metric.gap(best.mean, digits=2)} above fine-tuning."
    if for_finetune and not for_scratch:
        least = max(for_finetune, key=lambda gap: gap.mean)
        rest = "" if len(for_finetune) == len(gaps) else f" {words.METHOD_NAMES[least.method]}, at least"
        size = metric.gap(least.mean, digits=2)
        return f"Fine-tune: it ends {size} or more above training from scratch{',' + rest if rest else ''}."
    if for_scratch:
        return (
            "It depends on the compute: one training from scratch beats fine-tuning, the other loses to it."
        )
    return "Not decided: no way of training from scratch differs measurably from fine-tuning."


def _architectures(run: Run) -> list[Final]:
    """Every final once, though a control can be the very network that it stands beside."""
    found: dict[str, Final] = {}
    for final in run.finals:
        found.setdefault(final.point.id, final)
    return list(found.values())


def _seeds(run: Run) -> str:
    """How often each training was repeated."""
    numbers = {s.n for final in _architectures(run) for s in final.point.test.values()}
    least, most = min(numbers), max(numbers)
    times = words.plural(most, "training seed") if least == most else f"{least} to {most} training seeds"
    return (
        "Each architecture, on the front or not and controls included, was trained in every way with "
        f"{times}; its means are paired, and intervals are over architectures (Student's t)."
    )


def _gap(final: Final, method: str) -> tuple[float, float | None] | None:
    """Scratch minus fine-tuned of one architecture, with its standard error where seeds tell one."""
    test = final.point.test
    if not {method, "finetune"} <= set(test):
        return None
    both = (test[method], test["finetune"])
    errors = [_squared_error(summary) for summary in both]
    known = [error for error in errors if error is not None]
    return both[0].mean - both[1].mean, sum(known) ** 0.5 if len(known) == 2 else None


def _squared_error(summary: Summary) -> float | None:
    return None if summary.sd is None else summary.sd**2 / summary.n


def _chart(run: Run, gaps: Sequence[Gap], metric: Metric) -> Chart:
    series = [Series("as good as fine-tuning", "line", (0, 100), (0, 0), "dense")]
    for gap in gaps:
        found = [(final, _gap(final, gap.method)) for final in _architectures(run)]
        pairs = [(final, of) for final, of in found if of is not None]
        name = words.METHOD_NAMES[gap.method]
        series.append(
            Series(
                label=name,
                kind="points",
                x=tuple(100 * final.point.macs / run.result.dense.macs for final, _ in pairs),
                y=tuple(metric.plain(mean) for _, (mean, _) in pairs),
                role=_ROLES[gap.method],
                error=tuple(None if error is None else metric.plain(error) for _, (_, error) in pairs),
                hover=tuple(
                    f"{final.kind} {final.point.id}\n{name}: {metric.signed(mean)}"
                    for final, (mean, _) in pairs
                ),
            )
        )
    return Chart(
        name="scratch-minus-fine-tuned",
        title=f"Training from scratch minus fine-tuning: {metric.title} on test",
        x=Axis(MACS_AXIS),
        y=Axis(metric.gap_axis),
        series=tuple(series),
        note=_NOTE,
        description=" ".join(words.training_verdict(gap, metric) for gap in gaps),
    )


def _table(run: Run, metric: Metric) -> Table:
    rows = []
    for final in _architectures(run):
        point = final.point
        row: dict[str, object] = {
            "id": point.id,
            "part": final.kind,
            "macs": point.macs / run.result.dense.macs,
        }
        for method in ("finetune", *_ROLES):
            if method in point.test:
                row |= {method: point.test[method].mean, "seeds": point.test[method].n}
            if method in _ROLES and (gap := _gap(final, method)):
                row[f"{method}_gap"] = gap[0]
        if len(row) > 3:
            rows.append(row)
    columns = [cells.plain("id"), cells.plain("part"), cells.share("macs", "MACs"), cells.plain("seeds")]
    columns += [
        cells.number(method, words.METHOD_NAMES[method], metric.value) for method in ("finetune", *_ROLES)
    ]
    columns += [
        cells.signed(f"{method}_gap", f"{words.METHOD_NAMES[method]} minus fine-tuned", metric)
        for method in _ROLES
    ]
    return Table(
        "training",
        f"{metric.title} on test of every architecture and way of training",
        tuple(columns),
        tuple(rows),
        "Means over seeds.",
    )
