"""The picture: rails that do not meet, marks inside the frame, files that stand alone."""

from __future__ import annotations

import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from xml.etree import ElementTree as Xml

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from inspected import inspection

from search.inspect.drawing import LETTER, Box, Dot, Line, Text
from search.inspect.geometry import MARGIN
from search.inspect.inspection import GroupFacts, Inspection
from search.inspect.layers import Layer
from search.inspect.layout import draw
from search.inspect.page import page
from search.inspect.png import png
from search.inspect.rails import PALE, STRONG, lay_rails
from search.inspect.svg import svg

EVIL = "</title><script>alert(1)</script>\x1b[2J & \N{GREEK SMALL LETTER ALPHA}"


def layer(name: str, *made: str, reads: tuple[str, ...] = (), width: int = 8) -> Layer:
    share = width // len(made) if made else 0
    return Layer(name, "3x3", width, tuple((group, share) for group in made), reads, 100, 72)


def facts(name: str, layers: tuple[str, ...], readers: tuple[str, ...] = ()) -> GroupFacts:
    return GroupFacts(name, 8, "channel", 1, 1, 2, 7, True, layers, readers, 0.25, 0.5)


def chain(length: int) -> Inspection:
    """Layers that each read the one before, one group each, the last frozen."""
    layers = [layer(f"block.{i}.conv", f"g{i}", reads=(f"g{i - 1}",) if i else ()) for i in range(length - 1)]
    layers.append(replace(layer("head", reads=(f"g{length - 2}",)), reason="output of the model"))
    groups = tuple(facts(f"g{i}", (f"block.{i}.conv",), (f"block.{i + 1}.conv",)) for i in range(length - 1))
    return replace(inspection(), layers=tuple(layers), groups=groups)


# -- rails ----------------------------------------------------------------------------------------


def test_a_chain_of_layers_shares_one_lane():
    """A layer reads above the middle of its row and computes below it."""
    found = chain(6)
    rails = lay_rails([group.name for group in found.groups], found.layers)
    assert {rail.lane for rail in rails} == {0}
    assert [rail.stops for rail in rails[:2]] == [
        [(0.25, True), (0.75, False)],
        [(1.25, True), (1.75, False)],
    ]


def test_a_residual_rail_is_outside_of_what_it_spans_and_strong():
    layers = [
        layer("stem", "res"),
        layer("conv1", "inner", reads=("res",)),
        layer("conv2", "res", reads=("inner",)),
    ]
    residual, inner = lay_rails(["res", "inner"], layers)
    assert (residual.lane, inner.lane) == (1, 0)
    assert (residual.makes, residual.reads) == ((0, 2), (1,))
    assert residual.color in STRONG
    assert inner.color in PALE
    assert STRONG.index(residual.color) != PALE.index(inner.color)


spans = st.lists(
    st.tuples(st.sets(st.integers(0, 12), max_size=4), st.sets(st.integers(0, 12), max_size=4)), max_size=9
)


@settings(max_examples=60, deadline=None)
@given(spans)
def test_rails_in_one_lane_never_overlap(stops):
    names = [f"g{i}" for i in range(len(stops))]
    layers = [
        layer(
            f"layer{row}",
            *(names[i] for i, (makes, _) in enumerate(stops) if row in makes),
            reads=tuple(names[i] for i, (_, reads) in enumerate(stops) if row in reads),
        )
        for row in range(13)
    ]
    rails = [rail for rail in lay_rails(names, layers) if rail.stops]
    assert len(rails) == sum(bool(makes or reads) for makes, reads in stops)
    for one, other in combinations(rails, 2):
        if one.lane == other.lane:
            low, high = sorted((one, other), key=lambda rail: rail.stops[0])
            assert low.stops[-1][0] < high.stops[0][0]


# -- layout ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [3, 90, 200])
def test_every_mark_is_inside_the_frame(length):
    drawing = draw(chain(length))
    for mark in drawing.marks:
        for shape in mark.shapes:
            if isinstance(shape, Box):
                corners = [(shape.x, shape.y), (shape.x + shape.width, shape.y + shape.height)]
            elif isinstance(shape, Line):
                corners = [(shape.x1, shape.y1), (shape.x2, shape.y2)]
            elif isinstance(shape, Dot):
                corners = [
                    (shape.x - shape.radius, shape.y - shape.radius),
                    (shape.x + shape.radius, shape.y + shape.radius),
                ]
            else:
                letters = sum(len(text) for text, _ in shape.runs)
                width = letters * shape.size * (LETTER if shape.mono else 0.53)
                corners = [(shape.x, shape.y - shape.size), (shape.x + width, shape.y)]
            for x, y in corners:
                assert -0.01 <= x <= drawing.width + 0.01
                assert -0.01 <= y <= drawing.height + 0.01


def test_rows_have_a_bar_for_each_part_solid_as_far_as_the_smallest_width():
    found = inspection()
    rows = {mark.tip.split("  ")[0]: mark for mark in draw(found).marks if "outputs" in mark.tip}
    stem, conv1, head = rows["stem"], rows["conv1"], rows["head"]
    _, solid, pale, macs = [shape for shape in stem.shapes if isinstance(shape, Box)]
    assert solid.width / (solid.width + pale.width) == pytest.approx(2 / 8)
    assert (solid.color, solid.opacity) == (pale.color, 1.0)
    assert pale.opacity < 1
    # The widest layer has ten outputs; lengths go with the square root.
    (_, grey, _) = [shape for shape in head.shapes if isinstance(shape, Box)]
    assert (solid.width + pale.width) / grey.width == pytest.approx((8 / 10) ** 0.5)
    assert grey.color not in (*STRONG, *PALE)
    inner = [shape for shape in conv1.shapes if isinstance(shape, Box)]
    assert macs.width / inner[-1].width == pytest.approx(found.layers[0].macs / found.layers[1].macs)


