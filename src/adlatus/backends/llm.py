"""The model: a streaming client for any OpenAI-compatible `/v1/chat/completions`.

Owns time limits, retries and the meaning of upstream errors; knows nothing of runs.
"""

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

import aiohttp
import httpx
import orjson
import structlog
from httpx_aiohttp import AiohttpTransport

from adlatus.backends import faults
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

LOADING_S = 60.0
"""How long a server that is still loading its model is waited for; the run's own deadline may come first."""

LOADING_POLL_S = 0.5
READ_ON_S = 0.25
"""How long the end of a body is waited for after `[DONE]`. It is what lets the connection be used again."""

KEEP_ALIVE_S = 3.0
"""How long an idle connection is kept: less than the 5 s after which uvicorn and llama.cpp close it, because a
request that meets the closing has to be sent again."""


class ModelError(Exception):
    """The model gave no answer, or only a part of one. `code` is one of a run's `last_error.code`."""

    def __init__(self, message: str, code: faults.Code) -> None:
        super().__init__(message)
        self.message = message
        self.code = code


class _Again(Exception):  # noqa: N818 - not an error yet
    """This attempt failed in a way that another may not."""

    def __init__(
        self, error: ModelError, wait_s: float | None = None, *, loading: bool = False, without: str | None = None
    ) -> None:
        super().__init__(error.message)
        self.error = error
        self.wait_s = wait_s
        self.loading = loading
        self.without = without


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

        429, 5xx and connection errors are tried again with backoff as long as nothing has arrived; a server that is
        loading its model for a minute. A parameter that only its default put there is left out if the model refuses it.
        """
        request = request | {
            "model": self.endpoint.model or request["model"],
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        loading_until = time.monotonic() + LOADING_S
        for attempt in count(1):
            begun = False
            try:
                async for chunks in self._attempt(request):
                    begun = True
                    yield chunks
            except _Again as again:
                wait_s = _wait_s(attempt, again.wait_s)
                last = time.monotonic() >= loading_until if again.loading else attempt >= ATTEMPTS
                if begun or last or wait_s is None:
                    raise again.error from again
                if again.without:
                    request = {name: value for name, value in request.items() if name != again.without}
                if attempt == 1 or not again.loading:
                    log.warning(
                        "model request failed, trying again", error=again.error.message, wait_s=round(wait_s, 2)
                    )
                await asyncio.sleep(wait_s)
            else:
                return

    async def models(self) -> list[Json]:
        """What the endpoint's `GET /models` lists."""
        try:
            response = await self._client.get("/models", timeout=CONNECT_S)
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            raise _unreachable(self.endpoint, error) from error
        if response.status_code != httpx.codes.OK:
            raise _refusal(response.status_code, response.content, self.endpoint, {}, response).error
        try:
            listed = orjson.loads(response.content)["data"] or []  # Ollama without models lists null
            return [model for model in listed if isinstance(model.get("id"), str)]
        except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
            raise _not_a_model(self.endpoint, response) from error

    async def _attempt(self, request: Json) -> AsyncGenerator[list[Chunk]]:
        answering = begun = finished = False
        gave_up: str | None = None
        try:
            async with self._client.stream("POST", "/chat/completions", content=orjson.dumps(request)) as response:
                if response.status_code != httpx.codes.OK:
                    raise _refusal(response.status_code, await response.aread(), self.endpoint, request, response)
                answering = True
                async with aclosing(_sse_data(response)) as batches:
                    async for lines in batches:
                        chunks, done, error = _parse(lines)
                        reasons = [reason for chunk in chunks if (reason := _finish_reason(chunk))]
                        begun = begun or any("choices" in chunk for chunk in chunks)
                        finished = finished or bool(reasons) or (done and begun)
                        gave_up = next((reason for reason in reasons if reason in _GAVE_UP), gave_up)
                        if chunks:
                            yield chunks
                        if error:
                            raise error if error.code == "invalid_prompt" else _Again(error)
                        if done:
                            await _read_on(batches)
                            break
                if not begun and not _is_stream(response):
                    raise _not_a_model(self.endpoint, response)
        except httpx.ReadTimeout as error:
            raise _Again(
                ModelError(f"The model endpoint{_named(self.endpoint)} did not answer in time.", "server_error")
            ) from error
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            if not answering:
                raise _Again(_unreachable(self.endpoint, error)) from error
        if gave_up or not finished:  # told at the end, for the usage still comes after a reason
            raise _Again(_not_whole(self.endpoint, begun, gave_up))


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
        transport=AiohttpTransport(limits=httpx.Limits(max_connections=0, keepalive_expiry=KEEP_ALIVE_S)),
        timeout=httpx.Timeout(timeout_s, connect=CONNECT_S),
        follow_redirects=False,
        trust_env=not is_loopback(httpx.URL(endpoint.base_url).host),  # proxies are for what is elsewhere
    ) as client:
        yield Llm(client, endpoint)


