"""Reads a report as a person would: the words of its page, and the marks of its plot."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from made_run import make_run

from search.report.data import load_run
from search.report.page import render_page


class Page(HTMLParser):
    """Text outside of scripts and styles, tags and their attributes, and the figure."""

    def __init__(self, source):
        super().__init__()
        self.words, self.tags, self.attributes, self.scripts, self._inside = [], [], [], [], None
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())
        self.figure = json.loads(self.scripts[0])

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag if tag in {"script", "style"} else None

    def handle_endtag(self, tag):  # noqa: ARG002
        self._inside = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            self.words.append(data)


def page_of(folder, result=None, **kwargs):
    return Page(render_page(load_run(make_run(folder, result, **kwargs))))


def trace(page, meta, mode="markers"):
    return next(t for t in page.figure["data"] if t["meta"] == meta and t["mode"] == mode)
