"""Multipart forms with one file, whose bytes go where they belong while they arrive: no form is whole in memory."""

import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal
from urllib.parse import unquote_to_bytes

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser
from starlette.requests import ClientDisconnect

from adlatus.errors import CLIENT_LEFT, ContentTooLarge, InvalidRequest

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MAX_FIELD_BYTES = 64 * 2**10
"""All fields beside the file together."""
MAX_FIELDS = 100
MAX_HEADER_BYTES = 32 * 2**10
_PARAMETER = re.compile(r';\s*([\w*-]+)\s*=\s*(?:"((?:[^"\\]|\\["\\]|\\(?!["\\]))*)"|([^;\s"]*))')
_ESCAPED = re.compile(r'%(22|[01][0-9A-F])|\\(["\\])')
_NOT_MULTIPART = (
    "Invalid Content-Type header ({sent}), expected multipart/form-data. (HINT: If you're using curl, you can pass "
    "-F 'name=value' and -F 'file=@path')"
)
_MALFORMED = "Could not parse multipart form: {why}."

Write = Callable[[AsyncIterator[bytes]], Awaitable[None]]


@dataclass(frozen=True)
class SentFile:
    """The file of a form, once all of it has come."""

    filename: str
    size_bytes: int


@dataclass
class Form:
    """What a form held beside the bytes of its file."""

    fields: dict[str, str] = field(default_factory=dict)
    file: SentFile | None = None


@dataclass(frozen=True)
class _Begin:
    """The headers of a part have come."""

    name: str
    filename: str | None


_Event = _Begin | bytes | Literal["end of part"]


async def read_form(request: Request, file_field: str, max_bytes: int, write: Write) -> Form:
    """Read a form to its end; the bytes of its file go to `write`.

    Raises `InvalidRequest` for what is no such form, `ContentTooLarge` for a file of more than `max_bytes`.
    """
    declared = request.headers.get("content-length", "")
    most_bytes = max_bytes + MAX_FIELD_BYTES + MAX_FIELDS * MAX_HEADER_BYTES
    if declared.isdecimal() and int(declared) > most_bytes:
        raise _too_large(max_bytes, int(declared))
    form, left = Form(), MAX_FIELD_BYTES
    events = _events(request, most_bytes)
    async for event in events:
        assert isinstance(event, _Begin)
        if event.name in form.fields or (event.name == file_field and form.file):
            raise InvalidRequest(f"Parameter '{event.name[:64]}' is given twice.", param=event.name[:64])
        if event.name == file_field and event.filename is not None:
            body = _Counted(events, max_bytes)
            await write(body.pieces())
            form.file = SentFile(event.filename, body.size_bytes)
        else:
            if len(form.fields) == MAX_FIELDS:
                raise InvalidRequest(_MALFORMED.format(why=f"more than {MAX_FIELDS} fields"))
            form.fields[event.name] = await _value(events, left)
            left -= len(form.fields[event.name].encode())
    return form


class _Counted:
    """The rest of a part, counted."""

    def __init__(self, events: AsyncIterator[_Event], max_bytes: int) -> None:
        self._events = events
        self._max_bytes = max_bytes
        self.size_bytes = 0

    async def pieces(self) -> AsyncIterator[bytes]:
        async for event in self._events:
            if not isinstance(event, bytes):
                return
            self.size_bytes += len(event)
            if self.size_bytes > self._max_bytes:
                raise _too_large(self._max_bytes, self.size_bytes)
            yield event


async def _value(events: AsyncIterator[_Event], max_bytes: int) -> str:
    value = b""
    async for event in events:
        if not isinstance(event, bytes):
            break
        value += event
        if len(value) > max_bytes:
            raise InvalidRequest(_MALFORMED.format(why=f"the fields are longer than {MAX_FIELD_BYTES} bytes"))
    try:
        text = value.decode()
    except UnicodeDecodeError as error:
        raise InvalidRequest(_MALFORMED.format(why="a field is not UTF-8")) from error
    return _without_nul(text)