async def _sse_data(response: httpx.Response) -> AsyncGenerator[list[bytes]]:
    """The payloads of a stream's lines, in the batches in which the network delivers them.

    A body that is one JSON object is one payload: some gateways overlook that a stream was asked for.
    """
    rest, begun, whole = b"", False, False
    async for piece in response.aiter_raw() if "content-encoding" not in response.headers else response.aiter_bytes():
        rest += piece
        if not begun:
            head = rest.lstrip()
            begun, whole = bool(head), head.startswith(b"{")
        if whole:
            continue
        *lines, rest = rest.split(b"\n")
        if data := [payload for line in lines if (payload := _payload(line))]:
            yield data
    if payload := rest if whole else _payload(rest):
        yield [payload]


def _payload(line: bytes) -> bytes:
    """What a line of a stream carries: nothing if it is a comment, a field of no interest or empty."""
    if line.startswith(b"data:"):
        return line[5:].strip()
    if line.startswith(b"{"):  # an error without its `data:`, which servers write that fail outside of their streaming
        return line.strip()
    if line.startswith(b"error:"):  # older builds of llama.cpp
        return b'{"error":' + line[6:].strip() + b"}"
    return b""


async def _read_on(batches: AsyncGenerator[list[bytes]]) -> None:
    """Read to the end of the body, which comes at once unless the server has more to do."""
    with suppress(TimeoutError, httpx.HTTPError, aiohttp.ClientError):
        async with asyncio.timeout(READ_ON_S):
            async for _ in batches:
                pass


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
        if faults.is_fault(chunk):
            fault = faults.of(chunk)
            return chunks, False, ModelError(f"The model endpoint reported an error: {fault.said}", fault.code)
        chunks.append(chunk)
    return chunks, False, None


_GAVE_UP = {"abort", "error"}
"""Finish reasons of an answer that is not whole although its stream ends in good order: vLLM's, and OpenRouter's."""


def _finish_reason(chunk: Chunk) -> str | None:
    choices = chunk.get("choices")
    if not isinstance(choices, list):
        return None
    reasons = (choice.get("finish_reason") for choice in choices if isinstance(choice, dict))
    return next((reason for reason in reasons if reason and isinstance(reason, str)), None)


def _is_stream(response: httpx.Response) -> bool:
    kind: str = response.headers.get("content-type", "text/event-stream")
    return kind.startswith("text/event-stream")


def _not_whole(endpoint: Endpoint, begun: bool, gave_up: str | None) -> ModelError:
    how = "broke off in the middle of its answer" if begun else "ended its answer before it began"
    how = f"gave up its answer ({gave_up})" if gave_up else how
    return ModelError(f"The model endpoint{_named(endpoint)} {how}.", "server_error")


def _not_a_model(endpoint: Endpoint, response: httpx.Response) -> ModelError:
    """Something answers there, with success, but not as a model does: a login page, another program."""
    kind = response.headers.get("content-type", "nothing").partition(";")[0]
    return ModelError(
        f"The model endpoint{_named(endpoint)} answered with {kind}, not as a model endpoint does: check "
        "ADLATUS_MODEL_BASE_URL, which usually ends in /v1, and what stands between here and there.",
        "server_error",
    )


