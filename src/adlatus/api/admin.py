"""A listener of its own for operators (`ADLATUS_ADMIN_BIND`): /healthz, /readyz with details, /metrics, without a key.

It is for those who reach its address. Web pages are kept out: there are no CORS headers, what comes from a page of
another origin is refused, and on a loopback address so is every `Host` that is not loopback, because a page whose own
name leads to this machine could read the answers otherwise.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import Request, Response
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from adlatus.api.middleware import respond
from adlatus.api.operations import METRICS_TYPE, healthz, ready_response
from adlatus.errors import ApiError, Forbidden, MethodNotAllowed, NotFound, body
from adlatus.listening import GuestServer
from adlatus.measuring import Gauges
from adlatus.probing import Probes
from adlatus.resources import Resources
from adlatus.settings import host_name, is_loopback
from adlatus.wire.events import compact

PATHS = "/healthz, /readyz and /metrics"


@asynccontextmanager
async def administered(
    listener: socket.socket | None, resources: Resources, probes: Probes, gauges: Gauges
) -> AsyncIterator[None]:
    """Answer operators on this socket until the block is left; nothing happens where there is none."""
    if listener is None:
        yield
        return
    app = _KeepPagesOut(_app(resources, probes, gauges), loopback=is_loopback(listener.getsockname()[0]))
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=1,
    )
    server = GuestServer(config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        yield
    finally:
        server.should_exit = True
        await serving


def _app(resources: Resources, probes: Probes, gauges: Gauges) -> ASGIApp:
    async def health(_request: Request) -> Response:
        return await healthz()

    async def ready(_request: Request) -> Response:
        return ready_response(await probes.all(), resources)

    async def metrics(_request: Request) -> Response:
        return Response(await gauges.render(), media_type=METRICS_TYPE)

    routes = [Route("/healthz", health), Route("/readyz", ready), Route("/metrics", metrics)]
    return Starlette(routes=routes, exception_handlers={HTTPException: _refused})


async def _refused(_request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"This address is for operators and has {PATHS} only, to GET."
    refusal: ApiError = MethodNotAllowed(message) if error.status_code == MethodNotAllowed.status else NotFound(message)
    return Response(compact(body(refusal)), refusal.status, error.headers, media_type="application/json")


class _KeepPagesOut:
    def __init__(self, app: ASGIApp, *, loopback: bool) -> None:
        self._app = app
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        if "origin" in headers or headers.get("sec-fetch-site") in ("cross-site", "same-site"):
            await respond(Forbidden("This address is for operators, not for web pages."), send)
        elif self._loopback and not is_loopback(host_name(f"//{headers.get('host', '')}")):
            await respond(Forbidden("This address is on loopback and answers to loopback names only."), send)
        else:
            await self._app(scope, receive, send)
