"""A drawing as SVG: one element per shape, tips as titles; text is escaped by the library."""

from __future__ import annotations

from typing import TYPE_CHECKING
from xml.etree import ElementTree as Xml

from search.inspect.drawing import Box, Dot, Line

if TYPE_CHECKING:
    from search.inspect.drawing import Drawing, Shape, Text

_SANS = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif"
_MONO = "ui-monospace, SFMono-Regular, Menlo, 'DejaVu Sans Mono', Consolas, monospace"


def svg(drawing: Drawing) -> str:
    """The drawing as the text of an SVG file."""
    width, height = _number(drawing.width), _number(drawing.height)
    root = Xml.Element(
        "svg",
        {
            "xmlns": "http://www.w3.org/2000/svg",
            "viewBox": f"0 0 {width} {height}",
            "width": width,
            "height": height,
            "role": "img",
            "font-family": _SANS,
        },
    )
    Xml.SubElement(root, "title").text = _legal(drawing.title)
    for mark in drawing.marks:
        groups = {"data-groups": " ".join(map(str, mark.groups))} if mark.groups else {}
        holder = Xml.SubElement(root, "g", groups)
        if mark.tip:
            Xml.SubElement(holder, "title").text = _legal(mark.tip)
        for shape in mark.shapes:
            _add(holder, shape)
    return Xml.tostring(root, encoding="unicode")


def _add(holder: Xml.Element, shape: Shape) -> None:
    if isinstance(shape, Box):
        place = {"x": shape.x, "y": shape.y, "width": shape.width, "height": shape.height}
        look = {"fill": shape.color} | ({"fill-opacity": str(shape.opacity)} if shape.opacity < 1 else {})
        Xml.SubElement(holder, "rect", _numbers(place) | look)
    elif isinstance(shape, Line):
        place = {"x1": shape.x1, "y1": shape.y1, "x2": shape.x2, "y2": shape.y2}
        look = {"stroke": shape.color, "stroke-width": _number(shape.thickness)}
        Xml.SubElement(holder, "line", _numbers(place) | look)
    elif isinstance(shape, Dot):
        place = {"cx": shape.x, "cy": shape.y, "r": shape.radius}
        ring = {"stroke": shape.stroke, "stroke-width": "1.4"} if shape.stroke else {}
        look = {"fill": shape.color} | ring
        Xml.SubElement(holder, "circle", _numbers(place) | look)
    else:
        _add_text(holder, shape)


def _add_text(holder: Xml.Element, text: Text) -> None:
    look = {"xml:space": "preserve"}
    if text.mono:
        look["font-family"] = _MONO
    if text.bold:
        look["font-weight"] = "600"
    place = {"x": text.x, "y": text.y, "font-size": text.size}
    element = Xml.SubElement(holder, "text", _numbers(place) | look)
    for letters, color in text.runs:
        Xml.SubElement(element, "tspan", {"fill": color}).text = _legal(letters)


def _legal(text: str) -> str:
    """Without control characters, which XML has no way to write."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def _numbers(values: dict[str, float]) -> dict[str, str]:
    return {name: _number(value) for name, value in values.items()}


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