def _refusal(status: int, content: bytes, endpoint: Endpoint, request: Json, response: httpx.Response) -> _Again:
    """What an HTTP status other than 200 means. Wrapped in `_Again` only where another attempt may help."""
    fault = faults.read(content)
    where = f"The model endpoint{_named(endpoint)}"
    match status:
        case 429 if not fault.out_of_quota:
            error = ModelError(fault.said or "Rate limit reached for the model.", "rate_limit_exceeded")
            return _Again(error, _asked_wait_s(response, fault))
        case 400 if without := fault.unwanted_default(request):
            return _Again(ModelError(f"{where} refused {without}: {fault.said}", "invalid_prompt"), 0, without=without)
        case 503 if fault.loading:
            said = f"{where} is still loading its model ({status}): wait until it has, then run again. It said: "
            return _Again(ModelError(said + fault.said, "server_error"), LOADING_POLL_S, loading=True)
        case _ if status >= 500 or status == httpx.codes.REQUEST_TIMEOUT:
            return _Again(ModelError(f"{where} failed ({status}): {fault.said}", "server_error"))
        case _:
            raise _final(status, fault, where, request.get("model"), response)


def _final(status: int, fault: faults.Fault, where: str, model: str | None, response: httpx.Response) -> ModelError:
    """A refusal that another attempt would meet again. `model` is None where no model was asked for."""
    match status:
        case 402 | 429:
            return ModelError(fault.said or "The quota of the model endpoint is used up.", "rate_limit_exceeded")
        case 401 | 403:
            what = f"refused its API key ({status}): check ADLATUS_MODEL_API_KEY."
        case 400 | 404 if model and fault.of_the_model(status):
            what = f"does not know the model '{model}' ({status}): name one that it has, or set ADLATUS_MODEL."
        case 404:
            what = "has nothing at this address (404): check ADLATUS_MODEL_BASE_URL, which usually ends in /v1."
        case 400 | 413 | 422:
            return ModelError(f"{where} refused the request ({status}): {fault.said}", "invalid_prompt")
        case 301 | 302 | 303 | 307 | 308:
            location = response.headers.get("location", "elsewhere")[:200]
            what = f"redirects to {location} ({status}), which is not followed: correct ADLATUS_MODEL_BASE_URL."
        case 201 | 202 | 204:
            what = f"answered with status {status}, not as a model endpoint does: check ADLATUS_MODEL_BASE_URL."
        case _:
            return ModelError(f"{where} answered with status {status}: {fault.said}", "server_error")
    return ModelError(f"{where} {what} It said: {fault.said}" if fault.said else f"{where} {what}", "server_error")


def _asked_wait_s(response: httpx.Response, fault: faults.Fault) -> float | None:
    """The seconds that a server asks to wait: in OpenAI's and Azure's exact header, the standard one, or in words."""
    for header, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        if re.fullmatch(r"\d+(\.\d+)?", value := response.headers.get(header, ""), re.ASCII):
            return float(value) * unit_s
    return fault.asked_wait_s


def _unreachable(endpoint: Endpoint, error: Exception) -> ModelError:
    log.warning("model endpoint unreachable", base_url=endpoint.base_url, error=repr(error))
    return ModelError(
        f"The model endpoint{_named(endpoint)} could not be reached: check that it runs, and ADLATUS_MODEL_BASE_URL.",
        "server_error",
    )


def _named(endpoint: Endpoint) -> str:
    return f" ({endpoint.name})" if endpoint.name else ""


def _wait_s(attempt: int, asked: float | None) -> float | None:
    """Seconds to wait before the next attempt; None if the upstream asks for more than we wait."""
    if asked is not None:
        return asked if asked <= MAX_WAIT_S else None
    jitter = random.uniform(0.75, 1.25)  # noqa: S311
    return float(min(BACKOFF_S * 2 ** (attempt - 1), 8.0) * jitter)
