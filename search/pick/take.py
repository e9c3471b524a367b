"""Takes networks of a run away: each into a new folder, which appears verified and whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from evaluators.export.formats import ARCHITECTURE, WEIGHTS, Network, write_formats
from evaluators.export.verify import verify
from evaluators.options import OptionError
from evaluators.precision import at_rest
from evaluators.task import SealedLoader
from evaluators.tasks import TaskOptions, load_task
from evaluators.tasks.dense import dense_code
from search.pick.card import Card, write_card
from spaces import rebuild

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from evaluators.export.verify import Verdict
    from evaluators.task import Task
    from search.pick.columns import Columns
    from search.result import Point


@dataclass(frozen=True, eq=False)
class Source:
    """Where networks come from.

    Attributes:
        run: The run folder.
        known: Its front and what was measured of it.
        config: Its settings.
        task: Loaded from them; its test split may be read.
        dense_code: Lines of Python that make ``dense``, the network before it was pruned.
    """

    run: Path
    known: Columns
    config: Mapping[str, object]
    task: Task
    dense_code: str


@dataclass(frozen=True, slots=True)
class Taken:
    """A network in its new folder.

    Attributes:
        folder: The folder.
        verdicts: By file, what its check found.
    """

    folder: Path
    verdicts: dict[str, Verdict]


def open_source(run: Path, known: Columns, config: Mapping[str, object], data_root: Path | None) -> Source:
    """Load the task of a run as the run did.

    Args:
        run: The run folder.
        known: Its front.
        config: Its settings.
        data_root: Where the data is now, if not where it was.

    Raises:
        OptionError: If the task can not be loaded, for example because its data is elsewhere.
        click.UsageError: If the settings do not name a task.
    """
    name, model, holdout = (config.get(key) for key in ("task", "model", "holdout"))
    if not isinstance(name, str):
        raise click.UsageError(f"{run}: its config.json names no task, so that nothing can be checked.")
    options = TaskOptions(
        model=None if model is None else str(model),
        data_root=data_root or Path(str(config.get("data_root", "data"))),
        holdout=None if holdout is None else str(holdout),
        seed=int(str(config.get("seed", 0))),
    )
    task = load_task(name, options)
    if isinstance(task.test, SealedLoader):
        task.test.unseal()
    return Source(run, known, config, task, dense_code(name, options.model, task))


def check_target(target: Path) -> None:
    """A folder that is to be made.

    Raises:
        OptionError: If there is something already.
    """
    if target.exists() or target.is_symlink():
        raise OptionError("to", target, "is there already; name a new folder.")


def check_saved(run: Path, point: Point) -> Path:
    """The folder of a network whose files the run has.

    Raises:
        click.UsageError: If it has none.
    """
    folder = run / "architectures" / point.id
    for name in (ARCHITECTURE, WEIGHTS):
        if not (folder / name).is_file():
            raise click.UsageError(f"{folder}: holds no {name}; this network was not saved.")
    return folder


def take(
    source: Source, point: Point, formats: Sequence[str], target: Path, say: Callable[[str], None]
) -> Taken:
    """Write a network in some formats, check every file in a new process, and add a model card.

    Args:
        source: Where it comes from.
        point: One whose files the run has.
        formats: Names of :data:`evaluators.export.formats.FORMATS`.
        target: New folder; nothing is left of it where anything fails.
        say: Told what happens, a line at a time.

    Raises:
        OptionError: If the folder can not be made.
        click.UsageError: If the run's files are not those of a network of its task.
        evaluators.export.process.ExportError: If a file can not be written, or is not the network.
    """
    folder = check_saved(source.run, point)
    try:
        model = at_rest(rebuild(source.task.model, folder))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    network = Network(model, source.task, folder, source.dense_code)
    with _appearing(target) as partial, tempfile.TemporaryDirectory() as scratch:
        jobs = write_formats(network, formats, partial, say)
        verdicts = verify(model, source.task, jobs, reported=point.saved_test, scratch=Path(scratch), say=say)
        write_card(
            partial, Card(source.known, source.config, source.task, point, source.dense_code, verdicts)
        )
    return Taken(target, verdicts)


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A folder that becomes ``target`` in the end, or else goes with all that was made for it."""
    check_target(target)
    made = [folder for folder in target.parents if not folder.exists()]
    partial = None
    try:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            partial = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name[:64]}."))
        except OSError as error:
            raise OptionError("to", target, f"can not be written: {error.strerror}.") from error
        yield partial
        partial.chmod(0o755)
        os.rename(partial, target)
    except BaseException:
        if partial is not None:
            shutil.rmtree(partial, ignore_errors=True)
        for folder in made:
            if folder.is_dir() and not any(folder.iterdir()):
                folder.rmdir()
        raise
