"""Reads a report as a person would: the words of its page, and the numbers that its plot is drawn from."""

from __future__ import annotations

import json
from html.parser import HTMLParser

from made_run import make_run

from search.report.data import load_run
from search.report.page import render_page


class Page(HTMLParser):
    """Text outside of scripts, styles and folded cards, tags and their attributes, and the data."""

    def __init__(self, source):
        super().__init__()
        self.words, self.tags, self.attributes, self.scripts = [], [], [], []
        self.cards, self._inside, self._card = {}, None, None
        self.feed(source)
        self.text = " ".join(" ".join(self.words).split())
        self.cards = {key: " ".join(" ".join(words).split()) for key, words in self.cards.items()}
        self.data = json.loads(self.scripts[0])
        self.front = self.data["front"]

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        self._inside = tag if tag in {"script", "style"} else None
        if tag == "template":
            self._card = dict(attrs)["id"]
            self.cards[self._card] = []

    def handle_endtag(self, tag):
        self._inside = None
        if tag == "template":
            self._card = None

    def handle_data(self, data):
        if self._inside == "script":
            self.scripts.append(data)
        elif self._inside is None:
            (self.words if self._card is None else self.cards[self._card]).append(data)


def page_of(folder, result=None, **kwargs):
    return Page(render_page(load_run(make_run(folder, result, **kwargs))))
