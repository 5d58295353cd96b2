"""The rehearsal model over HTTP: it plays plans and remembers requests. What is answered is decided in `script`."""

import asyncio
import contextlib
import hashlib
import socket
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, assert_never

import orjson
import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adlatus.rehearsal.chat import BadRequestError, ChatRequest, parse, read
from adlatus.rehearsal.script import (
    Begin,
    Fault,
    Finish,
    Garble,
    HangUp,
    Plan,
    Refuse,
    Say,
    Stall,
    Wait,
    plan,
)
from adlatus.rehearsal.voice import StreamVoice, Voice, WholeVoice, error_body

MODEL = "rehearsal"
KEPT_REQUESTS = 1_000
KEPT_BYTES = 64 * 2**20
KEPT_FAILURES = 10_000
WRITE_BYTES = 65_536
HANG_UP = "adlatus.rehearsal.hang_up"


def create_app() -> Starlette:
    """The ASGI app with a memory of its own. Only the servers of this module let it close a connection (HANG_UP)."""
    rehearsal = _Rehearsal()
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", rehearsal.complete, methods=["POST"]),
            Route("/v1/models", _list_models),
            Route("/v1/models/{model:path}", _retrieve_model),
            Route("/requests", rehearsal.list_requests),
            Route("/requests", rehearsal.clear_requests, methods=["DELETE"]),
        ],
        exception_handlers={BadRequestError: _bad_request, HTTPException: _no_route, ClientDisconnect: _nobody},
    )
    app.router.redirect_slashes = False
    return app


@contextlib.asynccontextmanager
async def running(port: int = 0, host: str = "127.0.0.1") -> AsyncIterator[str]:
    """Serve in the current event loop and yield the base URL, `http://HOST:PORT/v1`.

    On exit open connections are broken off, so no request, however silent, outlives the block.
    """
    with socket.create_server((host, port), backlog=2048) as listener:  # listens from now on: nobody has to wait
        # asyncio sets this only on sockets that name their protocol; without it keep-alive requests take 44 ms.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        server = _GuestServer(_config(host, port))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield f"http://{host}:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            await serving


async def serve(host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Where it listens is logged at level INFO by the logger `uvicorn.error`."""
    await _Server(_config(host, port)).serve()


class _Rehearsal:
    """One server's memory: the last requests, and which scripted failures have already happened how often."""

    def __init__(self) -> None:
        self._requests: deque[tuple[int, str, bytes]] = deque()
        self._kept_bytes = 0
        self._failures: dict[tuple[bytes, int], int] = {}

    async def complete(self, request: Request) -> Response:
        raw = await request.body()
        body = parse(raw)
        self._keep(request.url.path, raw)
        chat = read(body)
        voice: Voice = StreamVoice(chat) if chat.stream else WholeVoice(chat)
        return _Answer(plan(chat), voice, partial(self._strikes, chat))

    async def list_requests(self, _: Request) -> Response:
        kept = [{"at": at, "path": path, "body": orjson.Fragment(raw)} for at, path, raw in self._requests]
        return _json({"object": "list", "data": kept})

    async def clear_requests(self, _: Request) -> Response:
        self._requests.clear()
        self._kept_bytes = 0
        return Response(status_code=204)

    def _keep(self, path: str, raw: bytes) -> None:
        self._requests.append((int(time.time()), path, raw))
        self._kept_bytes += len(raw)
        while len(self._requests) > KEPT_REQUESTS or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._requests.popleft()[2])

    def _strikes(self, chat: ChatRequest, position: int, times: int | None) -> bool:
        """Whether the failure at this position of the plan befalls this request; if so, that is counted."""
        if times is None:
            return True
        messages = orjson.dumps(chat.messages, option=orjson.OPT_SORT_KEYS)
        key = (hashlib.sha256(messages).digest(), position)
        happened = self._failures.get(key, 0)
        if happened >= times:
            return False
        self._failures[key] = happened + 1
        if len(self._failures) > KEPT_FAILURES:
            del self._failures[next(iter(self._failures))]
        return True


