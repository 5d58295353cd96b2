"""The HTTP clients of the model endpoints, one connection pool each; shared by the model's client and the relays."""

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy

import aiohttp
import httpx
import structlog
from httpx_aiohttp import AiohttpTransport

from adlatus.backends.routing import Endpoint
from adlatus.settings import is_loopback

log = structlog.get_logger(__name__)

CONNECT_S = 10.0
KEEP_ALIVE_S = 3.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn and llama.cpp close it, because a
request that meets the closing has to be sent again."""

TRANSPORT_ERRORS = (httpx.HTTPError, aiohttp.ClientError)
"""What a client raises when an endpoint cannot be reached, or leaves in the middle of its answer."""

Clients = Mapping[Endpoint, httpx.AsyncClient]


@asynccontextmanager
async def open_clients(endpoints: Iterable[Endpoint]) -> AsyncIterator[Clients]:
    """A client for each endpoint, until the block is left."""
    async with AsyncExitStack() as stack:
        yield {endpoint: await stack.enter_async_context(_client(endpoint)) for endpoint in endpoints}


def _client(endpoint: Endpoint) -> httpx.AsyncClient:
    """`timeout_s` is the longest silence, before the first token too: large local models load slowly."""
    return httpx.AsyncClient(
        headers={"content-type": "application/json", **endpoint.headers},
        # httpx's own transport costs about twice the CPU per streamed chunk
        # 0 is no limit: with None the transport would leave aiohttp's own default of 100 in place
        transport=AiohttpTransport(limits=httpx.Limits(max_connections=0, keepalive_expiry=KEEP_ALIVE_S)),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),  # one client's would go with another's requests
        timeout=httpx.Timeout(endpoint.timeout_s, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=not is_loopback(endpoint.url("").host),  # proxies are for what is elsewhere
    )


async def beginning(response: httpx.Response, size_bytes: int) -> bytes:
    """The body as far as so many bytes: what an endpoint sends must not fill this server's memory."""
    pieces, read_bytes = [], 0
    async for piece in response.aiter_bytes():
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
