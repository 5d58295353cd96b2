"""The documents of the repository, taken apart: code blocks, links, anchors, names in the text."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Block:
    """A fenced block of code; `line` counts from 1."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


@dataclass(frozen=True)
class Document:
    """One file of Markdown, known by its path in the repository."""

    name: str

    @property
    def path(self) -> Path:
        return ROOT / self.name

    @cached_property
    def text(self) -> str:
        return self.path.read_text("utf-8")

    @cached_property
    def _tokens(self) -> list[Token]:
        return MarkdownIt("commonmark").enable("table").parse(self.text)

    def blocks(self) -> Iterator[Block]:
        for token in self._tokens:
            if token.type in ("fence", "code_block"):
                assert token.map
                yield Block(self.name, token.map[0] + 1, token.info.strip(), token.content)

    def links(self) -> Iterator[str]:
        """The targets of links, as they are written."""
        for token in self._inline():
            if token.type == "link_open":
                yield str(token.attrs["href"])

    def names(self) -> Iterator[str]:
        """What stands in the text as `code`."""
        return (token.content for token in self._inline() if token.type == "code_inline")

    def anchors(self) -> set[str]:
        """What links may lead to, as forges make it of headings."""
        found: dict[str, int] = {}
        for token, inside in zip(self._tokens, self._tokens[1:], strict=False):
            if token.type == "heading_open":
                said = "".join(each.content for each in inside.children or ())
                anchor = re.sub(r"[^\w\- ]", "", said.lower()).replace(" ", "-")
                found[anchor] = found.get(anchor, -1) + 1
        return {f"{anchor}-{count}" if count else anchor for anchor, last in found.items() for count in range(last + 1)}

    def _inline(self) -> Iterator[Token]:
        for token in self._tokens:
            yield from token.children or ()


def documents() -> list[Document]:
    """All of them: the README and its like, `docs`, and those of the examples and of what is deployed."""
    found = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]
    found += [path for folder in ("examples", "deploy", "docker") for path in (ROOT / folder).rglob("README.md")]
    return [Document(path.relative_to(ROOT).as_posix()) for path in sorted(found)]


def blocks(*languages: str) -> list[Block]:
    """The blocks of these languages, or all."""
    return [
        block for document in documents() for block in document.blocks() if not languages or block.language in languages
    ]