class _Answer(Response):
    """One plan, played to one client. The head of the answer is sent with its first bytes, not before."""

    def __init__(self, events: Plan, voice: Voice, strikes: Callable[[int, int | None], bool]) -> None:
        super().__init__()
        self._events = events
        self._voice = voice
        self._strikes = strikes
        self._unsent = bytearray()
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        for position, event in enumerate(self._events):
            match event:
                case Refuse(times=times) | HangUp(times=times) if not self._strikes(position, times):
                    continue
                case Wait(seconds):
                    await self._flush(send)
                    if await _gone(receive, seconds):
                        return
                case Refuse():
                    await _refusal(event)(scope, receive, send)
                    return
                case Fault(message) if not self._voice.live:
                    await _error(500, message)(scope, receive, send)
                    return
                case HangUp():
                    await self._flush(send, early=True)
                    scope["extensions"][HANG_UP]()
                    await _stay(receive)
                    return
                case Stall():
                    await self._flush(send)
                    await _stay(receive)
                    return
                case Begin() | Say() | Garble():
                    self._unsent += self._voice.write(event)
                    if len(self._unsent) > WRITE_BYTES:
                        await self._flush(send)
                case Fault() | Finish():
                    self._unsent += self._voice.write(event)
                    await self._flush(send, last=True)
                    return
                case _:
                    assert_never(event)

    async def _flush(self, send: Send, *, early: bool = False, last: bool = False) -> None:
        """Send what is there; a voice that is not live speaks only at the end, or `early` if there will be no end."""
        if not self._unsent or not (self._voice.live or early or last):
            return
        if not self._begun:
            headers = [(b"content-type", self._voice.media_type.encode()), (b"cache-control", b"no-cache")]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            self._begun = True
        await send({"type": "http.response.body", "body": bytes(self._unsent), "more_body": not last})
        self._unsent.clear()


async def _gone(receive: Receive, within_s: float) -> bool:
    """Wait so long, unless the client goes first: then at once True."""
    try:
        async with asyncio.timeout(within_s):
            await _stay(receive)
    except TimeoutError:
        return False
    return True


async def _stay(receive: Receive) -> None:
    """Wait until the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass


async def _list_models(_: Request) -> Response:
    return _json({"object": "list", "data": [_model(MODEL)]})


async def _retrieve_model(request: Request) -> Response:
    return _json(_model(request.path_params["model"]))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "adlatus"}


async def _bad_request(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, BadRequestError)
    return _error(400, exc.message, param=exc.param)


async def _no_route(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    called = f"{request.method} {request.url.path}"
    if exc.status_code == 405:
        return _error(405, f"Not allowed: {called}. Perhaps you meant another HTTP method?", headers=exc.headers)
    return _error(exc.status_code, f"Invalid URL ({called})")


async def _nobody(_: Request, __: Exception) -> Response:
    """The client left before it had sent its request: what is answered reaches nobody."""
    return Response(status_code=400)


def _refusal(refuse: Refuse) -> Response:
    message = f"The rehearsal model was told to fail with HTTP status {refuse.status}."
    headers = {"retry-after": refuse.retry_after} if refuse.retry_after else None
    return _error(refuse.status, message, code=refuse.code, headers=headers)


def _error(status: int, message: str, **rest: Any) -> Response:
    headers = rest.pop("headers", None)
    return Response(error_body(status, message, **rest), status, headers, "application/json")


def _json(content: object) -> Response:
    return Response(orjson.dumps(content), media_type="application/json")


class _Connection(HttpToolsProtocol):
    """A connection that the app may close in the middle of an answer: HANG_UP in the scope's extensions."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: self.transport.close}  # type: ignore[dict-item]


class _Server(uvicorn.Server):
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class _GuestServer(_Server):
    """A server inside somebody else's event loop, whose signals are not ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _config(host: str, port: int) -> uvicorn.Config:
    return uvicorn.Config(
        create_app(),
        host=host,
        port=port,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
