"""Chunks of an answer that are alike but for their text, read without parsing what is around it. Pure.

Servers repeat id, model and time in every chunk, ten times as much as the few characters that are new. Who has parsed
one such chunk knows what every other means that has the same bytes before and after its text.
"""

import re
from collections.abc import Sequence
from copy import deepcopy
from itertools import islice

import orjson

from adlatus.wire.common import Json

MOST_LESSONS = 8
"""How often what is around the text is looked for: a server that never repeats it is not worth the trouble."""

_CONTENT = re.compile(rb'"content"\s*:\s*("(?:[^"\\]|\\.)*")')
_ANOTHER = "another text"


class Alike:
    """What the chunks of an answer have around their text, as far as one has been seen that brings text alone."""

    def __init__(self) -> None:
        self._lessons = 0
        self._around: tuple[bytes, bytes] | None = None

    def texts(self, payloads: Sequence[bytes], start: int = 0) -> list[str]:
        """The texts of as many chunks, from that place on, as are like the one that was learned from."""
        if self._around is None:
            return []
        before, after = self._around
        first, size, least = len(before), len(after), len(before) + len(after) + 2
        texts = []
        for payload in islice(payloads, start, None):
            text = payload[first : len(payload) - size]
            whole = len(payload) >= least and payload.startswith(before) and payload.endswith(after)
            if not (whole and text.startswith(b'"') and text.endswith(b'"')):
                break
            texts.append(text)
        try:
            read: list[str] = orjson.loads(b"[" + b",".join(texts) + b"]")
        except orjson.JSONDecodeError:
            read = []
        if len(read) != len(texts) or any(type(text) is not str for text in read):
            self._around = None  # some are no texts: the parser will tell, one by one
            return []
        return read

    def learn(self, payload: bytes, chunk: Json) -> None:
        """Learn from a chunk that has been parsed, if it brings text alone."""
        if self._lessons < MOST_LESSONS and (delta := _text_alone(chunk)):
            self._lessons += 1
            another = deepcopy(chunk)
            another["choices"][0]["delta"] = {**delta, "content": _ANOTHER}
            around = [(payload[: found.start(1)], payload[found.end(1) :]) for found in _CONTENT.finditer(payload)]
            fits = [(before, after) for before, after in around if _read(before, after) == another]
            self._around = fits[0] if len(fits) == 1 else None


def _text_alone(chunk: Json) -> Json | None:
    """The delta of a chunk that says nothing but more of the text."""
    choices = chunk.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choice := choices[0], dict):
        return None
    delta = choice.get("delta")
    if not isinstance(delta, dict) or not isinstance(delta.get("content"), str):
        return None
    silent = not any(value for name, value in delta.items() if name not in ("content", "role"))
    ends = choice.get("finish_reason") or choice.get("index") or chunk.get("usage")
    return delta if silent and not ends else None


def _read(before: bytes, after: bytes) -> object:
    try:
        return orjson.loads(before + orjson.dumps(_ANOTHER) + after)
    except orjson.JSONDecodeError:
        return None
