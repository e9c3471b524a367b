"""``python -m search.inspect --model NAME``: what may be pruned in a model, and what not, and why."""

from __future__ import annotations

import contextlib
import json
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console

from evaluators.options import OptionError
from search.command import FilledPath, run_command
from search.inspect.busy import busy
from search.inspect.document import document
from search.inspect.inspection import Inspection, inspect_space
from search.inspect.picture import check_picture, write_picture
from search.inspect.subject import find_subject
from search.inspect.table import print_inspection
from search.space_options import check_patterns, space_options, trace_arguments
from spaces.trace import trace

if TYPE_CHECKING:
    from search.inspect.subject import Subject

#: Columns of the tables where the output is no terminal.
_PLAIN_WIDTH = 140

_EXAMPLES = """\b
Examples:
  python -m search.inspect --model torchvision:resnet50
  python -m search.inspect --model timm:vit_tiny_patch16_224 --picture v.svg
  python -m search.inspect --model mine.py:network --input 1x16:int64
  python -m search.inspect --task digits --json
"""


@click.command(context_settings={"max_content_width": 110}, epilog=_EXAMPLES)
@click.option(
    "--model",
    metavar="NAME",
    help="resnet20 and other built-in networks, torchvision:NAME, timm:NAME, or path/to/file.py:function, "
    "which returns a module or a module and its example inputs. With --task: network of the task.",
)
@click.option(
    "--weights", type=FilledPath(), metavar="FILE", help="Weights of the network; random by default."
)
@click.option(
    "--input",
    "inputs",
    metavar="SHAPES",
    help="What the network takes: 1x3x224x224, or 1x3x32x32,1x16:int64; what it was made for by default.",
)
@click.option(
    "--task", metavar="NAME", help="Inspect the network of a task: digits, cifar10, path/to/file.py:function."
)
@click.option(
    "--data-root", type=FilledPath(), metavar="DIR", help="Where the task's data lies; data by default."
)
@space_options
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
@click.option(
    "--picture",
    type=FilledPath(),
    metavar="FILE",
    help="Draw the network, groups coloured: .svg, .png, .html.",
)
def inspect(
    as_json: bool,
    picture: str | None,
    model: str | None,
    weights: str | None,
    inputs: str | None,
    task: str | None,
    data_root: str | None,
    **narrowing: Any,
) -> None:
    """Show the space of a model before any search.

    Groups of units that go together, what they cost, what stays whole and why, and how small the network can
    get. Nothing is trained and nothing is downloaded, except the data of a task.
    """
    path = None if picture is None else Path(picture)
    if path is not None:
        check_picture(path)
    settings = _settings(narrowing, divisor=1)
    # What foreign code prints must not end up in the document.
    with contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
        with busy("loading"):
            subject = find_subject(
                model=model, weights=weights, inputs=inputs, task=task, data_root=data_root
            )
        settings = _settings(narrowing, divisor=subject.divisor)
        with busy(f"tracing {subject.name}"):
            found = _inspected(subject, settings)
    if path is not None:
        with busy("drawing"):
            write_picture(path, found)
    if as_json:
        click.echo(json.dumps(document(found), indent=1))
        return
    print_inspection(Console(width=None if sys.stdout.isatty() else _PLAIN_WIDTH), found)
    if path is not None:
        click.echo(f"picture: {path}")


def _settings(narrowing: dict[str, Any], *, divisor: int) -> dict[str, Any]:
    given = narrowing["divisor"]
    return trace_arguments(**narrowing | {"divisor": divisor if given is None else given})


def _inspected(subject: Subject, settings: dict[str, Any]) -> Inspection:
    model, inputs = subject.model, subject.example_inputs
    start = time.monotonic()
    with warnings.catch_warnings():
        # A trace runs the model many times, and each time the model's own warnings would come again.
        warnings.simplefilter("ignore")
        try:
            space = trace(model, inputs, **settings)
        except ValueError as error:
            raise OptionError(subject.option, subject.name, str(error)) from error
        seconds = time.monotonic() - start
        check_patterns(settings, model, space)
        return inspect_space(subject.name, model, inputs, space, seconds=seconds, settings=settings)


if __name__ == "__main__":
    sys.exit(run_command(inspect, "search.inspect"))
