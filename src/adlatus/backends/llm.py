"""The models: a streaming client for any OpenAI-compatible `/v1/chat/completions`.

Owns retries and the meaning of upstream errors; knows nothing of runs.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, Literal

import httpx
import orjson
import structlog

from adlatus.backends.routing import Endpoint, Route, Routing
from adlatus.backends.upstreams import CONNECT_S, TRANSPORT_ERRORS, Clients, key_refused, the, unreachable

log = structlog.get_logger(__name__)

Json = dict[str, Any]
Chunk = Json
"""One `chat.completion.chunk`, as the upstream sent it."""

ATTEMPTS = 4
BACKOFF_S = 0.5
MAX_WAIT_S = 20.0
"""A `retry-after` above this is not waited for."""

ACCEPT = {"accept": "text/event-stream, application/json"}


class ModelError(Exception):
    """The model gave no answer, or only a part of one. `code` is one of a run's `last_error.code`."""

    def __init__(self, message: str, code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class _Again(Exception):  # noqa: N818 - not an error yet
    """This attempt failed in a way that another may not."""

    def __init__(self, error: ModelError, wait_s: float | None = None) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s


class Llm:
    """The client of every endpoint of a routing table. Raises `ModelError` only."""

    def __init__(self, clients: Clients, routing: Routing) -> None:
        self._clients = clients
        self.routing = routing

    async def stream(self, route: Route, request: Json) -> AsyncGenerator[list[Chunk]]:
        """The chunks of an answer, in the batches in which they arrive.

        429, 5xx and connection errors are tried again with backoff as long as nothing has arrived.
        """
        request = route.adapted(request | {"stream": True, "stream_options": {"include_usage": True}})
        for attempt in range(1, ATTEMPTS + 1):
            begun = False
            try:
                async for chunks in self._attempt(route, request):
                    begun = True
                    yield chunks
            except _Again as again:
                wait_s = _wait_s(attempt, again.wait_s)
                if begun or attempt == ATTEMPTS or wait_s is None:
                    raise again.error from again
                log.warning("model request failed, trying again", error=again.error.message, wait_s=round(wait_s, 2))
                await asyncio.sleep(wait_s)
            else:
                return

    async def models(self, endpoint: Endpoint) -> list[Json]:
        """What an endpoint's `GET /models` lists; nothing where it has no such list."""
        if not endpoint.lists_models:
            return []
        try:
            response = await self._clients[endpoint].get(endpoint.url("/models"), timeout=CONNECT_S)
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, response.content, endpoint, "").error
            listed = orjson.loads(response.content)
            return [model for model in listed["data"] if isinstance(model.get("id"), str)]
        except (*TRANSPORT_ERRORS, orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise ModelError(unreachable(endpoint, error), "server_error") from error

    async def _attempt(self, route: Route, request: Json) -> AsyncGenerator[list[Chunk]]:
        endpoint, answering, finished = route.endpoint, False, False
        asking = self._clients[endpoint].stream(
            "POST", endpoint.url("/chat/completions", route.model), content=orjson.dumps(request), headers=ACCEPT
        )
        try:
            async with asking as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread(), endpoint, route.model, response)
                answering = True
                async for lines in _sse_data(response):
                    chunks, done, error = _parse(lines)
                    finished = finished or done or any(_finishes(chunk) for chunk in chunks)
                    if chunks:
                        yield chunks
                    if error:
                        raise _Again(error)
                    if done:
                        return
        except httpx.ReadTimeout as error:
            raise _Again(ModelError(f"{the(endpoint)} did not answer in time.", "server_error")) from error
        except TRANSPORT_ERRORS as error:
            if not answering:
                raise _Again(ModelError(unreachable(endpoint, error), "server_error")) from error
        if not finished:
            raise _Again(ModelError(f"{the(endpoint)} broke off in the middle of its answer.", "server_error"))


async def _sse_data(response: httpx.Response) -> AsyncIterator[list[bytes]]:
    """The payloads of the `data:` lines, in the batches in which the network delivers them."""
    rest = b""
    async for piece in response.aiter_raw() if "content-encoding" not in response.headers else response.aiter_bytes():
        *lines, rest = (rest + piece).split(b"\n")
        if data := [line[5:].strip() for line in lines if line.startswith(b"data:")]:
            yield data
    if rest.startswith(b"data:"):
        yield [rest[5:].strip()]


def _parse(lines: list[bytes]) -> tuple[list[Chunk], bool, ModelError | None]:
    """The chunks up to the end of the answer or the first fault in it, whether it has ended, and the fault."""
    chunks: list[Chunk] = []
    for line in lines:
        if line == b"[DONE]":
            return chunks, True, None
        try:
            chunk = orjson.loads(line)
        except orjson.JSONDecodeError:
            return chunks, False, ModelError("The model endpoint sent a line that is not JSON.", "server_error")
        if not isinstance(chunk, dict):
            return chunks, False, ModelError("The model endpoint sent a chunk that is not an object.", "server_error")
        if chunk.get("error"):
            said = f"The model endpoint reported an error: {_message(chunk)}"
            return chunks, False, ModelError(said, "server_error")
        chunks.append(chunk)
    return chunks, False, None


def _finishes(chunk: Chunk) -> bool:
    choices = chunk.get("choices")
    return isinstance(choices, list) and any(isinstance(c, dict) and c.get("finish_reason") for c in choices)


def _refusal(
    status: int, content: bytes, endpoint: Endpoint, model: str, response: httpx.Response | None = None
) -> _Again:
    """What an HTTP status other than 200 means. Wrapped in `_Again` only where another attempt may help."""
    try:
        said = _message(orjson.loads(content))
    except orjson.JSONDecodeError:
        said = content[:200].decode(errors="replace").strip()
    where = the(endpoint)
    match status:
        case 429:
            retry_after = response.headers.get("retry-after", "") if response else ""
            wait_s = float(retry_after) if retry_after.replace(".", "", 1).isdigit() else None
            return _Again(ModelError(said or "Rate limit reached for the model.", "rate_limit_exceeded"), wait_s)
        case 401 | 403:
            raise ModelError(f"{key_refused(endpoint, status)} It said: {said}", "server_error")
        case 404:
            raise ModelError(
                f"{where} does not know the model '{model}' (404): name one that it has, or set "
                f"{endpoint.set_by['model']}. It said: {said}",
                "server_error",
            )
        case 400 | 413 | 422:
            raise ModelError(f"{where} refused the request ({status}): {said}", "invalid_prompt")
        case _ if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            return _Again(ModelError(f"{where} failed ({status}): {said}", "server_error"))
        case _:
            raise ModelError(f"{where} answered with status {status}: {said}", "server_error")


def _message(parsed: object) -> str:
    """The words of an error body: OpenAI's shape, or what other servers send instead."""
    if isinstance(parsed, dict):
        error = parsed.get("error", parsed.get("detail", parsed.get("message")))
        if isinstance(error, dict):
            error = error.get("message")
        if isinstance(error, str):
            return error[:500]
    return orjson.dumps(parsed)[:200].decode(errors="replace")


def _wait_s(attempt: int, asked: float | None) -> float | None:
    """Seconds to wait before the next attempt; None if the upstream asks for more than we wait."""
    if asked is not None:
        return asked if asked <= MAX_WAIT_S else None
    jitter = random.uniform(0.75, 1.25)  # noqa: S311
    return float(min(BACKOFF_S * 2 ** (attempt - 1), 8.0) * jitter)
