"""Sees every answer and every stream event that the servers of the tests send, and who asked for it.

What was seen is kept once per shape: the rest of a value's content is of no interest to a schema. Judging it is for
`tests/contract/test_whole_suite.py`, which runs last. Where workers share the tests (pytest-xdist), every one leaves
what it saw in a file, and the one that judges waits for the others.
"""

import json
import pickle
import re
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from adlatus.api.relay import PATHS
from tests.workers import Worker

Json = dict[str, Any]
Operation = tuple[str, str]

_KINDS = frozenset(
    ("object", "type", "status", "role", "code", "reason", "detail", "ranker", "reasoning_effort", "response_format")
) | {"tool_choice"}
"""Keys whose strings are constants, and so belong to a value's shape."""
_FREE = frozenset(("metadata", "attributes", "parameters", "schema"))
"""Keys whose values are the client's own."""
OCTETS = "application/octet-stream"
"""The bytes of files, which are the clients' own."""
GATHER_TIMEOUT_S = 900
_RECORDING = re.compile(r"recording (\S+ \d+)")
_SDK = re.compile(r"(?:Async)?OpenAI/(Python|JS) (\S+)")


@dataclass(frozen=True)
class Seen:
    """An answer, or an event of a stream, as an example of its shape."""

    operation: Operation
    status: int
    content_type: str
    body: Any
    event: str | None = None


