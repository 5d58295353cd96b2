"""Markers of passages in a model's text, found however its tokens are cut. Pure; knows no search.

A marker is `【4:0†name.txt】`: the position of a search, the number of a result, the file. What models make of it is
read as far as it can only be meant as one, and becomes the marker as it should be. One that points nowhere goes,
together with the spaces before it. All other brackets pass: Chinese and Japanese use them.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from adlatus.runs import quotes
from adlatus.wire.common import Json
from adlatus.wire.messages import file_citation

MOST_HELD = 512
"""Characters after which brackets that are still open are no marker."""

LONGEST_NAME = 128
"""Characters of a file's name in a marker."""

_REMEMBERED = 400
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029【】†]")

_DAGGERS = "†‡⸸✝✞"
_S, _N = r"[^\S\n]{0,3}", r"\d{1,6}"
# How a marker begins, and what may become that. In plain brackets, which code and footnotes have, it needs its dagger
_BEGUN = {
    "【": re.compile(rf"【{_S}{_N}{_S}[:：{_DAGGERS}]"),
    "[": re.compile(rf"\[{_S}{_N}{_S}(?:[:：]{_S}{_N}{_S})?[{_DAGGERS}]"),
}
_BEGINNING = {
    "【": re.compile(rf"【{_S}(?:{_N}{_S})?\Z"),
    "[": re.compile(rf"\[{_S}(?:{_N}{_S}(?:[:：]{_S}(?:{_N}{_S})?)?)?\Z"),
}
_OPENING = re.compile(r"[【\[]")
_BRACKET = {"【": re.compile(r"[【】\n]"), "[": re.compile(r"[\[\]【】\n]")}
_DAGGER = re.compile(f"[{_DAGGERS}]")
_ONE = rf"({_N}){_S}[:：{_DAGGERS}]{_S}({_N})(?!\d)"
_POINTER = re.compile(rf"(?:\A|[,;，；、]){_S}{_ONE}")
_BARE = re.compile(rf"{_S}{_N}{_S}[:：]{_S}{_N}{_S}(?:[,;，；、]{_S}{_N}{_S}[:：]{_S}{_N}{_S})*")


@dataclass(frozen=True, slots=True)
class Passage:
    """What a marker points to."""

    marker: str
    file_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Cited:
    """A marker in the text, and its annotation, the `index`th of the text."""

    text: str
    index: int
    annotation: Json


Passages = Mapping[tuple[int, int], Passage]
"""Passages by the numbers of their markers: the position of the search, the number of the result."""


def marker(position: int, number: int, file_name: str) -> str:
    """The marker of a result. What in a file's name would make it hard to read is replaced."""
    return f"【{position}:{number}†{_UNFIT.sub('_', file_name)[:LONGEST_NAME]}】"


class Citations:
    """A filter of text that finds the markers of `passages`.

    Nothing is held back but spaces, which may have to go with a marker, and what may still become a marker.
    """

    def __init__(self, passages: Passages) -> None:
        self.annotations: list[Json] = []
        self._passages = passages
        self._held = ""
        self._length = 0
        self._said = ""

    def filter(self, text: str) -> list[str | Cited]:
        """What may be shown now that the model has written `text`."""
        return self._read(self._held + text, ended=False)

    def finish(self) -> list[str | Cited]:
        """What may be shown of what was held back, now that the text has ended. A marker that was cut off counts."""
        return self._read(self._held, ended=True)

    def _read(self, text: str, *, ended: bool) -> list[str | Cited]:
        new: list[str | Cited] = []
        shown = at = 0
        end: int | None = None if ended else len(text)
        while opened := _OPENING.search(text, at):
            found = _bracketed(text, opened.start(), ended)
            if found is None:
                end = opened.start()
                break
            cited = self._meant(text[opened.end() : found - 1] if found else "", cut_off=found > len(text))
            if cited is None:
                at = opened.end()
                continue
            before = text[shown : opened.start()]
            self._say(before if cited else before.rstrip(" "), new)
            for passage in cited:
                self._cite(passage, new)
            shown = at = found
        if end is not None:
            end = shown + len(text[shown:end].rstrip(" "))
        self._say(text[shown:end], new)
        self._held = "" if end is None else text[end:]
        return new

    def _meant(self, inside: str, *, cut_off: bool) -> list[Passage] | None:
        """The passages that are meant by what stands in brackets; None where it is no marker."""
        has_dagger = _DAGGER.search(inside) is not None
        if not has_dagger and (cut_off or not _BARE.fullmatch(inside)):
            return None
        pointers = dict.fromkeys((int(found[1]), int(found[2])) for found in _POINTER.finditer(inside))
        cited = [self._passages[pointer] for pointer in pointers if pointer in self._passages]
        if cited and cited[0].marker[1:-1] == inside:  # a file's name may look like a second pointer
            return cited[:1]
        return cited if cited or has_dagger else None  # without a dagger it may be a time of day

    def _say(self, text: str, new: list[str | Cited]) -> None:
        if text:
            new.append(text)
            self._length += len(text)
            self._said = (self._said + text)[-_REMEMBERED:]

    def _cite(self, passage: Passage, new: list[str | Cited]) -> None:
        quote = quotes.fitting(self._said, passage.text)
        annotation = file_citation(passage.marker, self._length, passage.file_id, quote)
        new.append(Cited(passage.marker, len(self.annotations), annotation))
        self._length += len(passage.marker)
        self.annotations.append(annotation)


def _bracketed(text: str, start: int, ended: bool) -> int | None:
    """Where brackets that begin at `start` end: 0 if what stands in them is no marker, None if that is not known yet.

    A marker that the end of the text cuts off ends one character behind it.
    """
    kind = text[start]
    if not _BEGUN[kind].match(text, start):
        return None if not ended and _BEGINNING[kind].match(text, start) else 0
    depth = 0
    for bracket in _BRACKET[kind].finditer(text, start + 1, start + MOST_HELD):
        match bracket[0]:
            case "[":
                depth += 1
            case "]" if depth:
                depth -= 1
            case "]" | "】":
                return bracket.end()
            case _:
                return 0
    if len(text) - start >= MOST_HELD:
        return 0
    return len(text) + 1 if ended else None
