"""Charts as pictures: both formats, the same bytes again, names as they are."""

from __future__ import annotations

import csv
import io
import struct
import xml.etree.ElementTree as ET
from dataclasses import replace

import pytest

from search.report.draw import draw
from search.report.section import Axis, Chart, Column, Series, Table
from search.report.tables import table_csv

HOSTILE = "<script>alert(1)</script> $\\frac{ & ]]> \"' \x00\x1b \ud800 \N{ROCKET} \u202e" + "x" * 10_000


def chart(name="a"):
    return Chart(
        name="hostile",
        title=f"Title {name}",
        x=Axis(f"x {name}"),
        y=Axis("y", categories=(f"first {name}", f"second {name}")),
        series=(
            Series(f"bars {name}", "bars", (1.0, None), (f"first {name}", f"second {name}"), "rung-1"),
            Series("zero", "line", (0, 0), (f"first {name}", f"second {name}"), "dense"),
            Series("p", "points", (2.0,), (f"second {name}",), "front", error=(0.5,), hover=(name,)),
        ),
        note=f"Note {name}",
        description=name,
    )


NUMBERS = Chart(
    name="numbers",
    title="Numbers",
    x=Axis("x", log=True),
    y=Axis("y"),
    series=(
        Series("steps", "steps", (1, 10, 100), (0.1, 0.2, 0.3), "front"),
        Series(
            "points", "points", (1, None, 100), (0.1, 0.2, float("nan")), "second", error=(0.1, None, 0.2)
        ),
    ),
    note="",
    description="",
)


def words(svg):
    return [element.text for element in ET.fromstring(svg).iter("{http://www.w3.org/2000/svg}text")]


@pytest.mark.parametrize("drawn", [chart(), NUMBERS, replace(NUMBERS, series=())])
def test_equal_charts_give_equal_pictures_of_both_kinds(drawn):
    first, again = draw(drawn), draw(drawn)
    assert first == again
    assert first["png"][:8] == b"\x89PNG\r\n\x1a\n"
    width, _ = struct.unpack(">II", first["png"][16:24])
    assert width == 1280
    assert drawn.title in words(first["svg"])


def test_names_are_drawn_as_text_and_stay_text():
    found = words(draw(chart("$x_{$ <b>"), ("svg",))["svg"])
    assert "Title $x_{$ <b>" in found
    assert "first $x_{$ <b>" in found
    assert "zero" in found


def test_hostile_names_give_a_valid_small_picture():
    pictures = draw(chart(HOSTILE))
    assert len(pictures["svg"]) < 200_000
    root = ET.fromstring(pictures["svg"])
    assert not [e for e in root.iter() if e.tag.endswith("script")]


def test_cells_that_would_be_formulas_are_text_and_numbers_stay_numbers():
    columns = (Column("=cmd", "head"), Column("number", "number"), Column("name", "name"))
    rows = (
        {"=cmd": "=1+1", "number": -1.5, "name": "@SUM(A1)"},
        {"=cmd": "-2", "number": None, "name": 'quote " and\nline'},
        {"=cmd": "+3", "name": "\t=4"},
    )
    text = table_csv(Table("t", "T", columns, rows))
    assert list(csv.reader(io.StringIO(text))) == [
        ["'=cmd", "number", "name"],
        ["'=1+1", "-1.5", "'@SUM(A1)"],
        ["'-2", "", 'quote " and\nline'],
        ["'+3", "", "'\t=4"],
    ]
