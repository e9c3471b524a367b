"""All models that the coverage benchmark looks at."""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import cache
from typing import TYPE_CHECKING

from modelzoo import language, timm_models, vision

if TYPE_CHECKING:
    from modelzoo.entry import Entry

FAMILIES = ("torchvision", "segmentation", "detection", "timm", "transformers")


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by its label, in the order of the report."""
    return {entry.label: entry for entry in (*vision.entries(), *timm_models.entries(), *language.entries())}


def selected(families: list[str], patterns: list[str]) -> list[Entry]:
    """Entries of these families whose label or name matches one of the patterns; all where none is given."""
    return [
        entry
        for entry in catalogue().values()
        if (not families or entry.family in families)
        and (not patterns or any(_matches(entry, pattern) for pattern in patterns))
    ]


def _matches(entry: Entry, pattern: str) -> bool:
    return fnmatchcase(entry.label, pattern) or fnmatchcase(entry.name, pattern)
