"""From a chat-completions request to the plan of its answer. Pure: the same request always gives the same plan.

A plan is a sequence of events, played in order until one of them ends the answer. The markers are described in the
package's docstring; their table stands at the end. This module knows neither HTTP nor clocks.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias

import orjson

from adlatus.rehearsal.chat import BadRequestError, ChatRequest, text_of

FINISH_REASONS = ("stop", "length", "content_filter")
MOST_SECONDS = 3_600
MOST_TOKENS = 100_000
MOST_COUNT = 10**9
MOST_CHARACTERS = 10**7
MOST_TOKENS_AT_ONCE = 1_000


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


@dataclass(frozen=True, slots=True)
class HangUp:
    """The connection is closed wherever the answer stands, which ends it. `times` as in Refuse."""

    times: int | None = None


@dataclass(frozen=True, slots=True)
class Begin:
    """The answer begins: its role is sent."""


@dataclass(frozen=True, slots=True)
class Say:
    """Content tokens that are due at the same moment (or a part of them, if they are many)."""

    tokens: tuple[str, ...]


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


Event: TypeAlias = Wait | Refuse | HangUp | Begin | Say | Garble | Fault | Stall | Finish
Plan: TypeAlias = tuple[Event, ...]


def plan(request: ChatRequest) -> Plan:
    """Decide the answer. Raises BadRequestError for a marker that is misspelt, unclosed or has a bad value."""
    asked = next((text_of(message) for message in reversed(request.messages) if message["role"] == "user"), "")
    draft = _Draft(request)
    for marker in _MARKER.finditer(asked):
        _apply(marker, draft)
    text = "".join(draft.texts) if draft.texts else introduction(_MARKER.sub("", asked))
    all_tokens = tokens(text)
    said = all_tokens[: request.most_tokens]
    reason = "length" if len(said) < len(all_tokens) else draft.reason
    counted = Usage(sum(len(text_of(message).split()) for message in request.messages), len(said))
    finish = Finish(reason, (draft.usage or counted) if draft.tells_usage else None)
    return (*_before(draft), Begin(), *_spoken(draft, said), finish)


def introduction(asked: str) -> str:
    """Say what this is, to a person who expected a language model."""
    words = " ".join(asked.split())
    excerpt = words if len(words) <= 60 else words[:59].rstrip() + "…"
    heard = f" You wrote: “{excerpt}”" if excerpt else ""
    return (
        "I am the rehearsal model, a scripted stand-in and not a language model: everything around me works, but I "
        "cannot think. For real answers set ADLATUS_MODEL_BASE_URL to an OpenAI-compatible server and ADLATUS_MODEL "
        "to one of its models, then start Adlatus again." + heard
    )


def tokens(text: str) -> list[str]:
    """Split a text into words with the space before them; joined they are the text again."""
    return re.findall(r"\s*\S+|\s+\Z", text)


@dataclass(slots=True)
class _Draft:
    """What the markers have said so far."""

    request: ChatRequest
    texts: list[str] = field(default_factory=list)
    delay_s: float = 0
    pace_s: float = 0
    failures: list[Refuse | HangUp] = field(default_factory=list)
    breaks: list[tuple[int, HangUp | Garble | Stall | Fault]] = field(default_factory=list)
    reason: str = "stop"
    usage: Usage | None = None
    tells_usage: bool = True
    characters: int = 0

    def say(self, text: str) -> None:
        self.texts.append(text)
        self.characters += len(text)
        if self.characters > MOST_CHARACTERS:
            raise BadRequestError(f"The markers ask for more than {MOST_CHARACTERS} characters.", "messages")


def _before(draft: _Draft) -> Iterator[Event]:
    if draft.delay_s:
        yield Wait(draft.delay_s)
    yield from draft.failures


def _spoken(draft: _Draft, said: list[str]) -> Iterator[Event]:
    start = 0
    for position, event in sorted(draft.breaks, key=lambda pair: pair[0]):
        end = min(position, len(said))
        yield from _paced(said, start, end, draft.pace_s)
        yield event
        start = end
    yield from _paced(said, start, len(said), draft.pace_s)


def _paced(said: list[str], start: int, end: int, pace_s: float) -> Iterator[Event]:
    step = 1 if pace_s else MOST_TOKENS_AT_ONCE
    for position in range(start, end, step):
        if pace_s and position:
            yield Wait(pace_s)
        yield Say(tuple(said[position : min(position + step, end)]))


def _say(value: str, draft: _Draft) -> None:
    draft.say(value.removeprefix(" "))


def _echo(value: str, draft: _Draft) -> None:
    request = draft.request
    match value.strip():
        case "request":
            draft.say(orjson.dumps(request.body, option=orjson.OPT_SORT_KEYS).decode())
        case "messages":
            draft.say(orjson.dumps(request.messages, option=orjson.OPT_SORT_KEYS).decode())
        case "system":
            draft.say("\n".join(text_of(m) for m in request.messages if m["role"] in ("system", "developer")))
        case _:
            raise ValueError


def _words(value: str, draft: _Draft) -> None:
    draft.say(" ".join(f"word{number}" for number in range(1, _count(value, MOST_TOKENS) + 1)))


def _delay(value: str, draft: _Draft) -> None:
    draft.delay_s = _seconds(value)


def _pace(value: str, draft: _Draft) -> None:
    draft.pace_s = _seconds(value)


def _error(value: str, draft: _Draft) -> None:
    kind, *pairs = value.split() or [""]
    options = dict(_pair(pair) for pair in pairs)
    times = _count(options.pop("times")) if "times" in options else None
    if kind == "disconnect":
        draft.failures.append(HangUp(times))
    else:
        status = _count(kind, 599)
        retry_after = options.pop("retry_after", None)
        if status < 400 or (retry_after is not None and _seconds(retry_after) < 0):
            raise ValueError
        draft.failures.append(Refuse(status, options.pop("code", None), retry_after, times))
    if options:
        raise ValueError


def _cut(value: str, draft: _Draft) -> None:
    draft.breaks.append((_position(value), HangUp()))


def _stall(value: str, draft: _Draft) -> None:
    draft.breaks.append((_position(value), Stall()))


def _garble(value: str, draft: _Draft) -> None:
    draft.breaks.append((_position(value), Garble()))


def _stream_error(value: str, draft: _Draft) -> None:
    position, _, message = value.strip().partition(" ")
    draft.breaks.append((_position(position), Fault(message.strip() or "The scripted answer failed here.")))


def _finish(value: str, draft: _Draft) -> None:
    if value.strip() not in FINISH_REASONS:
        raise ValueError
    draft.reason = value.strip()


def _usage(value: str, draft: _Draft) -> None:
    if value.strip() == "none":
        draft.tells_usage = False
    else:
        prompt, completion = value.split()
        draft.usage = Usage(_count(prompt), _count(completion))


def _pair(value: str) -> tuple[str, str]:
    name, equals, option = value.partition("=")
    if not (name and equals and option):
        raise ValueError
    return name, option


def _position(value: str) -> int:
    return _count(value) if value.strip() else 0


def _count(value: str, most: int = MOST_COUNT) -> int:
    if not re.fullmatch(r"\s*\d{1,10}\s*", value, re.ASCII) or int(value) > most:
        raise ValueError
    return int(value)


def _seconds(value: str) -> float:
    if not re.fullmatch(r"\s*\d{1,9}(\.\d{1,9})?\s*", value, re.ASCII) or float(value) > MOST_SECONDS:
        raise ValueError
    return float(value)


class _Marker(NamedTuple):
    form: str
    apply: Callable[[str, _Draft], None]


MARKERS = {
    "say": _Marker("[[say: TEXT]]", _say),
    "echo": _Marker("[[echo: request|messages|system]]", _echo),
    "tokens": _Marker("[[tokens: COUNT]]", _words),
    "delay": _Marker("[[delay: SECONDS]]", _delay),
    "pace": _Marker("[[pace: SECONDS]]", _pace),
    "error": _Marker("[[error: STATUS|disconnect retry_after=SECONDS code=CODE times=COUNT]]", _error),
    "cut": _Marker("[[cut: N]]", _cut),
    "stall": _Marker("[[stall: N]]", _stall),
    "garble": _Marker("[[garble: N]]", _garble),
    "stream_error": _Marker("[[stream_error: N MESSAGE]]", _stream_error),
    "finish": _Marker(f"[[finish: {'|'.join(FINISH_REASONS)}]]", _finish),
    "usage": _Marker("[[usage: PROMPT COMPLETION|none]]", _usage),
}
_MARKER = re.compile(r"\[\[\s*(?=[A-Za-z])(?P<inside>.*?)(?P<closed>\]\](?!\])|\Z)", re.DOTALL)


def _apply(marker: re.Match[str], draft: _Draft) -> None:
    name, _, value = marker["inside"].partition(":")
    shown = marker[0] if len(marker[0]) <= 80 else marker[0][:79] + "…"
    known = "The rehearsal model knows: " + " ".join(form for form, _ in MARKERS.values())
    if not marker["closed"]:
        raise BadRequestError(f"The marker '{shown}' is not closed by ']]'. {known}", "messages")
    if name.strip() not in MARKERS:
        raise BadRequestError(f"Unknown marker '{shown}'. {known}", "messages")
    form, apply = MARKERS[name.strip()]
    try:
        apply(value, draft)
    except ValueError as exc:
        raise BadRequestError(f"Bad value in the marker '{shown}': its form is {form}. {known}", "messages") from exc
