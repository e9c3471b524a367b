"""The page: one self-contained file that needs no network. All text of the run folder is escaped."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from search.config import DERIVED, option_name
from search.report import words
from search.report.data import training_gaps
from search.report.marks import rung_label
from search.report.plot import plot_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.report.data import Run
    from search.result import Comparison


def render_page(run: Run) -> str:
    """The whole of ``report.html``."""
    result, metric = run.result, words.Metric(run.result.metric)
    environment = Environment(
        loader=PackageLoader("search", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": words.count,
        "duration": words.duration,
        "share": words.share,
        "value": metric.value,
        "signed": metric.signed,
        "summary": metric.summary,
        "criteria": words.criteria_words,
        "tau": words.tau_words,
    }
    return environment.get_template("template.html.j2").render(
        run=run,
        result=result,
        metric=metric,
        dense=result.dense,
        headline=words.headline(result, _headline_split(run)),
        headline_split=_headline_split(run),
        reach=words.reach(result),
        verdicts=[words.verdict(comparison, metric) for comparison in main_comparisons(run)],
        training=[words.training_verdict(gap, metric) for gap in training_gaps(result)],
        correlation=words.correlation_words(result.correlations[0]) if result.correlations else None,
        origins=words.origin_words(result.points),
        methods=_methods(run),
        method_names=words.METHOD_NAMES,
        rung_counts=[(_rung_title(name), number) for name, number in result.counts.items()],
        settings=[(name, _shown(value)) for name, value in sorted(run.config.items())],
        command=repeat_command(run.config),
        pick_command=pick_command,
        plot=plot_json(run),
        plotly=Markup(get_plotlyjs()),
    )


def main_comparisons(run: Run) -> list[Comparison]:
    """For each control the comparison on test, or on holdout where test was not read."""
    chosen: dict[str, Comparison] = {}
    for comparison in run.result.comparisons:
        if comparison.control not in chosen or comparison.split == "test":
            chosen[comparison.control] = comparison
    return list(chosen.values())


def pick_command(run: Run, point: str) -> list[str]:
    """The words of the command that exports a point of this run, quoted for a shell."""
    words_ = ("python", "-m", "search.pick", str(run.folder), "--id", point, "--export", "architecture")
    return [shlex.quote(word) for word in words_]


def repeat_command(config: Mapping[str, object]) -> list[str]:
    """The words of the command that repeats the run: every setting that has a value."""
    arguments = ["python", "-m", "search.run"]
    for name, setting in config.items():
        for value in setting if isinstance(setting, list) else [setting]:
            if name in DERIVED or value is None or value is False or value == "":
                continue
            arguments += (
                [f"--{option_name(name)}"] if value is True else [f"--{option_name(name)}", str(value)]
            )
    return [shlex.quote(word) for word in arguments]


def _methods(run: Run) -> list[str]:
    """Columns of the table, in the order in which people compare them."""
    used = {name for final in run.finals for name in (*final.point.scores, *final.point.test)}
    known = [name for name in words.METHOD_NAMES if name in used]
    return known + sorted(used.difference(known))


def _headline_split(run: Run) -> words.Split:
    point = words.nearest_to_half(run.result)
    return "test" if point and words.saved_summary(point, "test") else "holdout"


def _rung_title(name: str) -> str:
    number = name.removeprefix("rung-")
    return rung_label(int(number)) if number.isdigit() else name


def _shown(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
