"""An inspection as one self-contained page: picture, groups, what stays whole. All text is escaped."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from search.inspect.bundles import bundled
from search.inspect.layout import draw
from search.inspect.names import in_words, one_line
from search.inspect.svg import svg
from search.inspect.words import coupling_words, part, place_words

if TYPE_CHECKING:
    from search.inspect.inspection import Inspection


def page(found: Inspection) -> str:
    """The text of an HTML file that needs no network."""
    environment = Environment(
        loader=PackageLoader("search", "inspect"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printable,
    )
    environment.filters |= {"part": part, "names": in_words, "places": place_words, "couples": coupling_words}
    return environment.get_template("page.html.j2").render(
        found=found,
        bundles=bundled(found.frozen),
        picture=Markup(svg(draw(found))),  # its writer has escaped the text
    )


def _printable(value: object) -> object:
    """Foreign text without control characters."""
    return one_line(value, 2000) if isinstance(value, str) and not isinstance(value, Markup) else value