@dataclass
class Witness:
    """What was seen since the process began."""

    examples: dict[object, Seen] = field(default_factory=dict)
    sdks: dict[Operation, set[tuple[str, str]]] = field(default_factory=lambda: defaultdict(set))
    recordings: dict[Operation, set[str]] = field(default_factory=lambda: defaultdict(set))
    broken: list[str] = field(default_factory=list)

    def watching(self, app: ASGIApp) -> ASGIApp:
        """The application, with its answers seen."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            head: Message = {}
            content: list[bytes] = []

            async def seen(message: Message) -> None:
                if message["type"] == "http.response.start":
                    head.update(message)
                elif dict(head["headers"]).get(b"content-type") != OCTETS.encode():
                    content.append(message.get("body", b""))
                await send(message)

            try:
                await app(scope, receive, seen)
            finally:
                if head:
                    self._note_answer(scope, head, b"".join(content))

        return watched

    def overhearing(self, response: httpx.Response) -> None:
        """Hook for clients of servers in other processes: an answer is seen once it was read to its end."""
        path = response.request.url.path.removeprefix("/v1")
        template = next((each for each in _TEMPLATES if _matches(each, path)), "")
        assert isinstance(response.stream, httpx.SyncByteStream)

        def read(content: bytes) -> None:
            if template:
                operation, kind = (response.request.method, template), response.headers.get("content-type", "")
                self._note(operation, response.status_code, kind, content)

        response.stream = _Overheard(response.stream, read)

    def leave(self, file: Path) -> None:
        """Write down what was seen, for the worker that judges it."""
        unfinished = file.with_suffix(".new")
        unfinished.write_bytes(pickle.dumps((self.examples, dict(self.sdks), dict(self.recordings), self.broken)))
        unfinished.rename(file)

    def gather(self, worker: Worker) -> None:
        """Take over what the other workers saw, once they have run all their tests."""
        give_up_at = time.monotonic() + GATHER_TIMEOUT_S
        while len(left := list(worker.seen.parent.glob(f"*{worker.seen.suffix}"))) < worker.others:
            assert time.monotonic() < give_up_at, f"only {left} of {worker.others} workers have finished"
            time.sleep(0.1)
        for file in left:
            examples, sdks, recordings, broken = pickle.loads(file.read_bytes())
            self.examples |= examples
            for operation, found in sdks.items():
                self.sdks[operation] |= found
            for operation, found in recordings.items():
                self.recordings[operation] |= found
            self.broken += broken

    def _note_answer(self, scope: Scope, head: Message, content: bytes) -> None:
        path: str = getattr(scope.get("route"), "path_format", "")
        operation = (scope["method"], path.removeprefix("/v1"))
        if not scope["path"].startswith("/v1/") or scope["method"] in ("HEAD", "OPTIONS"):
            return
        headers = {name.decode().lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self._note_client(operation, headers.get("user-agent", ""), head["status"])
        self._note(operation, head["status"], dict(head["headers"]).get(b"content-type", b"").decode(), content)

    def _note(self, operation: Operation, status: int, content_type: str, content: bytes) -> None:
        if operation[1] in PATHS:
            return  # an upstream's words
        try:
            if content_type == OCTETS:
                self._keep(Seen(operation, status, content_type, "(bytes)"))
            elif content_type.startswith("text/event-stream"):
                self._note_events(operation, content_type, content)
            else:
                self._keep(Seen(operation, status, content_type, json.loads(content)))
        except (ValueError, KeyError) as error:
            self.broken.append(f"{operation} {status}: {error!r}: {content[:200]!r}")

    def _note_client(self, operation: Operation, user_agent: str, status: int) -> None:
        if found := _RECORDING.fullmatch(user_agent):
            self.recordings[operation].add(found[1])
        if (found := _SDK.match(user_agent)) and status == 200:
            self.sdks[operation].add((found[1], found[2]))

    def _note_events(self, operation: Operation, content_type: str, content: bytes) -> None:
        *frames, _ = content.decode().split("\n\n")
        for frame in frames:
            lines = dict(line.split(": ", 1) for line in frame.split("\n") if not line.startswith(":"))
            if lines and lines["data"] != "[DONE]":
                self._keep(Seen(operation, 200, content_type, json.loads(lines["data"]), lines["event"]))

    def _keep(self, seen: Seen) -> None:
        key = (seen.operation, seen.status, seen.content_type, seen.event, _shape(seen.body))
        self.examples.setdefault(key, seen)


class _Overheard(httpx.SyncByteStream):
    """A body whose bytes are told once all of them have come."""

    def __init__(self, stream: httpx.SyncByteStream, tell: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._tell = tell

    def __iter__(self) -> Iterator[bytes]:
        content = []
        for piece in self._stream:
            content.append(piece)
            yield piece
        self._tell(b"".join(content))

    def close(self) -> None:
        self._stream.close()


_TEMPLATES = (
    *("/assistants", "/models", "/threads", "/threads/runs"),
    *("/assistants/{assistant_id}", "/models/{model}", "/threads/{thread_id}"),
    *("/threads/{thread_id}/messages", "/threads/{thread_id}/messages/{message_id}"),
    *("/threads/{thread_id}/runs", "/threads/{thread_id}/runs/{run_id}", "/threads/{thread_id}/runs/{run_id}/cancel"),
    *("/files", "/files/{file_id}", "/files/{file_id}/content"),
    *("/uploads", "/uploads/{upload_id}/parts", "/uploads/{upload_id}/complete", "/uploads/{upload_id}/cancel"),
    *("/vector_stores", "/vector_stores/{vector_store_id}", "/vector_stores/{vector_store_id}/search"),
    *("/vector_stores/{vector_store_id}/files", "/vector_stores/{vector_store_id}/files/{file_id}"),
    "/vector_stores/{vector_store_id}/files/{file_id}/content",
    *(f"/vector_stores/{{vector_store_id}}/file_batches{end}" for end in ("", "/{batch_id}", "/{batch_id}/cancel")),
    "/vector_stores/{vector_store_id}/file_batches/{batch_id}/files",
    "/threads/{thread_id}/runs/{run_id}/submit_tool_outputs",
    "/threads/{thread_id}/runs/{run_id}/events",
    *("/threads/{thread_id}/runs/{run_id}/steps", "/threads/{thread_id}/runs/{run_id}/steps/{step_id}"),
)
"""Paths with names for their ids; where two fit, the first counts."""


def _matches(template: str, path: str) -> bool:
    return re.fullmatch(re.sub(r"{\w+}", "[^/]+", template), path) is not None


def _shape(value: Any, key: str = "") -> object:
    match value:
        case dict() if key in _FREE:
            return dict
        case dict():
            return tuple((name, _shape(item, name)) for name, item in value.items())
        case list():
            return (list, frozenset(_shape(item, key) for item in value))
        case str() if key in _KINDS:
            return value
        case float() | int() if not isinstance(value, bool):
            return (type(value), value < 0)
        case _:
            return type(value)


WITNESS = Witness()
