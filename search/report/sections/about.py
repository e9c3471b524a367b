"""What was run, on what, and with which settings?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.config import option_name
from search.report import words
from search.report.names import label
from search.report.section import Section, Table
from search.report.sections import cells

if TYPE_CHECKING:
    from collections.abc import Mapping

    from search.report.data import Run

_NOT_RECORDED = "The machine is not on record: the run was started by an older version."


def about(run: Run) -> Section:
    """Splits and seeds in words; versions, machine and settings as tables."""
    config = run.config
    tables = [
        table
        for name, title in (
            ("versions", "Versions"),
            ("machine", "Machine"),
            ("precision", "How it computed"),
        )
        if (table := _table(name, title, config.get(name))) is not None
    ]
    tables.append(_settings(config))
    found = [_splits(run), _seeds(run)]
    if config and not config.get("machine"):
        found.append(_NOT_RECORDED)
    return Section("about", "What was run", tuple(found), (), tuple(tables))


def _splits(run: Run) -> str:
    holdout = run.config.get("holdout")
    source = f" ({label(holdout)})" if isinstance(holdout, str) and holdout else ", the task's own split"
    test = (
        "Test has not been read yet."
        if run.is_provisional
        else "Test was read once, when the front was final; its numbers chose nothing."
    )
    task = label(run.result.task, 80)
    return f"Task {task}. The search scored on holdout{source}, and on nothing else. {test}"


def _seeds(run: Run) -> str:
    seed, repeated = run.config.get("seed"), run.config.get("final_seeds")
    of_run = (
        f"Seed {seed} decides everything that is random"
        if isinstance(seed, int)
        else "The seed is not on record"
    )
    if not isinstance(repeated, int):
        return f"{of_run}."
    return (
        f"{of_run}; finals are trained with {words.plural(repeated, 'seed')} each, where the run trains them."
    )


def _table(name: str, title: str, raw: object) -> Table | None:
    if not isinstance(raw, dict) or not raw:
        return None
    rows = tuple({"name": str(key), "value": _shown(value)} for key, value in raw.items())
    return Table(name, title, (cells.plain("name"), cells.plain("value")), rows)


def _settings(config: Mapping[str, object]) -> Table:
    rows = tuple(
        {"setting": option_name(str(name)), "value": _shown(value)}
        for name, value in sorted(config.items())
        if not isinstance(value, dict) or name == "recipe"
    )
    return Table("settings", "All settings", (cells.plain("setting"), cells.plain("value")), rows)


def _shown(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(of)}" for name, of in value.items())
    return "" if value is None else str(value)
