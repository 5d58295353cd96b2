"""Chunks of an answer that are alike but for their text, read without parsing what is around it. Pure.

Servers repeat id, model and time in every chunk, ten times as much as the few characters that are new. Who has parsed
one such chunk knows what every other means that has the same bytes before and after its text.
"""

import re
from copy import deepcopy

import orjson

from adlatus.wire.common import Json

MOST_LESSONS = 8
"""How often what is around the text is looked for: a server that never repeats it is not worth the trouble."""

WINDOW_BYTES = 2**14
"""How far is looked ahead at once: chunks that are not alike are looked at again, by the parser."""

_CONTENT = re.compile(rb'"content"\s*:\s*("(?:[^"\\]|\\.)*")')
_ANOTHER = "another text"


class Alike:
    """What the events of a stream have around their text, as far as one has been seen that brings text alone."""

    def __init__(self) -> None:
        self._lessons = 0
        self._learned = False
        self._before = self._after = b""

    def texts(self, data: bytes, start: int) -> tuple[list[str], int]:
        """The texts of whole events, from that place on, that are like the one that was learned from; where they end.

        There may be more of them in what follows.
        """
        before, after, size = self._before, self._after, len(self._before)
        if not self._learned or not data.startswith(before, start):
            return [], start
        *events, rest = data[start : start + WINDOW_BYTES].split(after)
        alike = [event[size:] for event in events if event.startswith(before)]
        if len(alike) == len(events) and (read := _strings(alike)):
            return read, min(start + WINDOW_BYTES, len(data)) - len(rest)
        if events and events[0].startswith(before) and (read := _strings(alike[:1])):  # whatever follows it
            return read, start + len(events[0]) + len(after)
        return [], start

    def learn(self, line: bytes, payload: bytes, chunk: Json) -> None:
        """Learn from a chunk that has been parsed, if it brings text alone, and from the line that it came in."""
        if self._lessons < MOST_LESSONS and (delta := _text_alone(chunk)):
            self._lessons += 1
            another = deepcopy(chunk)
            another["choices"][0]["delta"] = {**delta, "content": _ANOTHER}
            around = [(payload[: found.start(1)], payload[found.end(1) :]) for found in _CONTENT.finditer(payload)]
            fits = [(before, after) for before, after in around if _read(before, after) == another]
            self._learned = len(fits) == 1
            if self._learned:
                self._keep(line.partition(payload), *fits[0])

    def _keep(self, line: tuple[bytes, bytes, bytes], before: bytes, after: bytes) -> None:
        name, _, line_end = line
        self._before = name + before + b'"'
        self._after = b'"' + after + line_end + (b"\n\r\n" if line_end.endswith(b"\r") else b"\n\n")


def _strings(quoted: list[bytes]) -> list[str]:
    """What JSON strings mean, by what is between their quotes; nothing if one is none, or holds what no text may."""
    joined = b'","'.join(quoted)
    if b"\\u0000" in joined:
        return []
    try:
        read: list[str] = orjson.loads(b'["%b"]' % joined)
    except orjson.JSONDecodeError:
        return []
    return read if len(read) == len(quoted) and set(map(type, read)) == {str} else []


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
