"""Numbers and findings in words: how a report, a figure's title and the command line say them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from search.result import DEFAULT_OBJECTIVES

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from search.report.data import Gap
    from search.result import Comparison, Dense, Point, Result, RungCorrelation, Summary

_COSTS = {"macs": "MACs", "params": "parameters", "latency_ms": "latency"}

Split = Literal["test", "holdout"]

#: What each method is called where people read it.
METHOD_NAMES = {
    "refit": "Re-fit, no training",
    "careful": "Careful re-fit, no training",
    "finetune": "Fine-tuned",
    "scratch_e": "Scratch-E",
    "scratch_b": "Scratch-B",
}

_FRACTIONS = {"top1": "top-1", "top5": "top-5", "accuracy": "accuracy"}
_MINUS = "\N{MINUS SIGN}"
_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


@dataclass(frozen=True, slots=True)
class Metric:
    """How the task's metric is written: fractions as percentages, anything else as it is."""

    name: str

    @property
    def is_fraction(self) -> bool:
        """Whether scores lie in [0, 1] and are read as percentages."""
        return self.name in _FRACTIONS

    @property
    def title(self) -> str:
        """The name that people read, e.g. ``top-1`` for ``top1``."""
        return _FRACTIONS.get(self.name, self.name)

    @property
    def axis(self) -> str:
        """The name with its unit."""
        return f"{self.title} (%)" if self.is_fraction else self.title

    def plain(self, score: float) -> float:
        """The number on an axis: percent for fractions."""
        return 100 * score if self.is_fraction else score

    def value(self, score: float) -> str:
        """A score with its unit, e.g. ``96.93%``."""
        return f"{minus(f'{100 * score:.2f}')}%" if self.is_fraction else significant(score)

    def gap(self, difference: float, *, digits: int = 1) -> str:
        """The size of a difference, without its sign, e.g. ``0.4 points``."""
        if not self.is_fraction:
            return f"{abs(difference):.3g}"
        return f"{abs(100 * difference):.{digits}f} points"

    def signed(self, difference: float) -> str:
        """A difference with its sign and no unit, e.g. ``+0.42``, the minus as a minus."""
        number = 100 * difference if self.is_fraction else difference
        text = f"{number:+.2f}" if self.is_fraction else f"{number:+.3g}"
        return minus(text)

    @property
    def gap_axis(self) -> str:
        """The name of a difference with its unit."""
        return f"{self.title} gap (points)" if self.is_fraction else f"{self.title} gap"

    def interval(self, low: float, high: float) -> str:
        """A 95% interval of a difference, e.g. ``95% interval -0.12 to +0.31``."""
        return f"95% interval {self.signed(low)} to {self.signed(high)}"

    def summary(self, summary: Summary) -> str:
        """Mean and standard deviation over seeds, e.g. ``96.93 ± 0.21%``; the mean alone for one seed."""
        if summary.sd is None:
            return self.value(summary.mean)
        if self.is_fraction:
            return f"{minus(f'{100 * summary.mean:.2f}')} ± {100 * summary.sd:.2f}%"
        return f"{significant(summary.mean)} ± {significant(summary.sd, 2)}"


def minus(number: str) -> str:
    """A written number with the minus that people read; machines read the hyphen."""
    return number.replace("-", _MINUS)


def hyphened(text: str) -> str:
    """What :func:`minus` was made of."""
    return text.replace(_MINUS, "-")


def significant(number: float, digits: int = 4) -> str:
    """A number of any magnitude by its first digits, e.g. ``0.6543``, ``0.0002134``; the minus as a minus."""
    return minus(f"{number:.{digits}g}")


def count(number: float) -> str:
    """A count with an SI prefix and three digits, e.g. ``40.8 M``."""
    for size, prefix in _PREFIXES:
        if number >= size:
            return f"{number / size:.3g} {prefix}"
    return f"{number:.3g}"


def file_size(num_bytes: int) -> str:
    """Bytes with an SI prefix, e.g. ``1.09 MB``."""
    return f"{count(num_bytes)}B" if num_bytes >= 1000 else f"{num_bytes} B"


