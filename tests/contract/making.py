"""Requests made by Hypothesis from an OpenAPI document: valid by it, or spoiled.

Ids of real objects are placeholders such as `thread_real`, to be filled in when the request is sent.
"""

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import quote, urlencode

import schemathesis
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET
from schemathesis.schemas import BaseSchema

from tests.contract.schema import Json, Schema
from tests.contract.tour import Operation

REAL = {
    "assistant_id": "asst_real",
    "thread_id": "thread_real",
    "message_id": "msg_real",
    "run_id": "run_real",
    "step_id": "step_real",
    "file_id": "file_real",
    "upload_id": "upload_real",
    "vector_store_id": "vs_real",
    "batch_id": "vsfb_real",
    "model": "model_real",
}
JSON = "application/json"
BOUNDARY = "made"
FORM = f"multipart/form-data; boundary={BOUNDARY}"
Draw = Callable[[st.SearchStrategy[Any]], Any]


@dataclass(frozen=True)
class Request:
    """A request as it goes out. `path` begins after /v1; it, the query and the content may hold placeholders."""

    method: str
    path: str
    query: str = ""
    content: bytes = b""
    content_type: str | None = None


class Maker:
    """Makes requests from a document, whose objects hold no properties but those they name."""

    def __init__(self, schema: Schema) -> None:
        self._schema = schema
        self._api: BaseSchema = schemathesis.openapi.from_dict(_closed(schema.document))

    def valid(self, operation: Operation) -> st.SearchStrategy[Request]:
        """Requests that the document allows; mostly about objects that exist."""
        return self._made(operation, GenerationMode.POSITIVE)

    def spoiled(self, operation: Operation) -> st.SearchStrategy[Request]:
        """Requests that the document or HTTP forbids, or at least hardly anybody would send."""
        valid = self._made(operation, GenerationMode.POSITIVE)
        negated = self._made(operation, GenerationMode.NEGATIVE)
        spoils = OF_FORMS if self._schema.takes_form(operation) else SPOILS
        return st.one_of(negated, negated, *(_spoiled(valid, spoil) for spoil in spoils))

    def _made(self, operation: Operation, mode: GenerationMode) -> st.SearchStrategy[Request]:
        method, path = operation
        ids = {name: REAL[name] for name in re.findall(r"{(\w+)}", path)}
        cases = self._api[path][method].as_strategy(generation_mode=mode, path_parameters=ids)

        @st.composite
        def made(draw: Draw) -> Request:
            case = draw(cases)
            body, content_type = case.body, JSON
            if self._schema.takes_form(operation):
                content, content_type = _form(body), FORM
            elif body is NOT_SET:
                content, content_type = b"", draw(st.sampled_from([JSON, None]))
            elif isinstance(body, bytes):
                content = body
            else:
                content = _content(_with_real(draw, body))
            query = urlencode(case.query or {}, doseq=True, errors="replace")
            return Request(method, path.format(**_ids(draw, ids)), query, content, content_type)

        return made()


def _closed(described: Any) -> Any:
    match described:
        case dict():
            changed = {key: _closed(value) for key, value in described.items()}
            if isinstance(changed.get("properties"), dict) and changed.get("type") == "object":
                changed.setdefault("additionalProperties", False)
            return changed
        case list():
            return [_closed(item) for item in described]
    return described


def _content(body: Any) -> bytes:
    """As JSON, in which no message steers the rehearsal model: its markers begin with two brackets."""
    return re.sub(r"\[(?=\[)", "[ ", json.dumps(body)).encode()


def _form(body: Any) -> bytes:
    """As a multipart form, in which what is nested has names such as `a[b]`."""
    fields = body if isinstance(body, dict) else {}
    parts = b"".join(_part(name, value) for name, value in fields.items())
    return parts + f"--{BOUNDARY}--\r\n".encode()


def _part(name: str, value: Any) -> bytes:
    if isinstance(value, dict):
        return b"".join(_part(f"{name}[{inner}]", item) for inner, item in value.items())
    filename = '; filename="made.txt"' if name in ("file", "data") else ""
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{escaped}"{filename}\r\n\r\n'
    plain = getattr(value, "data", value)  # what schemathesis wraps bytes in
    content = plain if isinstance(plain, bytes) else str(plain).encode("utf-8", "replace")
    return head.encode("utf-8", "replace") + content.replace(f"--{BOUNDARY}".encode(), b"") + b"\r\n"


def _with_real(draw: Draw, body: Any) -> Any:
    """With ids of real objects, mostly; and every other search without filters, few of which make sense."""
    if isinstance(body, dict) and "filters" in body and draw(st.booleans()):
        body = {name: value for name, value in body.items() if name != "filters"}
    if not isinstance(body, dict) or not draw(_mostly):
        return body
    for name in ("assistant_id", "file_id"):
        if isinstance(body.get(name), str):
            body = body | {name: REAL[name]}
    if isinstance(body.get("file_ids"), list):
        body = body | {"file_ids": [REAL["file_id"] for _ in body["file_ids"]]}
    if isinstance(body.get("files"), list):
        body = body | {"files": [_with_real(draw, each) for each in body["files"]]}
    return body


def _ids(draw: Draw, real: dict[str, str]) -> dict[str, str]:
    return {name: value if draw(_mostly) else quote(draw(_made_up(value)), safe="") for name, value in real.items()}


