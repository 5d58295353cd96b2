"""The calls of functions in a model's answer, in whichever manner its server writes them. Pure; knows no text."""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import orjson
from pydantic_core import PydanticCustomError

from adlatus.ids import new_id
from adlatus.wire.common import Json, refuse_deep

LONGEST_NAME = 256
"""Characters of a function's name that are kept. None that was offered is longer than 64."""

LONGEST_EXTRA_BYTES = 2**16

_FIT_ID = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_OLD = -1
"""The index of the one call of an answer that has it in `function_call`."""


@dataclass(frozen=True, slots=True)
class Called:
    """A call of a function begins."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """More of the arguments of a call."""

    index: int
    arguments: str


@dataclass(slots=True)
class Call:
    """One call, as far as it is known."""

    id: str
    name: str
    pieces: list[str] = field(default_factory=list)
    extra: Json | None = None
    """`extra_content`, which Gemini wants back with the call in the next turn: its signature of what it thought."""

    @property
    def arguments(self) -> str:
        """The arguments as the model wrote them, which need not be JSON."""
        return "".join(self.pieces)


@dataclass(frozen=True, slots=True)
class _Entry:
    """What a delta says of one call; empty strings and no index where it says nothing."""

    index: int | None
    id: str
    name: str
    arguments: str
    extra: Json | None = None


@dataclass(slots=True)
class _Heard:
    """A call as its server means it."""

    call: Call = field(default_factory=lambda: Call("", ""))
    id: str = ""
    """The server's, whatever it looks like."""
    index: int | None = None
    """The place among the calls; none as long as the name is unknown, and for a call too many."""
    in_pieces: bool = False
    """Its arguments come in pieces, each with the name and some of them JSON by chance."""


class Calls:
    """The calls of an answer.

    A call counts from when its name is known, so that places are dense; `most` of them count. Servers' ids are kept
    where they can serve as ids: elsewhere, and where they are `taken_ids` or another call's, calls get ids of ours.
    """

    def __init__(self, most: int | None, taken_ids: Collection[str]) -> None:
        self.known: list[Call] = []
        self._most = most
        self._taken = set(taken_ids)
        # The call that an index or an id means by now; under None, among all calls
        self._latest: dict[int | None, _Heard] = {}
        self._by_id: dict[tuple[int | None, str], _Heard] = {}

    def fold(self, delta: Json, *, whole: bool) -> list[Called | Argued]:
        """Add what a delta, or a `whole` message, says of calls; returns what of it is news."""
        new: list[Called | Argued] = []
        for entry in _entries(delta):
            heard = None if whole else self._meant(entry)
            new += self._add(heard or _Heard(), entry)
        return new

    def _meant(self, entry: _Entry) -> _Heard | None:
        """The call that an entry goes on with; none if it begins one."""
        heard = self._latest.get(entry.index)
        if entry.id and (heard is None or heard.id or entry.index is None):
            heard = self._by_id.get((entry.index, entry.id)) or _going_on(heard, entry)
        return None if heard is None or _is_another(heard, entry) else heard

    def _add(self, heard: _Heard, entry: _Entry) -> list[Called | Argued]:
        self._latest[entry.index] = self._latest[None] = heard
        if entry.id:
            heard.id = heard.id or entry.id
            self._by_id[entry.index, entry.id] = self._by_id[None, entry.id] = heard
        if entry.arguments:
            heard.call.pieces.append(entry.arguments)
        heard.call.extra = entry.extra or heard.call.extra
        if not heard.call.name and entry.name:
            return self._begin(heard, entry.name)
        return [Argued(heard.index, entry.arguments)] if heard.index is not None and entry.arguments else []

    def _begin(self, heard: _Heard, name: str) -> list[Called | Argued]:
        """The name of a call is known: tell of it, and of the arguments that came before."""
        call = heard.call
        call.name = name
        if self._most is not None and len(self.known) >= self._most:
            return []
        heard.index = len(self.known)
        self.known.append(call)
        call.id = heard.id if _FIT_ID.fullmatch(heard.id) and heard.id not in self._taken else new_id("call")
        self._taken.add(call.id)
        called = Called(heard.index, call.id, name)
        return [called, Argued(heard.index, call.arguments)] if call.pieces else [called]


def text_of(value: object) -> str:
    """A string as the database can keep it, which is without U+0000; empty for anything else."""
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "\ufffd") if "\0" in value else value


def _entries(delta: Json) -> Iterable[_Entry]:
    """What a delta says of calls. Proxies write the old `function_call` beside `tool_calls`: it is the same call."""
    entries, old = delta.get("tool_calls"), delta.get("function_call")
    if isinstance(entries, list) and entries:
        for entry in entries:
            if isinstance(entry, dict):
                index = entry.get("index")
                place, extra = index if type(index) is int else None, _extra(entry.get("extra_content"))
                yield _entry(place, entry.get("id"), entry.get("function"), extra)
    elif isinstance(old, dict):
        yield _entry(_OLD, None, old)


def _entry(index: int | None, call_id: Any, function: Any, extra: Json | None = None) -> _Entry:
    function = function if isinstance(function, dict) else {}
    return _Entry(
        index,
        text_of(call_id),
        text_of(function.get("name"))[:LONGEST_NAME],
        _arguments(function.get("arguments")),
        extra,
    )


def _extra(value: Any) -> Json | None:
    """What is kept of it: an object as the database can keep it, and no longer than a signature may be."""
    if not isinstance(value, dict):
        return None
    try:
        refuse_deep(value)  # orjson would write it, but no more where it lies deeper, in a step or a request
        written = orjson.dumps(value)
    except (PydanticCustomError, orjson.JSONEncodeError):
        return None
    return value if len(written) <= LONGEST_EXTRA_BYTES and b"\\u0000" not in written else None


def _arguments(value: Any) -> str:
    """Arguments as text. Some proxies send them parsed."""
    if value is None or isinstance(value, str):
        return text_of(value)
    try:
        return orjson.dumps(value).decode()
    except orjson.JSONEncodeError:  # it reads deeper nesting than it writes
        return ""


def _going_on(heard: _Heard | None, entry: _Entry) -> _Heard | None:
    """The call at the index of an entry whose id is new, if the entry is more of it. *Source*: vLLM until 0.8.

    It gives every piece an id of its own, and with a forced call the name too.
    """
    if heard is None or entry.index is None:
        return None
    if not entry.name:
        return heard
    if entry.name != heard.call.name or not heard.call.pieces or not entry.arguments:
        return None
    heard.in_pieces = heard.in_pieces or not _is_whole(heard.call.arguments)
    return heard if heard.in_pieces else None


def _is_another(heard: _Heard, entry: _Entry) -> bool:
    """Whether an entry at the place of a call, or with its id, names a call of its own.

    Some servers repeat the name with every piece of a call; others give whole calls one index, or one id, or neither.
    """
    call = heard.call
    if not entry.name or not call.name:
        return False
    if entry.name != call.name or (entry.index is None and not entry.id):
        return True
    if heard.in_pieces or not call.pieces or not _is_whole(entry.arguments):
        return False
    heard.in_pieces = not _is_whole(call.arguments)
    return not heard.in_pieces


def _is_whole(arguments: str) -> bool:
    try:
        return isinstance(orjson.loads(arguments), dict)
    except orjson.JSONDecodeError:
        return False