def share(part: float, whole: float) -> str:
    """A part in percent of the whole, e.g. ``48%``; one decimal below ten percent."""
    percent = 100 * part / whole
    return f"{percent:.0f}%" if percent >= 9.95 else f"{percent:.1f}%"


def plural(number: int, noun: str) -> str:
    """A number with its noun, e.g. ``1 network``, ``3 networks``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def duration(seconds: float) -> str:
    """Wall clock, e.g. ``0.4 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def clock(most_seconds: float) -> tuple[float, str]:
    """Seconds and name of the unit in which an axis of so many seconds is read."""
    for size, name in ((3600.0, "hours"), (60.0, "minutes")):
        if most_seconds >= 2 * size:
            return size, name
    return 1.0, "seconds"


def saved_summary(point: Point, split: Split) -> Summary | None:
    """Score on a split of the method whose weights are saved."""
    return (point.test if split == "test" else point.scores).get(point.weights)


def dense_score(dense: Dense, split: Split) -> float:
    """The dense network's score on a split."""
    return dense.test if split == "test" else dense.score


def nearest_to_half(result: Result) -> Point | None:
    """The point of the front that a headline is about: the one nearest to half the MACs."""
    return min(result.points, key=lambda point: abs(point.macs - result.dense.macs / 2), default=None)


def headline(result: Result, split: Split) -> str:
    """What the front offers, in one sentence about one split."""
    point = nearest_to_half(result)
    if point is None:
        return "No front yet: nothing was finished on the highest rung"
    summary = saved_summary(point, split)
    if summary is None:
        return f"{len(result.points)} networks on the front"
    metric = Metric(result.metric)
    drop = dense_score(result.dense, split) - summary.mean
    removed = share(result.dense.macs - point.macs, result.dense.macs)
    if drop <= 0:
        return f"Removing {removed} of the MACs costs no {metric.title}"
    tiny = metric.is_fraction and drop < 0.0005
    cost = "less than 0.1 points" if tiny else metric.gap(drop)
    return f"Removing {removed} of the MACs costs {cost} of {metric.title}"


def reach(result: Result) -> str | None:
    """How far down in MACs the front stays within one point of the dense network, on holdout."""
    metric = Metric(result.metric)
    if not metric.is_fraction or not result.points:
        return None
    near = [point for point in result.points if point.score >= result.dense.score - 0.01]
    if not near:
        return f"No network of the front comes within one point of the dense one's {metric.title} on holdout."
    least = min(near, key=lambda point: point.macs)
    if result.objectives != DEFAULT_OBJECTIVES:  # between it and dense there may be worse ones then
        macs = share(least.macs, result.dense.macs)
        return f"On holdout a network with {macs} of the MACs is within one point of the dense one."
    return (
        f"On holdout the front stays within one point of the dense network down to "
        f"{share(least.macs, result.dense.macs)} of its MACs."
    )


def searched_for(result: Result) -> str | None:
    """What the front is of, where it is not score and MACs: their plot alone does not show it."""
    if result.objectives == DEFAULT_OBJECTIVES:
        return None
    costs = [_COSTS.get(name, name) for name in result.objectives if name != "score"]
    *first, last = [Metric(result.metric).title, *costs]
    return (
        f"The search was for {', '.join(first)} and {last}: no network of the front is beaten in all of "
        "these at once, though one may have both more MACs and a lower score than another."
    )


def main_comparisons(comparisons: Iterable[Comparison]) -> list[Comparison]:
    """For each control the comparison on test, or on holdout where test was not read."""
    chosen: dict[str, Comparison] = {}
    for comparison in comparisons:
        if comparison.control not in chosen or comparison.split == "test":
            chosen[comparison.control] = comparison
    return list(chosen.values())