def _made_up(real: str) -> st.SearchStrategy[str]:
    unknown = st.text(max_size=40).map(lambda text: f"{real.partition('_')[0]}_{text}")
    other = st.text(min_size=1, max_size=40).filter(lambda text: text not in (".", ".."))
    return (unknown | other).filter(lambda text: "/" not in text)


_mostly = st.sampled_from([True] * 9 + [False])


# --- How a request is spoiled


def _spoiled(
    valid: st.SearchStrategy[Request], spoil: Callable[[Request], st.SearchStrategy[Request]]
) -> st.SearchStrategy[Request]:
    return valid.flatmap(spoil)


TOKENS = [
    *("null", "true", "0", "-1", "1.0", "1e400", "-1e400", "NaN", "1" + "0" * 400, "18446744073709551616", "5e-324"),
    *('""', '"\\ud800"', '"\\u0000"', '"\\udc00\\ud800"', f'"{"😀" * 600}"', f'"{"a" * 300_000}"', '"\\r\\nX-Evil: 1"'),
    *("[]", "[null]", "[ []]", "[" + "{}," * 2000 + "{}]", "{}", '{"":{}}', '{"type":[]}', '{"__proto__":{}}'),
    *("[" * 99 + "]" * 99, '{"a":' * 150 + "0" + "}" * 150, "[" * 5000, "\x00", "'x'", ""),
]
NAMES = ["", "foo", "__proto__", "$ref", "type", "metadata", "\0", "\ud800", "a" * 100_000, "😀", "a.b[0]", "content[]"]
QUERIES = [
    *(
        "limit=0",
        "limit=101",
        "limit=-1",
        "limit=1e3",
        "limit=",
        "limit=%D9%A3",
        "limit=" + "9" * 5000,
        "limit=1&limit=x",
    ),
    *("order=", "order=up", "order=ASC", "order[]=asc", "order=asc&order=up", "limit[gt]=3", "limit%5B%5D=3"),
    *("include[]=x", "include%5B%5D=x", "include[]=", "include=x", "include[][]=x", "include%5B%5D=%ff", "run_id=%00"),
    *(
        "after=%00",
        "after=%ff%fe",
        "after=%ed%a0%80",
        "before=" + "b" * 5000,
        "after=&before=",
        "&&&=&",
        "%",
        "=",
        "%5B",
    ),
    *("foo=1", "stream=true", "after[id]=1", "%00=1", "after=thread_real&before=thread_real", "a=1;b=2", "?" * 50),
]
CONTENTS = [
    b"",
    b" ",
    b"{",
    b"null",
    b"[]",
    b'"{}"',
    b"\xff",
    b"a=1",
    b"{}{}",
    b'\xef\xbb\xbf{"model":"m"}',
    b"\x1f\x8b",
]
TYPES = [
    "",
    "text/plain",
    "application/x-www-form-urlencoded",
    "multipart/form-data",
    "json",
    "*/*",
    "application/jsonp",
]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"]


@st.composite
def _planted(draw: Draw, request: Request) -> Request:
    """Something odd in some place of the body."""
    body = json.loads(request.content or b"{}")
    place = draw(st.sampled_from(list(_places(body))))
    return replace(request, content=_planted_at(body, place, draw(st.sampled_from(TOKENS))), content_type=JSON)


@st.composite
def _added(draw: Draw, request: Request) -> Request:
    """A property too many in some object of the body."""
    body = json.loads(request.content or b"{}")
    objects = [place for place in _places(body) if isinstance(_at(body, place), dict)]
    place = (*draw(st.sampled_from(objects)), draw(st.sampled_from(NAMES)))
    return replace(request, content=_planted_at(body, place, draw(st.sampled_from(TOKENS))), content_type=JSON)


@st.composite
def _cut(draw: Draw, request: Request) -> Request:
    """A property or an item too few, or no whole JSON."""
    if not request.content:
        return replace(request, content=draw(st.binary()), content_type=JSON)
    return replace(request, content=request.content[: draw(st.integers(0, len(request.content) - 1))])


SPOILS: list[Callable[[Request], st.SearchStrategy[Request]]] = [
    _planted,
    _added,
    _cut,
    lambda request: st.sampled_from(CONTENTS).map(lambda content: replace(request, content=content, content_type=JSON)),
    lambda request: st.sampled_from(TYPES).map(lambda named: replace(request, content_type=named)),
    lambda request: st.sampled_from(METHODS).map(lambda method: replace(request, method=method)),
    lambda request: st.sampled_from(QUERIES).map(lambda query: replace(request, query=query)),
    lambda request: st.sampled_from(QUERIES).map(lambda query: replace(request, query=f"{request.query}&{query}")),
]
OF_FORMS = SPOILS[2:]  # their bodies are no JSON to plant anything in


def _places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value, the whole included."""
    yield at
    steps = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, item in steps:
        yield from _places(item, (*at, step))


def _at(value: Any, place: tuple[str | int, ...]) -> Any:
    for step in place:
        value = value[step]
    return value


def _planted_at(body: Any, place: tuple[str | int, ...], token: str) -> bytes:
    """The JSON of the body with a token, which need not be JSON, in a place."""
    if not place:
        return token.encode()
    planted: Json = copy.deepcopy(body)
    _at(planted, place[:-1])[place[-1]] = "(planted)"
    return _content(planted).replace(b'"(planted)"', token.encode())
