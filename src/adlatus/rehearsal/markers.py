"""From the markers of a request to the plan of its answer. Pure: the same request always gives the same plan.

The markers are described in the package's docstring; their table stands at the end.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

import orjson

from adlatus.rehearsal.chat import BadRequestError, ChatRequest
from adlatus.rehearsal.plan import (
    FINISH_REASONS,
    FUNCTION_NAME,
    MOST_COUNT,
    MOST_SECONDS,
    Draft,
    Fault,
    Garble,
    HangUp,
    Plan,
    Refuse,
    Stall,
    Usage,
    compose,
)

MOST_TOKENS = 100_000


def plan(request: ChatRequest) -> Plan:
    """Decide the answer. Raises BadRequestError for a marker that is misspelt, unclosed or has a bad value."""
    draft = Draft(request)
    for marker in _MARKER.finditer(request.asked):
        _apply(marker, draft)
    if not draft.texts and not draft.calls:
        draft.texts.append(introduction(_MARKER.sub("", request.asked)))
    return compose(draft)


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


def _say(value: str, draft: Draft) -> None:
    draft.say(value.removeprefix(" "))


def _echo(value: str, draft: Draft) -> None:
    request = draft.request
    match value.strip():
        case "request":
            draft.say(orjson.dumps(request.body, option=orjson.OPT_SORT_KEYS).decode())
        case "messages":
            draft.say(orjson.dumps(request.messages, option=orjson.OPT_SORT_KEYS).decode())
        case "system":
            draft.say(request.system)
        case _:
            raise ValueError


def _words(value: str, draft: Draft) -> None:
    draft.say(" ".join(f"word{number}" for number in range(1, _count(value, MOST_TOKENS) + 1)))


def _call(value: str, draft: Draft) -> None:
    name, _, arguments = value.strip().partition(" ")
    if not re.fullmatch(FUNCTION_NAME, name):
        raise ValueError
    if not draft.request.is_helped:
        draft.call(name, arguments.strip() or "{}")


def _delay(value: str, draft: Draft) -> None:
    draft.delay_s = _seconds(value)


def _pace(value: str, draft: Draft) -> None:
    draft.pace_s = _seconds(value)


def _error(value: str, draft: Draft) -> None:
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


def _cut(value: str, draft: Draft) -> None:
    draft.breaks.append((_position(value), HangUp()))


def _stall(value: str, draft: Draft) -> None:
    draft.breaks.append((_position(value), Stall()))


def _garble(value: str, draft: Draft) -> None:
    draft.breaks.append((_position(value), Garble()))


def _stream_error(value: str, draft: Draft) -> None:
    position, _, message = value.strip().partition(" ")
    draft.breaks.append((_position(position), Fault(message.strip() or "The scripted answer failed here.")))


def _finish(value: str, draft: Draft) -> None:
    if value.strip() not in FINISH_REASONS:
        raise ValueError
    draft.reason = value.strip()


def _usage(value: str, draft: Draft) -> None:
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
    apply: Callable[[str, Draft], None]


MARKERS = {
    "say": _Marker("[[say: TEXT]]", _say),
    "echo": _Marker("[[echo: request|messages|system]]", _echo),
    "tokens": _Marker("[[tokens: COUNT]]", _words),
    "call": _Marker("[[call: NAME ARGUMENTS]]", _call),
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


def _apply(marker: re.Match[str], draft: Draft) -> None:
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
