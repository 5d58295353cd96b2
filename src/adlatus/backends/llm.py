"""The models: a streaming client for any OpenAI-compatible `/v1/chat/completions`.

Owns retries; what answers look like is `chunks`, what refusals mean is `refusals`. Knows nothing of runs.
"""

import asyncio
import time
from collections.abc import AsyncGenerator
from itertools import count

import aiohttp
import httpx
import orjson
import structlog

from adlatus.backends.chunks import Chunk, Pieces, Reading, is_stream, read_on
from adlatus.backends.refusals import Again, ModelError, not_a_model, not_whole, refusal, wait_before
from adlatus.backends.routing import Endpoint, Route, Routing
from adlatus.backends.upstreams import (
    CONNECT_S,
    TRANSPORT_ERRORS,
    Clients,
    Head,
    beginning,
    headers_of,
    key_refused,
    the,
    unreachable,
)
from adlatus.wire.common import Json

log = structlog.get_logger(__name__)

ATTEMPTS = 4

LOADING_S = 60.0
"""How long a server that is still loading its model is waited for; the run's own deadline may come first."""

LIST_S = 5.0
"""How long an endpoint's list of models is waited for: a client waits as long as the slowest endpoint takes."""

LIST_BYTES = 4 * 2**20
ERROR_BYTES = 2**16
"""What is read of a list of models, and of the body of an error."""

_UNTIMED = aiohttp.ClientTimeout(sock_connect=CONNECT_S)
"""Silences are timed here: a timer for each piece of a body costs a seventh of what reading it does."""

_ACCEPT = {"accept": "text/event-stream, application/json"}


class Llm:
    """The client of every endpoint of a routing table. Raises `ModelError` only."""

    def __init__(self, clients: Clients, routing: Routing) -> None:
        self._clients = clients
        self.routing = routing

    async def stream(self, route: Route, request: Json) -> AsyncGenerator[list[Chunk]]:
        """The chunks of an answer, in the batches in which they arrive.

        429, 5xx and connection errors are tried again with backoff as long as nothing has arrived, a server that is
        loading its model for a minute.
        """
        request = route.adapted(request | {"stream": True, "stream_options": {"include_usage": True}})
        loading_until = time.monotonic() + LOADING_S
        for attempt in count(1):
            begun = False
            try:
                async for chunks in self._attempt(route, request):
                    begun = True
                    yield chunks
            except Again as again:
                wait_s = wait_before(attempt + 1, again.wait_s)
                last = time.monotonic() >= loading_until if again.loading else attempt >= ATTEMPTS
                if begun or last or wait_s is None:
                    raise again.error from again
                if attempt == 1 or not again.loading:
                    said = str(again.error)
                    log.warning("model request failed, trying again", error=said, wait_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)
            else:
                return

    async def models(self, endpoint: Endpoint) -> list[Json]:
        """What an endpoint's `GET /models` lists, as far as we read it; nothing where it has no such list."""
        if not endpoint.lists_models:
            return []
        asking = self._clients[endpoint].stream("GET", endpoint.url("/models"))
        try:
            async with asyncio.timeout(LIST_S), asking as response:
                content = await beginning(response.aiter_bytes(), LIST_BYTES)
        except (TimeoutError, *TRANSPORT_ERRORS) as error:
            raise ModelError(unreachable(endpoint, error), "server_error") from error
        if response.status_code != httpx.codes.OK:
            raise refusal(response, content, endpoint, None).error
        try:
            listed = orjson.loads(content)["data"] or []  # Ollama without models lists null
            return [model for model in listed if isinstance(model.get("id"), str)]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise not_a_model(endpoint, response) from error

    async def reach(self, endpoint: Endpoint) -> None:
        """Return if an endpoint answers and takes this server's key; it need not have a list of its models."""
        asking = self._clients[endpoint].stream("GET", endpoint.url("/models"))
        try:
            async with asyncio.timeout(LIST_S), asking as response:
                status = response.status_code
        except (TimeoutError, *TRANSPORT_ERRORS) as error:
            raise ModelError(unreachable(endpoint, error), "server_error") from error
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise ModelError(key_refused(endpoint, status), "server_error")
        if status >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise ModelError(f"{the(endpoint)} answers with status {status}.", "server_error")

    async def _attempt(self, route: Route, request: Json) -> AsyncGenerator[list[Chunk]]:
        endpoint = route.endpoint
        answering, answer = False, Reading()
        asking = self._clients.session(endpoint).post(
            str(endpoint.url("/chat/completions", route.model)),
            data=orjson.dumps(request),
            headers=headers_of(endpoint) | _ACCEPT,
            allow_redirects=False,
            timeout=_UNTIMED,
        )
        try:
            async with asyncio.timeout(endpoint.timeout_s):
                response = await asking
            async with response:
                head, body = Head(response.status, response.headers), response.content
                if head.status_code != httpx.codes.OK:
                    async with asyncio.timeout(endpoint.timeout_s):
                        said = await beginning(body.iter_any(), ERROR_BYTES)
                    raise refusal(head, said, endpoint, route.model)
                answering = True
                with Pieces(body, endpoint.timeout_s) as pieces:
                    while not answer.over:
                        if chunks := answer.feed(await pieces.next()):
                            yield chunks
                        if answer.fault:
                            raise answer.fault if answer.fault.code == "invalid_prompt" else Again(answer.fault)
                if answer.done:
                    await read_on(body)
                if not answer.begun and not is_stream(head):
                    raise not_a_model(endpoint, head)
        except TimeoutError as error:
            raise Again(ModelError(f"{the(endpoint)} did not answer in time.", "server_error")) from error
        except TRANSPORT_ERRORS as error:
            if not answering:
                raise Again(ModelError(unreachable(endpoint, error), "server_error")) from error
        if answer.gave_up or not answer.finished:  # told at the end, for the usage still comes after a reason
            raise Again(not_whole(endpoint, answer.begun, answer.gave_up))
