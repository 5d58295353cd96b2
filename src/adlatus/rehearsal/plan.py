"""The plan of an answer: events that are played in order until one of them ends the answer.

`markers` or `script` fill in a draft, `compose` makes the plan of it. Pure: knows neither HTTP nor clocks.
"""

import re
import string
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from hashlib import sha256
from itertools import groupby
from typing import TypeAlias

import orjson

from adlatus.rehearsal.chat import BadRequestError, ChatRequest, text_of

FINISH_REASONS = ("stop", "length", "content_filter")
FUNCTION_NAME = r"[a-zA-Z0-9_-]{1,64}"
MOST_SECONDS = 3_600
MOST_COUNT = 10**9
MOST_CHARACTERS = 10**7
MOST_CHUNKS_AT_ONCE = 1_000
_ALPHANUMERIC = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts as they are reported."""

    prompt_tokens: int
    completion_tokens: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing happens for a while."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Refuse:
    """An HTTP error instead of an answer, which ends it. With `times`: passed over once it has happened so often."""

    status: int
    code: str | None = None
    retry_after: str | None = None
    times: int | None = None
    message: str | None = None


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed wherever the answer stands, which ends it. `times` as in Refuse."""

    times: int | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """The answer begins: its role is sent. `calls_only`: its content is null, because no text will come."""

    calls_only: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Content tokens that are due at the same moment (or a part of them, if they are many)."""

    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Call:
    """The answer begins to call a function. `index`: which of its calls this is, from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Argue:
    """Pieces of the arguments of the call that has begun last; as Say."""

    index: int
    pieces: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Garble:
    """Something that is not JSON stands in the answer, which goes on."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error told inside the answer, which ends it."""

    message: str


@dataclass(frozen=True, slots=True)
class Stall:
    """Silence on an open connection until the client goes, which ends the answer."""


@dataclass(frozen=True, slots=True)
class Finish:
    """The proper end of an answer."""

    reason: str
    usage: Usage | None


Event: TypeAlias = Wait | Refuse | HangUp | Begin | Say | Call | Argue | Garble | Fault | Stall | Finish
Plan: TypeAlias = tuple[Event, ...]


@dataclass(slots=True)
class Draft:
    """What has been decided about the answer to a request. `calls`: names of functions and their arguments."""

    request: ChatRequest
    texts: list[str] = field(default_factory=list)
    calls: list[tuple[str, str]] = field(default_factory=list)
    delay_s: float = 0
    pace_s: float = 0
    failures: list[Refuse | HangUp] = field(default_factory=list)
    breaks: list[tuple[int, HangUp | Garble | Stall | Fault]] = field(default_factory=list)
    reason: str | None = None
    usage: Usage | None = None
    tells_usage: bool = True
    characters: int = 0

    def say(self, text: str) -> None:
        self.texts.append(text)
        self._count(text)

    def call(self, name: str, arguments: str) -> None:
        self.calls.append((name, arguments))
        self._count(name + arguments)

    def _count(self, text: str) -> None:
        self.characters += len(text)
        if self.characters > MOST_CHARACTERS:
            raise BadRequestError(f"The answer would have more than {MOST_CHARACTERS} characters.", "messages")


def compose(draft: Draft) -> Plan:
    """The plan of a draft, cut at the request's limit of tokens: every chunk counts as one."""
    chunks = [*tokens("".join(draft.texts)), *_called(draft)]
    said = chunks[: draft.request.most_tokens]
    reason = draft.reason or ("tool_calls" if draft.calls else "stop")
    if len(said) < len(chunks):
        reason = "length"
    counted = Usage(sum(len(text_of(message).split()) for message in draft.request.messages), len(said))
    finish = Finish(reason, (draft.usage or counted) if draft.tells_usage else None)
    begin = Begin(calls_only=bool(draft.calls) and not any(draft.texts))
    return (*_before(draft), begin, *_spoken(draft, said), finish)


def tokens(text: str) -> list[str]:
    """Split a text into words with the space before them; joined they are the text again."""
    return re.findall(r"\s*\S+|\s+\Z", text)


@dataclass(frozen=True, slots=True)
class _Piece:
    """A part of the arguments of a call."""

    index: int
    text: str


_Chunk: TypeAlias = str | Call | _Piece
"""What one chunk of a stream carries."""


def _called(draft: Draft) -> Iterator[Call | _Piece]:
    for index, (name, arguments) in enumerate(draft.calls):
        yield Call(index, _call_id(draft.request, index), name)
        for text in re.findall(r"\w+|\W+", arguments):
            yield _Piece(index, text)


def _call_id(request: ChatRequest, index: int) -> str:
    """The same for the same messages, another for every turn of a conversation."""
    messages = orjson.dumps(request.messages, option=orjson.OPT_SORT_KEYS)
    number = int.from_bytes(sha256(b"%d %b" % (index, messages)).digest(), "big")
    return "call_" + "".join(_ALPHANUMERIC[number // 62**place % 62] for place in range(24))


def _before(draft: Draft) -> Iterator[Event]:
    if draft.delay_s:
        yield Wait(draft.delay_s)
    yield from draft.failures


def _spoken(draft: Draft, said: list[_Chunk]) -> Iterator[Event]:
    start = 0
    for position, event in sorted(draft.breaks, key=lambda pair: pair[0]):
        end = min(position, len(said))
        yield from _paced(said, start, end, draft.pace_s)
        yield event
        start = end
    yield from _paced(said, start, len(said), draft.pace_s)


def _paced(said: list[_Chunk], start: int, end: int, pace_s: float) -> Iterator[Event]:
    step = 1 if pace_s else MOST_CHUNKS_AT_ONCE
    for position in range(start, end, step):
        if pace_s and position:
            yield Wait(pace_s)
        yield from _joined(said[position : min(position + step, end)])


def _joined(chunks: Iterable[_Chunk]) -> Iterator[Event]:
    for shared, group in groupby(chunks, _what_they_share):
        match shared:
            case None:
                yield Say(tuple(str(token) for token in group))
            case Call():
                yield shared
            case index:
                yield Argue(index, tuple(piece.text for piece in group if isinstance(piece, _Piece)))


def _what_they_share(chunk: _Chunk) -> Call | int | None:
    if isinstance(chunk, str):
        return None
    return chunk if isinstance(chunk, Call) else chunk.index
