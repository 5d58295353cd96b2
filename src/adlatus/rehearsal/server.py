"""The rehearsal model over HTTP. What is answered is decided in `markers`, or in `matching` if there is a script."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import uvicorn
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from adlatus.errors import StartupError
from adlatus.listening import GuestServer
from adlatus.rehearsal import chat, embeddings, markers
from adlatus.rehearsal.chat import BadRequestError
from adlatus.rehearsal.matching import Playback
from adlatus.rehearsal.memory import Entry, Failures, RequestLog
from adlatus.rehearsal.playing import HANG_UP, Noted, Played, error, json
from adlatus.rehearsal.script import Script, load
from adlatus.rehearsal.voice import StreamVoice, Voice, WholeVoice
from adlatus.settings import host_name, is_loopback

MODEL = "rehearsal"
_Answerer: TypeAlias = Callable[[dict[str, Any], Entry], Awaitable[Response]]


def create_app(script: Script | None = None) -> Starlette:
    """The ASGI app with a memory of its own. Only the servers of this module let it close a connection (HANG_UP)."""
    rehearsal = _Rehearsal(script)
    app = Starlette(
        routes=[
            Route("/v1/chat/completions", rehearsal.logged(rehearsal.complete), methods=["POST"]),
            Route("/v1/embeddings", rehearsal.logged(rehearsal.embed), methods=["POST"]),
            Route("/v1/models", _list_models),
            Route("/v1/models/{model:path}", _retrieve_model),
            Route("/requests", rehearsal.list_requests),
            Route("/requests", rehearsal.clear_requests, methods=["DELETE"]),
            Route("/script", rehearsal.list_exchanges),
        ],
        exception_handlers={BadRequestError: _bad_request, HTTPException: _no_route, ClientDisconnect: _nobody},
    )
    app.router.redirect_slashes = False
    return app


@contextlib.asynccontextmanager
async def running(port: int = 0, host: str = "127.0.0.1", script: Path | None = None) -> AsyncIterator[str]:
    """Serve in the current event loop and yield the base URL, `http://HOST:PORT/v1`. Raises `StartupError`.

    On exit open connections are broken off, so no request, however silent, outlives the block.
    """
    app = create_app(load(script) if script else None)
    with _listen(host, port) as listener:
        server = _Server(_config(_LocalOnly(app) if is_loopback(host) else app))
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            shown = f"[{host.strip('[]')}]" if ":" in host else host
            yield f"http://{shown}:{listener.getsockname()[1]}/v1"
        finally:
            server.should_exit = True
            await serving


class _Rehearsal:
    """What one server answers, and what it remembers."""

    def __init__(self, script: Script | None) -> None:
        self._playback = Playback(script) if script else None
        self._log = RequestLog()
        self._failures = Failures()

    def logged(self, answer: _Answerer) -> Callable[[Request], Awaitable[Response]]:
        """The endpoint that answers JSON in this way, and writes the log."""

        async def endpoint(request: Request) -> Response:
            raw = await request.body()
            body = chat.parse(raw)
            entry = self._log.keep(request.url.path, raw)
            try:
                response = await answer(body, entry)
            except BadRequestError as exc:
                response = _refused(exc)
            return Noted(response, entry)

        return endpoint

    async def complete(self, body: dict[str, Any], entry: Entry) -> Response:
        request = chat.read(body)
        if self._playback:
            entry.exchange, plan = self._playback.answer(request)
        else:
            plan = markers.plan(request)
        voice: Voice = StreamVoice(request) if request.stream else WholeVoice(request)
        return Played(plan, voice, partial(self._failures.strikes, request))

    async def embed(self, body: dict[str, Any], _: Entry) -> Response:
        # in a thread, because two thousand long inputs take seconds
        return json(await asyncio.to_thread(embeddings.answer, embeddings.read(body)))

    async def list_requests(self, _: Request) -> Response:
        return json({"object": "list", "data": self._log.entries()})

    async def list_exchanges(self, _: Request) -> Response:
        if self._playback is None:
            return error(404, "There is no script: set ADLATUS_REHEARSAL_SCRIPT, or start with --script FILE.")
        return json({"object": "list", "data": self._playback.exchanges()})

    async def clear_requests(self, _: Request) -> Response:
        """All that is remembered goes, as if the server had just started."""
        self._log.clear()
        self._failures.clear()
        if self._playback:
            self._playback.restart()
        return Response(status_code=204)


async def _list_models(_: Request) -> Response:
    return json({"object": "list", "data": [_model(MODEL), _model(embeddings.MODEL)]})


async def _retrieve_model(request: Request) -> Response:
    return json(_model(request.path_params["model"]))


def _model(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "adlatus"}


async def _bad_request(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, BadRequestError)
    return _refused(exc)


def _refused(exc: BadRequestError) -> Response:
    return error(400, exc.message, param=exc.param, code=exc.code)


async def _no_route(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    called = f"{request.method} {request.url.path}"
    if exc.status_code == 405:
        return error(405, f"Not allowed: {called}. Perhaps you meant another HTTP method?", headers=exc.headers)
    return error(exc.status_code, f"Invalid URL ({called})")


async def _nobody(_: Request, __: Exception) -> Response:
    """The client left before it had sent its request: what is answered reaches nobody."""
    return Response(status_code=400)


class _LocalOnly:
    """Keeps web pages out: also those whose own name leads to this machine, and which could read what was asked."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        named = [f"//{headers.get('host', '')}", *headers.getlist("origin")]
        app = self._app if all(is_loopback(host_name(url)) for url in named) else _NOT_LOCAL
        await app(scope, receive, send)


_NOT_LOCAL = error(403, "The rehearsal model is for this machine only: use http://127.0.0.1, not from a web page.")


class _Connection(HttpToolsProtocol):
    """A connection that the app may close in the middle of an answer: HANG_UP in the scope's extensions."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {HANG_UP: self.transport.close}  # type: ignore[dict-item]


class _Server(GuestServer):
    """Leaves nobody's connection open when it stops."""

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    """The socket, which listens from now on, so that nobody has to wait for the server."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host.strip("[]"), port), family=family, backlog=2048)
    except OSError as exc:
        raise StartupError(f"cannot listen on {host}:{port}: {exc.strerror}. Choose another --port.") from exc
    # asyncio sets this only on sockets that name their protocol; without it keep-alive requests take 44 ms.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


def _config(app: ASGIApp) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
    )
