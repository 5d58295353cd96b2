"""HTML: the text that a reader would see, block by block. Reads piece by piece, so no tree grows with the nesting."""

import re
from html.parser import HTMLParser
from typing import BinaryIO

from adlatus.retrieval.parsing import text
from adlatus.retrieval.parsing.sink import Sink

_UNSEEN = frozenset(("script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select"))
_BLOCKS = frozenset(
    [
        "address",
        "article",
        "aside",
        "blockquote",
        "br",
        "caption",
        "dd",
        "div",
        "dl",
        "dt",
        "fieldset",
        "figcaption",
        "figure",
        "footer",
        "form",
        "h1",
        "h2",
        "h3",
        "h4",
        "h5",
        "h6",
        "header",
        "hr",
        "li",
        "main",
        "nav",
        "ol",
        "p",
        "pre",
        "section",
        "table",
        "tbody",
        "tfoot",
        "thead",
        "title",
        "tr",
        "ul",
    ]
)
_CELLS = frozenset(("td", "th"))
_SPACES = re.compile(r"[ \t\n]+")
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?\s*([A-Za-z0-9_:.-]{1,40})""", re.IGNORECASE)


def extract(source: BinaryIO, sink: Sink) -> None:
    head = source.read(4096)
    source.seek(0)
    declared = _CHARSET.search(head)
    reader = _Reader(sink)
    for block in text.decoded(source, declared.group(1).decode() if declared else None):
        reader.feed(block)
    reader.close()


class _Reader(HTMLParser):
    """Sends text to the sink. A space or a line break waits until text follows it, so that there are no empty lines."""

    def __init__(self, sink: Sink) -> None:
        super().__init__(convert_charrefs=True)
        self._sink = sink
        self._waiting = ""
        self._begun = False
        self._unseen = ""
        self._unseen_depth = 0
        self._pre_depth = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if self._unseen:
            self._unseen_depth += tag == self._unseen
        elif tag in _UNSEEN:
            self._unseen, self._unseen_depth = tag, 1
        elif tag in _BLOCKS:
            self._waiting = "\n"
        elif tag in _CELLS:
            self._waiting = self._waiting.replace(" ", "") or "\t"
        self._pre_depth += tag == "pre"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in _UNSEEN:
            self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if self._unseen:
            self._unseen_depth -= tag == self._unseen
            if not self._unseen_depth:
                self._unseen = ""
        elif tag in _BLOCKS:
            self._waiting = "\n"
        if tag == "pre" and self._pre_depth:
            self._pre_depth -= 1

    def handle_data(self, data: str) -> None:
        if self._unseen:
            return
        if self._pre_depth:
            self._sink.write((self._waiting if self._begun else "") + data)
            self._waiting = ""
            self._begun = True
            return
        shown = _SPACES.sub(" ", data)
        if shown.startswith(" "):
            self._waiting = self._waiting or " "
        shown, ends_open = shown.strip(" "), shown.endswith(" ")
        if shown:
            self._sink.write((self._waiting if self._begun else "") + shown)
            self._waiting = " " if ends_open else ""
            self._begun = True
