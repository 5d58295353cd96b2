"""The HTTP clients of the model endpoints, one connection pool each; shared by the model's client and the relays."""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Protocol

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport

from adlatus.backends.routing import Endpoint
from adlatus.settings import is_loopback
from adlatus.telemetry.tracing import Tracing

log = structlog.get_logger(__name__)

CONNECT_S = 10.0
KEEP_ALIVE_S = 3.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn and llama.cpp close it, because a
request that meets the closing has to be sent again."""

TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError)
"""What a client raises when an endpoint cannot be reached, or leaves in the middle of its answer."""


class Clients:
    """The clients of all endpoints: httpx, and the session below it, by which a stream costs half as much CPU."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        self._traces = [_telling(tracing)] if tracing else []
        self._clients: dict[Endpoint, httpx.AsyncClient] = {}
        self._sessions: dict[Endpoint, aiohttp.ClientSession] = {}

    def __getitem__(self, endpoint: Endpoint) -> httpx.AsyncClient:
        return self._clients[endpoint]

    def session(self, endpoint: Endpoint) -> aiohttp.ClientSession:
        """What both send their requests through: one pool of connections."""
        return self._sessions[endpoint]

    async def add(self, endpoint: Endpoint, stack: AsyncExitStack) -> None:
        """Open the clients of an endpoint, until the stack closes."""
        session = await stack.enter_async_context(_session(endpoint, self._traces))
        self._sessions[endpoint] = session
        self._clients[endpoint] = await stack.enter_async_context(_client(endpoint, session))


class Answer(Protocol):
    """The head of an endpoint's answer, whichever client has got it."""

    @property
    def status_code(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> Mapping[str, str]:
        """Its headers, whatever the case of their names."""


@dataclass(frozen=True)
class Head:
    """The head of a session's answer."""

    status_code: int
    headers: Mapping[str, str]


@asynccontextmanager
async def open_clients(endpoints: Iterable[Endpoint], tracing: Tracing | None = None) -> AsyncIterator[Clients]:
    """A client for each endpoint, until the block is left. With `tracing` they are told whose trace they belong to."""
    async with AsyncExitStack() as stack:
        clients = Clients(tracing)
        for endpoint in endpoints:
            await clients.add(endpoint, stack)
        yield clients


def _telling(tracing: Tracing) -> aiohttp.TraceConfig:
    """What adds the headers of the trace to every request."""

    async def begin(_session: aiohttp.ClientSession, _: object, request: aiohttp.TraceRequestStartParams) -> None:
        request.headers.update(tracing.headers())

    config = aiohttp.TraceConfig()
    config.on_request_start.append(begin)
    return config


def _session(endpoint: Endpoint, traces: list[aiohttp.TraceConfig]) -> aiohttp.ClientSession:
    """`timeout_s` is the longest silence, before the first token too: large local models load slowly."""
    elsewhere = not is_loopback(endpoint.url("").host)
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(
            limit=0,  # none: what is asked at once is limited elsewhere
            keepalive_timeout=KEEP_ALIVE_S,
            ssl=httpx.create_ssl_context(trust_env=elsewhere) if endpoint.url("").scheme == "https" else True,
        ),
        cookie_jar=aiohttp.DummyCookieJar(),  # one client's would go with another's requests
        timeout=aiohttp.ClientTimeout(sock_connect=CONNECT_S, sock_read=endpoint.timeout_s),
        trust_env=elsewhere,  # proxies are for what is elsewhere
        trace_configs=traces,
    )


def _client(endpoint: Endpoint, session: aiohttp.ClientSession) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        headers=headers_of(endpoint),
        transport=AiohttpTransport(client=session),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        timeout=httpx.Timeout(endpoint.timeout_s, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=False,  # the session has read it
    )


def headers_of(endpoint: Endpoint) -> dict[str, str]:
    """What goes with every request to an endpoint."""
    return {"content-type": "application/json", **endpoint.headers}


async def beginning(body: AsyncIterable[bytes], size_bytes: int) -> bytes:
    """A body as far as so many bytes: what an endpoint sends must not fill this server's memory."""
    pieces, read_bytes = [], 0
    async for piece in body:
        pieces.append(piece)
        read_bytes += len(piece)
        if read_bytes >= size_bytes:
            break
    return b"".join(pieces)[:size_bytes]


def unreachable(endpoint: Endpoint, error: Exception) -> str:
    """What to say of an endpoint that cannot be reached; the log has the details."""
    log.warning("model endpoint unreachable", endpoint=endpoint.name, base_url=endpoint.shown, error=told(error))
    return f"{the(endpoint)} could not be reached: check that it runs, and {endpoint.set_by['base_url']}."


def told(error: Exception) -> str:
    """An error for the log. Never its `repr`, nor the text of aiohttp's: those repeat the request, and so its key."""
    said = error.message if isinstance(error, aiohttp.ClientResponseError) else error
    return f"{type(error).__name__}: {said}"


def key_refused(endpoint: Endpoint, status: int) -> str:
    """What to say of an endpoint that does not take this server's key."""
    return f"{the(endpoint)} refused its API key ({status}): check {endpoint.set_by['api_key']}."


def the(endpoint: Endpoint) -> str:
    """The endpoint at the beginning of a sentence."""
    return f"The model endpoint ({endpoint.name})"
