"""The sections of a report below the front, one module for each question: words, charts and tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report.sections.about import about
from search.report.sections.controls import controls
from search.report.sections.criteria import criteria
from search.report.sections.failures import failures
from search.report.sections.groups import groups
from search.report.sections.hypervolume import hypervolume
from search.report.sections.latency import latency
from search.report.sections.origins import origins
from search.report.sections.rungs import rungs
from search.report.sections.seconds import seconds
from search.report.sections.training import training
from search.report.sections.warnings import warnings

if TYPE_CHECKING:
    from search.report.data import Run
    from search.report.section import Section

#: In the order of the page: what decides first, what explains it next, how it was made last.
_ALL = (
    training,
    controls,
    criteria,
    rungs,
    groups,
    hypervolume,
    origins,
    latency,
    warnings,
    failures,
    seconds,
    about,
)


def sections(run: Run) -> tuple[Section, ...]:
    """Every section that this run has something to say in."""
    return tuple(section for make in _ALL if (section := make(run)) is not None)
