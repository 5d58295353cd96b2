"""What a connection may cost before anyone knows whose it is: how long its heads are, and how long it keeps us waiting.

uvicorn bounds neither. The limits are on bytes and on silence, never on how long an answer or an upload takes. Who is
too slow is answered with 400, not with 408, which SDKs would send again.
"""

import resource
from asyncio import TimerHandle, Transport
from dataclasses import dataclass
from typing import Any, ClassVar

import structlog
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from adlatus.errors import ApiError, HeadTooLarge, InvalidRequest, Unavailable, UrlTooLong, body
from adlatus.ids import new_request_id
from adlatus.wire.events import compact

log = structlog.get_logger(__name__)

_OTHER_FILES = 512
"""Descriptors that are left for the database, models, files and sandboxes."""


@dataclass(frozen=True)
class Limits:
    """Of one process and of each of its connections."""

    connections: int = 4096
    url_bytes: int = 32 * 2**10
    head_bytes: int = 64 * 2**10
    """URL and headers together; also trailers, and how a chunked body is cut beyond 16 bytes for each of its own."""
    headers: int = 200
    pipelined: int = 8
    head_s: float = 20
    """Until the head of a request is whole, from the connection or the head's first byte on."""
    body_s: float = 30
    body_bytes: int = 4096
    """The least that must come of a body in `body_s`, while the server reads."""
    linger_s: float = 5
    linger_bytes: int = 8 * 2**20
    """What is read and thrown away of a request that has its answer already, so that its client sees the answer."""
    unread_s: float = 300
    """How long a client may take nothing of an answer that waits for it."""