def words(found: Inspection) -> str:
    shapes = [shape for mark in draw(found).marks for shape in mark.shapes]
    return "\n".join("".join(text for text, _ in s.runs) for s in shapes if isinstance(s, Text))


def test_what_stays_says_why_in_the_picture_and_in_its_tip():
    assert "stays: output of the model" in words(inspection())
    assert "remarks" in words(inspection())
    (tip,) = [mark.tip for mark in draw(inspection()).marks if mark.tip.startswith("head")]
    assert "10 outputs stay: output of the model" in tip
    without = replace(inspection(), layers=inspection().layers[:3])
    assert "remarks" not in words(without)


def test_units_that_are_more_than_a_channel_are_named_beside_their_layers():
    found = inspection()
    heads = replace(found.groups[1], unit="head of 2", unit_channels=2, width=2)
    assert words(replace(found, groups=(found.groups[0], heads))).count("2 heads of 2") == 1


def test_the_legend_names_what_couples_layers_and_counts_the_rest():
    assert "8 channels, 2 layers" in words(inspection())
    names = [f"g{i}" for i in range(11)]
    layers = tuple(layer(f"{name}.{i}", name) for name in names for i in range(2))
    groups = tuple(facts(name, (f"{name}.0", f"{name}.1")) for name in names)
    said = words(replace(inspection(), layers=layers, groups=groups))
    assert said.count("8 channels, 2 layers, 25% of MACs") == len(STRONG)
    assert "and 3 more that couple layers" in said


def test_long_names_lose_their_middle_and_what_repeats_steps_back():
    name = "encoder.layers.encoder_layer_11.self_attention.in_proj_weight_of_the_packed_kind"
    layers = (layer(name), layer("block.0.conv1"), layer("block.0.conv2"), layer("block.1.conv1"))
    marks = draw(replace(inspection(), layers=layers, groups=())).marks
    runs = [next(s.runs for s in mark.shapes if isinstance(s, Text)) for mark in marks if mark.tip]
    assert len(runs[0][0][0]) <= 48
    assert runs[0][0][0].startswith("encoder.layers")
    assert runs[0][0][0].endswith("_packed_kind")
    assert [[text for text, _ in run] for run in runs[1:]] == [
        ["block.0.conv1"],
        ["block.0.", "conv2"],
        ["block.", "1.conv1"],
    ]
    assert any(mark.tip.startswith(name) for mark in marks)


def test_an_inspection_of_nothing_can_be_drawn():
    empty = replace(inspection(), layers=(), groups=(), dense_macs=0)
    assert draw(empty).height > MARGIN
    assert "nothing in it can be pruned" in words(empty)


# -- files ----------------------------------------------------------------------------------------


def evil() -> Inspection:
    found = inspection()
    layers = (replace(found.layers[0], name=EVIL), *found.layers[1:3], replace(found.layers[3], reason=EVIL))
    frozen = (replace(found.frozen[0], reason=EVIL, module=EVIL, line=EVIL),)
    return replace(found, model=EVIL, layers=layers, frozen=frozen, warnings=(EVIL,))


def test_svg_is_well_formed_and_holds_every_tip():
    drawing = draw(inspection())
    root = Xml.fromstring(svg(drawing))
    space = "{http://www.w3.org/2000/svg}"
    tips = {element.text for element in root.iter(f"{space}title")}
    assert {mark.tip for mark in drawing.marks if mark.tip} <= tips
    assert root.attrib["viewBox"] == f"0 0 {drawing.width:.2f} {drawing.height:.2f}".replace(".00", "")
    shapes = sum(len(mark.shapes) for mark in drawing.marks)
    kinds = ("rect", "line", "circle", "text")
    assert sum(element.tag.removeprefix(space) in kinds for element in root.iter()) == shapes


@pytest.mark.parametrize("write", [lambda found: svg(draw(found)), page], ids=["svg", "html"])
def test_foreign_text_is_escaped(write):
    text = write(evil())
    assert "<script>alert" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)" in text


class _Resources(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        self.found += [f"{tag} {value}" for name, value in attrs if name in ("src", "href", "data", "srcset")]


def test_the_page_stands_alone_and_has_picture_tables_and_warnings():
    text = page(replace(inspection(), warnings=("a warning",)))
    resources = _Resources()
    resources.feed(text)
    assert resources.found == []
    assert re.findall(r"https?://[^\"' ]+", text) == ["http://www.w3.org/2000/svg"]
    assert text.count("<svg") == 1
    for said in ("<code>conv1</code>", "2 layers: stem, conv2", "output of the model", "a warning"):
        assert said in text


def test_png_has_two_pixels_for_one_and_shrinks_what_is_huge():
    drawing = draw(inspection())
    data = png(drawing)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    size = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    assert size == pytest.approx((2 * drawing.width, 2 * drawing.height), abs=1)
    tall = png(replace(drawing, height=40_000, marks=drawing.marks[:1]))
    assert int.from_bytes(tall[20:24], "big") == pytest.approx(20_000, abs=1)
