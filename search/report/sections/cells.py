"""How the cells of the sections' tables are written for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from search.report import words
from search.report.section import Column

if TYPE_CHECKING:
    from collections.abc import Callable

    from search.report.words import Metric


def plain(key: str, title: str | None = None) -> Column:
    """A column of names or whole numbers."""
    return Column(key, title or key.replace("_", " "))


def number(key: str, title: str, show: Callable[[float], str]) -> Column:
    """A column of numbers that one function writes."""

    def cell(value: object) -> str:
        return show(value) if isinstance(value, int | float) else str(value)

    return Column(key, title, cell)


def share(key: str, title: str) -> Column:
    """A column of fractions of one, written in percent."""
    return number(key, title, lambda value: words.share(value, 1))


def signed(key: str, title: str, metric: Metric) -> Column:
    """A column of differences of the score."""
    return number(key, title, metric.signed)


def two_digits(key: str, title: str) -> Column:
    """A column of numbers with two digits after the point."""
    return number(key, title, words.tau_words)


def seconds(key: str, title: str) -> Column:
    """A column of wall clock."""
    return number(key, title, words.duration)