def verdict(comparison: Comparison, metric: Metric) -> str:
    """Whether the search beat a control, and by how much; a null result is called one."""
    where = f"{comparison.control} widths at equal MACs"
    pairs = f"{comparison.n} pair" + ("" if comparison.n == 1 else "s")
    if comparison.alike:
        pairs += f", {comparison.alike} of a network with itself"
    if comparison.n == 0:
        return f"Not known: no network was compared with {where}."
    if comparison.low is None or comparison.high is None:
        return (
            f"Not known: against {where} the difference is {metric.signed(comparison.mean)} on "
            f"{comparison.split}, from {pairs}, too few for an interval."
        )
    interval = metric.interval(comparison.low, comparison.high)
    if comparison.conclusive:
        answer, word = ("Yes", "better") if comparison.mean > 0 else ("No", "worse")
        return (
            f"{answer}: the search is {metric.gap(comparison.mean, digits=2)} {word} than {where} on "
            f"{comparison.split} ({interval}, {pairs})."
        )
    return (
        f"No, a null result: against {where} the difference is {metric.signed(comparison.mean)} on "
        f"{comparison.split}, and the {interval} ({pairs}) contains zero."
    )


def training_verdict(gap: Gap, metric: Metric) -> str:
    """Whether fine-tuning beat one kind of scratch training, and by how much."""
    name = METHOD_NAMES[gap.method]
    networks = f"{gap.n} network" + ("" if gap.n == 1 else "s")
    if gap.low is None or gap.high is None:
        difference = f"{name} minus fine-tuned: {metric.signed(gap.mean)} on test"
        return f"{difference}, from {networks}, too few for an interval."
    interval = metric.interval(gap.low, gap.high)
    size = metric.gap(gap.mean, digits=2)
    if gap.high < 0:
        return (
            f"Fine-tuning beats {name} by {size} on test ({name} minus fine-tuned: {interval}, {networks})."
        )
    if gap.low > 0:
        return f"{name} beats fine-tuning by {size} on test ({interval}, {networks})."
    return (
        f"No measurable difference between {name} and fine-tuning: {metric.signed(gap.mean)} on test, "
        f"and the {interval} ({networks}) contains zero."
    )


def correlation_words(found: RungCorrelation) -> str:
    """Whether the cheaper of two rungs told candidates apart as the dearer one did."""
    lower, upper = found.rungs
    among = f"among the {found.n} candidates that both scored"
    if found.tau is None:
        return f"Rungs {lower} and {upper} can not be compared: {among}, all scores of one rung are equal."
    tau = f"Kendall's tau {tau_words(found.tau)}"
    if found.low is None or found.high is None:
        return f"Rungs {lower} and {upper}: {tau} {among}, too few for an interval."
    interval = f"95% interval {tau_words(found.low)} to {tau_words(found.high)}"
    if found.low <= 0 <= found.high:
        return (
            f"Not shown that rung {lower} ranks as rung {upper} does: {among}, the {interval} of {tau} "
            "contains zero."
        )
    pairs = f"about {50 * (1 + found.tau):.0f} of 100 pairs {among}"
    if found.tau < 0:
        agreed = f"it agreed with rung {upper} on the order of only {pairs}"
        return f"Rung {lower} misled: {agreed}: {tau} ({interval})."
    return f"Rung {lower} agreed with rung {upper} on the order of {pairs}: {tau} ({interval})."


def tau_words(number: float | None) -> str:
    """A rank correlation with two digits, the minus as a minus."""
    return "none" if number is None else minus(f"{round(number, 2) + 0:.2f}")


def origin_words(points: Sequence[Point]) -> str:
    """How many points each seed and sampler found, most first: ``2 seed: uniform, 1 sampler: front``."""
    counts = Counter(point.origin for point in points)
    return ", ".join(f"{n} {origin}" for origin, n in sorted(counts.items(), key=lambda of: (-of[1], of[0])))


def criteria_words(criteria: Mapping[str, str], most: int = 4) -> str:
    """How many groups each criterion cuts, most first, the rarest summed up."""
    counts = Counter(criteria.values())
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    if len(ranked) < 2:
        return "".join(ranked) or "none: nothing was removed"
    first, *others = ranked[:most]
    groups = "group" if counts[first] == 1 else "groups"
    named = f"{first} in {counts[first]} {groups}" + "".join(f", {name} in {counts[name]}" for name in others)
    return f"{named} and {len(ranked) - most} more" if len(ranked) > most else named
