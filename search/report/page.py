"""The page: one self-contained file that needs no network. All text of the run folder is escaped."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.config import repeat_arguments
from search.report import words
from search.report.cards import make_cards
from search.report.data import training_gaps
from search.report.figures import SHOWN_ROWS, chart_json, table_json
from search.report.names import label, plain
from search.report.plot import front_json
from search.report.sections import sections

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from search.report.data import Run
    from search.report.section import Section

_WEB = Path(__file__).with_name("web")
_SCRIPTS = ("elements.js", "theme.js", "files.js", "charts.js", "front_plot.js", "front.js", "start.js")
#: The parts of plotly.js that draw points, lines and bars, as plotly.js-basic-dist-min 4.1.1 has them; MIT.
_PLOTLY = "plotly-basic.min.js"
_STYLES = ("base.css", "front.css", "sections.css")

#: Parts that a final plays, as people read them.
_KINDS = {
    "front": "front",
    "dominated": "dominated",
    "uniform": "uniform control",
    "random": "random control",
}

#: How verdicts begin, and what stands out of them.
_ANSWERS = {"Yes": "Yes", "No": "No", "No, a null result": "Null result", "Not known": "Not known"}


def render_page(run: Run, contents: Sequence[Section] | None = None) -> str:
    """The whole of ``report.html``.

    Args:
        run: What it is about.
        contents: The run's :func:`search.report.sections.sections`, where they are known already.

    Raises:
        ValueError: If ``peers.json`` is not what it should be.
    """
    result = replace(run.result, task=label(run.result.task, 80), metric=label(run.result.metric))
    metric = words.Metric(result.metric)
    cards = make_cards(run)
    contents = sections(run) if contents is None else contents
    split, verdicts = _headline_split(run), _verdicts(run, metric)
    front = front_json(run, cards)
    data = {
        "front": front,
        "charts": [chart_json(chart) for section in contents for chart in section.charts],
        "tables": [table_json(table) for section in contents for table in section.tables],
    }
    return (
        _environment(metric)
        .get_template("page.html.j2")
        .render(
            run=run,
            result=result,
            metric=metric,
            metric_title=label(metric.title),
            dense=result.dense,
            cards=cards,
            front=front,
            sections=contents,
            headline=words.headline(result, split),
            headline_split=split,
            reach=words.reach(result),
            searched_for=words.searched_for(result),
            verdicts=verdicts,
            questions=[question for question, _ in verdicts],
            linked={section.title: section.id for section in contents},
            methods=_methods(run),
            method_names=words.METHOD_NAMES,
            kinds=_KINDS,
            description=_description(run, metric),
            command=repeat_command(run.config),
            data=_script_data(data),
            styles=_joined(_STYLES),
            scripts=_joined(_SCRIPTS),
            plotly=_joined((_PLOTLY,)),
            shown_rows=SHOWN_ROWS,
        )
    )


def _environment(metric: words.Metric) -> Environment:
    environment = Environment(
        loader=PackageLoader("search", "report/web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_finalize,
    )
    environment.filters |= {
        "count": words.count,
        "share": words.share,
        "value": metric.value,
        "signed": metric.signed,
        "significant": words.significant,
        "summary": metric.summary,
        "criteria": words.criteria_words,
        "label": label,
        "raw": _raw,
        "bytes": words.file_size,
    }
    return environment


def _finalize(value: object) -> object:
    """What a template writes: text of the run folder without letters that steer it."""
    return plain(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _raw(value: object) -> str:
    """A number with all its digits, as ``front.json`` has it."""
    return json.dumps(value, allow_nan=False)


def _joined(names: tuple[str, ...]) -> Markup:
    return Markup("\n").join(Markup((_WEB / name).read_text(encoding="utf-8")) for name in names)


def _script_data(data: Mapping[str, Any]) -> Markup:
    """JSON that no HTML parser takes for the end of its script element."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))


def _verdicts(run: Run, metric: words.Metric) -> list[tuple[str, list[tuple[str, str]]]]:
    """The questions that everybody asks, and their answers: what stands out, and the rest."""
    result = run.result
    training = [words.training_verdict(gap, metric) for gap in training_gaps(result)]
    search = [words.verdict(comparison, metric) for comparison in words.main_comparisons(result.comparisons)]
    ranking = [words.correlation_words(found) for found in result.correlations[:1]]
    questions = [
        (
            "Fine-tune, or train from scratch?",
            training or ["Not known: this run did not train its networks both ways."],
        ),
        (
            "Did the search beat uniform and random widths?",
            search or ["Not known: this run trained no controls at equal MACs."],
        ),
        (
            "Did the cheap scores rank the candidates rightly?",
            ranking or ["Not known: fewer than three candidates were scored on two rungs."],
        ),
    ]
    return [(question, [_answer(text) for text in texts]) for question, texts in questions]


def _answer(text: str) -> tuple[str, str]:
    """The word with which a verdict begins, where it begins with one, and the sentence after it."""
    first, colon, rest = text.partition(": ")
    if not colon or first not in _ANSWERS:
        return "", text
    return _ANSWERS[first], rest[:1].upper() + rest[1:]


def _description(run: Run, metric: words.Metric) -> str:
    """The plot of the front in words, for those who can not see it."""
    points, dense = run.result.points, run.result.dense
    if not points:
        return f"The dense network scores {metric.value(dense.score)} on holdout; there is no front yet."
    ends = [
        f"{metric.value(point.score)} at {words.share(point.macs, dense.macs)} of its MACs"
        for point in (points[0], points[-1])
    ]
    return (
        f"Scores against sizes. The dense network scores {metric.value(dense.score)} on holdout. "
        f"The front has {len(points)} networks, from {ends[0]} to {ends[1]}. "
        "The table of all networks has the numbers and chooses points, too."
    )


def repeat_command(config: Mapping[str, object]) -> str:
    """The command that repeats the run: every setting that has a value, quoted for a shell."""
    arguments = [word for words_ in repeat_arguments(config) for word in words_]
    return shlex.join(["python", "-m", "search.run", *arguments])


def _methods(run: Run) -> list[str]:
    """Columns of the table, in the order in which people compare them."""
    used = {name for final in run.finals for name in (*final.point.scores, *final.point.test)}
    known = [name for name in words.METHOD_NAMES if name in used]
    return known + sorted(used.difference(known))


def _headline_split(run: Run) -> words.Split:
    point = words.nearest_to_half(run.result)
    return "test" if point and words.saved_summary(point, "test") else "holdout"