def limits_for(connections: int) -> Limits:
    """The limits with as many connections as wanted, or as this process may have open files for."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < connections + _OTHER_FILES:
        wanted = connections + _OTHER_FILES
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        connections = max(1, min(connections, soft - min(_OTHER_FILES, soft // 2)))
    return Limits(connections=connections)


class Guarded(HttpToolsProtocol):
    """A connection that ends when it costs more than its limits say."""

    limits: ClassVar[Limits]
    waiting: ClassVar[dict["Guarded", None]]
    """Connections without a request, the one that has been so for longest first."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused = False
        self._problem: ApiError | None = None  # why the parser was stopped
        self._open = 0  # requests without a whole answer
        self._head_since: float | None = None
        self._head_bytes = self._framing_bytes = self._body_bytes = self._fed_body_bytes = self._discarded_bytes = 0
        self._reads_body = False
        self._since = 0.0  # of what a look waits for: bytes of a body, the end of what is thrown away
        self._bytes_then = 0
        self._unread_since: float | None = None
        self._unread_bytes = 0
        self._next_look: TimerHandle | None = None

    # --- The connection

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head_since = self.loop.time()
        self._look_later()
        if len(self.connections) > self.limits.connections:
            if (longest := next(iter(self.waiting), None)) is None:
                self._refuse(Unavailable("This server has as many connections as it takes. Try again in a moment."))
                return
            del self.waiting[longest]
            longest.transport.abort()
        self.waiting[self] = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.waiting.pop(self, None)
        if self._next_look:
            self._next_look.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused or (self._reads_body and not self._open):
            self._discarded_bytes += len(data)
            if self._discarded_bytes > self.limits.linger_bytes:
                self.transport.abort()
                return
            if self._refused:
                return
        if not self._open and not self._reads_body and self._head_since is None:
            self._head_since = self.loop.time()
        self._fed_body_bytes = 0  # of one request or of several
        super().data_received(data)
        self._framing_bytes += len(data) - self._fed_body_bytes
        allowed_bytes = 2 * self.limits.head_bytes + 16 * self._body_bytes
        if self._framing_bytes > allowed_bytes and (self._head_since is not None or self._reads_body):
            self._refuse(self._too_large())

    def send_400_response(self, msg: str) -> None:
        """What the parser does not take, in OpenAI's shape."""
        self._refuse(self._problem or InvalidRequest(f"{msg} It does not follow HTTP/1.1."))

    # --- What the parser finds

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head_since is None:
            self._head_since = self.loop.time()
        self._head_bytes = self._framing_bytes = self._body_bytes = self._discarded_bytes = 0

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > self.limits.url_bytes:
            self._stop_parsing(
                UrlTooLong(f"The URL is longer than {self.limits.url_bytes} bytes. Send long values in the body.")
            )

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value) + 4
        if len(self.headers) > self.limits.headers or self._head_bytes + len(self.url) > self.limits.head_bytes:
            self._stop_parsing(self._too_large())

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= self.limits.pipelined:
            self._stop_parsing(InvalidRequest("Wait for answers before you send more requests on a connection."))
        self.waiting.pop(self, None)
        self._head_since = None
        self._reads_body, self._since, self._bytes_then = True, self.loop.time(), 0
        super().on_headers_complete()
        self._open += 1

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        self._fed_body_bytes += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._reads_body = False
        super().on_message_complete()

    def on_response_complete(self) -> None:
        self._open -= 1
        self._since = self.loop.time()
        super().on_response_complete()
        if not self._open and not self.transport.is_closing():
            self.waiting[self] = None

    def _stop_parsing(self, problem: ApiError) -> None:
        self._problem = problem
        raise problem  # the parser wraps it, and calls `send_400_response` in the end

    def _too_large(self) -> ApiError:
        return HeadTooLarge(
            f"The request has more than {self.limits.headers} headers, or more than {self.limits.head_bytes} bytes "
            "of URL and headers. Send fewer or shorter ones."
        )

    # --- What nothing comes of

    def _look_later(self) -> None:
        limits = self.limits
        self._next_look = self.loop.call_later(
            min(limits.head_s, limits.body_s, limits.linger_s, limits.unread_s) / 4, self._look
        )

    def _look(self) -> None:
        """End the connection if it has kept us waiting for too long."""
        now, limits = self.loop.time(), self.limits
        if self._refused or (self._reads_body and not self._open):
            if now - self._since > limits.linger_s:
                self.transport.abort()
        elif self._takes_nothing(now):
            self._leave("takes nothing of its answer")
        elif self._head_since is not None and now - self._head_since > limits.head_s:
            if self._framing_bytes or self._head_bytes:
                self._refuse(InvalidRequest(f"The head of the request did not come within {limits.head_s:g} seconds."))
            else:
                self._leave("asks for nothing")
        elif self._reads_body:
            self._look_at_body(now)
        if not self.transport.is_closing():
            self._look_later()

    def _look_at_body(self, now: float) -> None:
        limits = self.limits
        if self.flow.read_paused or self._body_bytes - self._bytes_then >= limits.body_bytes:
            self._since, self._bytes_then = now, self._body_bytes
        elif now - self._since > limits.body_s:
            self._refuse(
                InvalidRequest(
                    f"Less than {limits.body_bytes} bytes of the body came within {limits.body_s:g} seconds."
                )
            )

    def _takes_nothing(self, now: float) -> bool:
        left_bytes = self.transport.get_write_buffer_size()
        if not self.flow.write_paused or left_bytes < self._unread_bytes or self._unread_since is None:
            self._unread_since = now if self.flow.write_paused else None
            self._unread_bytes = left_bytes
        return self._unread_since is not None and now - self._unread_since > self.limits.unread_s

    def _refuse(self, error: ApiError) -> None:
        """Answer, if nothing else is being said, read no more of the request, and end the connection soon."""
        if self._refused or self.transport.is_closing():
            return
        only_this = not self._open or (self._open == 1 and not self.cycle.response_started)
        if not only_this:
            self._leave(error.message)
            return
        self._refused, self._since = True, self.loop.time()
        self.waiting.pop(self, None)
        self._unset_keepalive_if_required()
        if self._open:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        request_id, content = new_request_id(), compact(body(error))
        log.info("request refused", status=error.status, why=error.message, request_id=request_id)
        headers = {
            "content-type": "application/json",
            "content-length": str(len(content)),
            "connection": "close",
            "x-request-id": request_id,
            **error.headers,
        }
        lines = [f"{name}: {value}\r\n".encode() for name, value in headers.items()]
        self.transport.write(b"".join([STATUS_LINE[error.status], *lines, b"\r\n", content]))
        self.flow.resume_reading()
        self.transport.write_eof()

    def _leave(self, why: str) -> None:
        log.info("connection ended", why=why)
        self.transport.abort()


def guarded(limits: Limits) -> type[Guarded]:
    """The protocol for one server; its connections count together."""
    return type("GuardedHere", (Guarded,), {"limits": limits, "waiting": {}})
