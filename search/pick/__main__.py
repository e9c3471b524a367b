"""``python -m search.pick RUN``: the best network of a front within limits, to look at or to take away."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evaluators.export.formats import FORMATS, LOAD, WEIGHTS, chosen_formats
from evaluators.export.plain import LOADER
from evaluators.export.process import ExportError
from evaluators.options import OptionError
from search.command import FilledPath, run_command
from search.pick.choose import Limits, find_point, pick_point
from search.pick.columns import columns
from search.pick.describe import describe_point, next_steps, printable, snippet
from search.pick.take import check_saved, check_target, open_source, take
from search.report.data import load_config, load_result
from search.report.words import Metric, file_size

if TYPE_CHECKING:
    from evaluators.export.verify import Verdict
    from search.pick.columns import Columns
    from search.pick.take import Source, Taken
    from search.result import Point, Result

#: Columns with scores on test.
_TEST = ("test_", "saved_test")

_EXAMPLES = """\b
Examples:
  python -m search.pick runs/digits --max-macs 50%
  python -m search.pick runs/digits --min-score 95% --export onnx --to small
  python -m search.pick runs/digits --where "params<=40%" --best latency_ms
  python -m search.pick runs/digits --id 8f02ed7e9c --export pt2,int8
"""


@click.command(context_settings={"max_content_width": 110}, epilog=_EXAMPLES)
@click.argument("run", type=FilledPath(path_type=Path))
@click.option("--max-macs", metavar="LIMIT", help="Most multiply-adds: 50% of the dense network's, or 30M.")
@click.option("--max-params", metavar="LIMIT", help="Most parameters: 40% of the dense network's, or 1M.")
@click.option("--max-latency-ms", metavar="LIMIT", help="Most measured milliseconds: 3, or 50% of dense.")
@click.option("--max-size", metavar="SIZE", help="Largest file of weights: 1MB.")
@click.option(
    "--min-score",
    metavar="SCORE",
    help="Least holdout score, in the run's own metric (93%, 0.93); fewest MACs win then.",
)
@click.option("--min-top1", metavar="SCORE", help="The same where the metric is top-1.")
@click.option(
    "--where",
    multiple=True,
    metavar="CONDITION",
    help='COLUMN<=VALUE of front.csv or a latency, e.g. "width:conv1>=5"; may be given again.',
)
@click.option(
    "--best", metavar="COLUMN", help="Within the limits, the best by this column; costs the lowest."
)
@click.option(
    "--knee", is_flag=True, help="Within the limits, the point farthest above the line between the ends."
)
@click.option("--id", "ids", multiple=True, metavar="ID", help="This very network; may be given again.")
@click.option(
    "--export",
    "formats",
    multiple=True,
    metavar="FORMATS",
    help=f"Take it away as {', '.join(FORMATS)}; each file is checked in a new process.",
)
@click.option("--to", type=FilledPath(path_type=Path), help="New folder for --export; RUN-ID by default.")
@click.option(
    "--data-root", type=FilledPath(path_type=Path), help="Where the data is, if not where the run had it."
)
def pick(
    run: Path,
    max_macs: str | None,
    max_params: str | None,
    max_latency_ms: str | None,
    max_size: str | None,
    min_score: str | None,
    min_top1: str | None,
    where: tuple[str, ...],
    best: str | None,
    knee: bool,
    ids: tuple[str, ...],
    formats: tuple[str, ...],
    to: Path | None,
    data_root: Path | None,
) -> int:
    """Pick from the front of the run folder RUN: the highest holdout score within the limits.

    --export loads the run's task, so its Python file runs; without it nothing of the folder does.
    """
    names = chosen_formats(formats)
    for option, value in (("to", to), ("data-root", data_root)):
        if value is not None and not names:
            raise OptionError(option, value, "needs --export architecture or another format beside it.")
    if knee and best is not None:
        raise OptionError("best", repr(best), "takes no --knee beside it.")
    try:
        result, config = load_result(run), load_config(run)
        known = columns(result, run)
    except ValueError as error:
        raise click.UsageError(f"{run}: {error}") from error
    limits = Limits(max_macs, max_params, min_score, max_latency_ms, max_size, where, best, knee)
    points = _points(known, _with_top1(limits, min_top1, result), ids, run)
    if any(text.startswith(_TEST) for text in (*where, best or "")):
        click.echo("warning: chosen on test, so the test score of what is chosen is flattered.", err=True)
    if not names:
        click.echo("\n\n".join(_shown(known, point, run, config) for point in points))
        return 0
    for point in points:
        check_saved(run, point)
    targets = {point.id: _target(run, point, to, several=len(points) > 1) for point in points}
    for target in targets.values():
        check_target(target)
    _say("loading the task and its data")
    source = open_source(run, known, config, data_root)
    for point in points:
        try:
            taken = take(source, point, names, targets[point.id], _say)
        except ExportError as error:
            nothing = "nothing was written" if len(points) == 1 else f"nothing was written of {point.id}"
            click.echo(printable(f"search.pick: --export {error}; {nothing}."), err=True)
            return 1
        _tell(source, point, taken)
    return 0


def _with_top1(limits: Limits, min_top1: str | None, result: Result) -> Limits:
    """The limits with a least score by its older name."""
    if min_top1 is None:
        return limits
    if result.metric != "top1":
        raise OptionError("min-top1", min_top1, f"this run's metric is {result.metric}; use --min-score.")
    if limits.min_score is not None:
        raise OptionError("min-top1", min_top1, "is the same as --min-score; give one of them.")
    return replace(limits, min_score=min_top1, min_score_option="min-top1")


def _points(known: Columns, limits: Limits, ids: tuple[str, ...], run: Path) -> list[Point]:
    if ids:
        if limits != Limits():
            raise OptionError("id", ids[0], "takes no limits beside it.")
        return [find_point(known.result, id_) for id_ in dict.fromkeys(ids)]
    if not known.result.points:
        raise click.UsageError(f"{run}: its front is empty, so there is nothing to pick.")
    return [pick_point(known.result, limits, known)]


def _target(run: Path, point: Point, to: Path | None, *, several: bool) -> Path:
    if to is not None:
        return to / point.id if several else to
    run = run if run.name else run.resolve()
    return run.with_name(f"{run.name}-{point.id}")


def _shown(known: Columns, point: Point, run: Path, config: dict[str, object]) -> str:
    """A point that stays where it is."""
    folder = run / "architectures" / point.id
    parts = [describe_point(known, point, folder)]
    if (folder / "architecture.json").is_file():
        parts += [snippet(config, folder), next_steps(run, point)]
    return "\n\n".join(parts)


def _tell(source: Source, point: Point, taken: Taken) -> None:
    """What was written, how far it was found to be the network, and how it is loaded."""
    metric = Metric(source.known.result.metric)
    for name, verdict in taken.verdicts.items():
        path = taken.folder / name
        told = f"outputs {_difference(verdict)}" if verdict.holdout is None else "8 bits"
        size = file_size(path.stat().st_size)
        _say(f"checked {name}: {size}, {told}, {metric.value(verdict.test)} on test")
        if verdict.holdout is not None and verdict.holdout_before is not None:
            cost = metric.signed(verdict.holdout - verdict.holdout_before)
            _say(f"8 bits change {metric.title} by {cost} on holdout, now {metric.value(verdict.holdout)}")
    names = sorted(path.name for path in taken.folder.iterdir())
    if WEIGHTS in names:
        click.echo(printable(f"wrote architecture.json and weights.safetensors to {taken.folder}"))
    others = [name for name in names if name not in ("architecture.json", WEIGHTS)]
    click.echo(printable(f"wrote {', '.join(others)} to {taken.folder}\n"))
    click.echo(describe_point(source.known, point, taken.folder))
    if LOAD in names:
        use = f"from load import load\n{source.dense_code}\nmodel = load(dense)"
        click.echo(
            printable(f"\n# {taken.folder / LOAD}, plain PyTorch:\n{LOADER}\n# In that folder:\n{use}")
        )
    elif WEIGHTS in names:
        use = f"from spaces import rebuild\nmodel = rebuild(dense, {str(taken.folder)!r})"
        click.echo(printable(f"\n{source.dense_code}\n{use}"))


def _difference(verdict: Verdict) -> str:
    return f"within {verdict.difference:.1g} of {verdict.scale:.2g}" if verdict.difference else "equal"


def _say(line: str) -> None:
    click.echo(printable(line), err=True)


if __name__ == "__main__":
    sys.exit(run_command(pick, "search.pick"))
