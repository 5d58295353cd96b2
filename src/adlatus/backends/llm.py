"""The model: a streaming client for any OpenAI-compatible `/v1/chat/completions`.

Owns time limits, retries and the meaning of upstream errors; knows nothing of runs.
"""

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp
import httpx
import orjson
import structlog
from httpx_aiohttp import AiohttpTransport

from adlatus.settings import is_loopback

log = structlog.get_logger(__name__)

Json = dict[str, Any]
Chunk = Json
"""One `chat.completion.chunk`, as the upstream sent it."""

CONNECT_S = 10.0
ATTEMPTS = 4
BACKOFF_S = 0.5
MAX_WAIT_S = 20.0
"""A `retry-after` above this is not waited for."""


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


@dataclass(frozen=True)
class Endpoint:
    """Where the model is. `model` replaces every model name that a run asks for; `forwards_images` tells whether
    the endpoint may be given `https://` links to fetch."""

    base_url: str
    api_key: str | None = None
    model: str | None = None
    forwards_images: bool = False
    name: str = ""


class Llm:
    """The client of one endpoint. Raises `ModelError` only."""

    def __init__(self, client: httpx.AsyncClient, endpoint: Endpoint) -> None:
        self._client = client
        self.endpoint = endpoint

    async def stream(self, request: Json) -> AsyncGenerator[list[Chunk]]:
        """The chunks of an answer, in the batches in which they arrive.

        429, 5xx and connection errors are tried again with backoff as long as nothing has arrived.
        """
        request = request | {
            "model": self.endpoint.model or request["model"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        for attempt in range(1, ATTEMPTS + 1):
            begun = False
            try:
                async for chunks in self._attempt(request):
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

    async def models(self) -> list[Json]:
        """What the endpoint's `GET /models` lists."""
        try:
            response = await self._client.get("/models", timeout=CONNECT_S)
            if response.status_code != httpx.codes.OK:
                raise _refusal(response.status_code, response.content, self.endpoint, "").error
            listed = orjson.loads(response.content)
            return [model for model in listed["data"] if isinstance(model.get("id"), str)]
        except (
            httpx.HTTPError,
            aiohttp.ClientError,
            orjson.JSONDecodeError,
            KeyError,
            TypeError,
            AttributeError,
        ) as error:
            raise _unreachable(self.endpoint, error) from error

    async def _attempt(self, request: Json) -> AsyncGenerator[list[Chunk]]:
        answering = finished = False
        try:
            async with self._client.stream("POST", "/chat/completions", content=orjson.dumps(request)) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(
                        response.status_code, await response.aread(), self.endpoint, request["model"], response
                    )
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
            raise _Again(
                ModelError(f"The model endpoint{_named(self.endpoint)} did not answer in time.", "server_error")
            ) from error
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            if not answering:
                raise _Again(_unreachable(self.endpoint, error)) from error
        if not finished:
            raise _Again(
                ModelError(
                    f"The model endpoint{_named(self.endpoint)} broke off in the middle of its answer.", "server_error"
                )
            )


@asynccontextmanager
async def open_llm(endpoint: Endpoint, *, timeout_s: float = 120) -> AsyncIterator[Llm]:
    """A client with a connection pool of its own.

    `timeout_s` is the longest silence of the endpoint, before its first token too: large local models load slowly.
    """
    headers = {"content-type": "application/json", "accept": "text/event-stream, application/json"}
    if endpoint.api_key:
        headers["authorization"] = f"Bearer {endpoint.api_key}"
    async with httpx.AsyncClient(
        base_url=endpoint.base_url.rstrip("/"),
        headers=headers,
        # httpx's own transport costs about twice the CPU per streamed chunk
        # 0 is no limit: with None the transport would leave aiohttp's own default of 100 in place
        transport=AiohttpTransport(limits=httpx.Limits(max_connections=0)),
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=not is_loopback(httpx.URL(endpoint.base_url).host),  # proxies are for what is elsewhere
    ) as client:
        yield Llm(client, endpoint)


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
    where = f"The model endpoint{_named(endpoint)}"
    match status:
        case 429:
            retry_after = response.headers.get("retry-after", "") if response else ""
            wait_s = float(retry_after) if retry_after.replace(".", "", 1).isdigit() else None
            return _Again(ModelError(said or "Rate limit reached for the model.", "rate_limit_exceeded"), wait_s)
        case 401 | 403:
            raise ModelError(
                f"{where} refused its API key ({status}): check ADLATUS_MODEL_API_KEY. It said: {said}", "server_error"
            )
        case 404:
            raise ModelError(
                f"{where} does not know the model '{model}' (404): name one that it has, or set ADLATUS_MODEL. "
                f"It said: {said}",
                "server_error",
            )
        case 400 | 413 | 422:
            raise ModelError(f"{where} refused the request ({status}): {said}", "invalid_prompt")
        case _ if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            return _Again(ModelError(f"{where} failed ({status}): {said}", "server_error"))
        case _:
            raise ModelError(f"{where} answered with status {status}: {said}", "server_error")


def _unreachable(endpoint: Endpoint, error: Exception) -> ModelError:
    log.warning("model endpoint unreachable", base_url=endpoint.base_url, error=repr(error))
    return ModelError(
        f"The model endpoint{_named(endpoint)} could not be reached: check that it runs, and ADLATUS_MODEL_BASE_URL.",
        "server_error",
    )


def _named(endpoint: Endpoint) -> str:
    return f" ({endpoint.name})" if endpoint.name else ""


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