def _too_large(max_bytes: int, size_bytes: int) -> ContentTooLarge:
    return ContentTooLarge(f"Maximum content size limit ({max_bytes}) exceeded ({size_bytes} bytes read)")


# --- From the bytes of a request to events


async def _events(request: Request, most_bytes: int) -> AsyncIterator[_Event]:
    collected, read_bytes = _Collected(), 0
    parser = MultipartParser(_boundary(request), collected.callbacks(), max_header_size=MAX_HEADER_BYTES)
    try:
        async for piece in request.stream():
            read_bytes += len(piece)
            if read_bytes > most_bytes:
                raise _too_large(most_bytes, read_bytes)
            parser.write(piece)
            for event in collected.taken():
                yield event
    except FormParserError as error:
        raise InvalidRequest(_MALFORMED.format(why=str(error).rstrip(".")[:200])) from error
    except ClientDisconnect as error:
        raise InvalidRequest(CLIENT_LEFT) from error
    if not collected.ended:
        raise InvalidRequest(_MALFORMED.format(why="it has no end"))


def _boundary(request: Request) -> bytes:
    sent = request.headers.get("content-type", "")
    if sent.partition(";")[0].strip().lower() != "multipart/form-data":
        raise InvalidRequest(_NOT_MULTIPART.format(sent=sent[:128] or "none"))
    boundary = _parameters(sent).get("boundary", "").encode("latin-1")
    if not 1 <= len(boundary) <= 200:
        raise InvalidRequest(_MALFORMED.format(why="its Content-Type header has no boundary of a fitting length"))
    return boundary


class _Collected:
    """What the parser has called back with, until it is taken."""

    def __init__(self) -> None:
        self.ended = False
        self._events: list[_Event] = []
        self._name = self._value = b""
        self._headers: dict[bytes, bytes] = {}

    def callbacks(self) -> "MultipartCallbacks":
        return {
            "on_part_begin": self._headers.clear,
            "on_header_field": self._on_header_field,
            "on_header_value": self._on_header_value,
            "on_header_end": self._on_header_end,
            "on_headers_finished": self._on_headers_finished,
            "on_part_data": lambda data, start, end: self._events.append(bytes(data[start:end])),
            "on_part_end": lambda: self._events.append("end of part"),
            "on_end": self._on_end,
        }

    def taken(self) -> list[_Event]:
        events, self._events = self._events, []
        return events

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _on_headers_finished(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        try:
            header = disposition.decode()
        except UnicodeDecodeError:
            header = disposition.decode("latin-1")
        parameters = _parameters(header)
        if not header.lower().startswith("form-data") or "name" not in parameters:
            raise InvalidRequest(_MALFORMED.format(why="a part has no name"))
        self._events.append(_Begin(_without_nul(parameters["name"]), _filename(parameters)))

    def _on_end(self) -> None:
        self.ended = True


def _parameters(header: str) -> dict[str, str]:
    """The parameters of a header; quoted ones may hold anything, as browsers, curl and httpx escape it."""
    found = {}
    for name, quoted, token in _PARAMETER.findall(header):
        found[name.lower()] = _ESCAPED.sub(lambda at: at[2] or chr(int(at[1], 16)), quoted) if quoted else token
    return found


def _filename(parameters: dict[str, str]) -> str | None:
    """The name of a file as its client calls it; `filename*` (RFC 5987) counts more."""
    charset, _, encoded = parameters.get("filename*", "").partition("'")
    if encoded and charset.lower() in ("utf-8", "iso-8859-1"):
        return _without_nul(unquote_to_bytes(encoded.partition("'")[2]).decode(charset, "replace"))
    name = parameters.get("filename")
    return None if name is None else _without_nul(name)


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise InvalidRequest("Strings must not hold the NUL character (\\u0000).", code="invalid_value")
    return text
