"""A model that reads query and passage together, behind an address: `ADLATUS_RERANK_URL`, the whole path of it.

Speaks the request of Jina, Cohere and vLLM, and that of Text Embeddings Inference, and finds out which one is
understood. Whatever it answers is checked. Knows neither indexes nor files.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Protocol

import httpx
import orjson
import structlog
from prometheus_client import Counter

from adlatus.backends.embeddings import clean
from adlatus.backends.models_file import NO_HEADER, checked_url, key_headers, unfit_header
from adlatus.backends.refusals import Again, ModelError, refusal, wait_before, without_keys
from adlatus.backends.routing import Endpoint
from adlatus.backends.upstreams import TRANSPORT_ERRORS, Clients, beginning, open_clients, the, unreachable
from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.telemetry.tracing import Tracing
from adlatus.wire.common import Json

log = structlog.get_logger(__name__)

BATCH = 32
"""Passages per request: what Text Embeddings Inference takes by default. Each is judged for itself."""

ATTEMPTS = 2
SILENCE_S = 15.0
TOTAL_S = 30.0
"""How long a search waits for its scores, all batches and attempts together."""

ANSWER_BYTES = 8 * 2**20
ERROR_BYTES = 2**16

_USUALLY = "It names the whole path, as in http://localhost:8080/rerank."
_SET_BY = {"base_url": "ADLATUS_RERANK_URL", "api_key": "ADLATUS_RERANK_API_KEY", "model": "ADLATUS_RERANK_MODEL"}


class Style(StrEnum):
    """The shapes of a request. The one that a server understands is kept until it refuses it."""

    DOCUMENTS = "documents"  # Jina, Cohere, vLLM
    TEXTS = "texts"  # Text Embeddings Inference


class Reranker(Protocol):
    """Judges passages. May be used by any number of tasks at a time."""

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """How well each text answers the query, from 0 to 1, in their order. Raises `ModelError` only."""


class _NotUnderstoodError(Exception):
    """The server refuses requests of this shape."""

    def __init__(self, error: ModelError) -> None:
        super().__init__(error.message)
        self.error = error


@asynccontextmanager
async def open_reranker(
    settings: Settings, outcomes: Counter, tracing: Tracing | None = None
) -> AsyncIterator["HttpReranker | None"]:
    """The reranker of the settings, None where they name none. Raises `StartupError` with advice.

    `outcomes` counts by the label `outcome` (`done`, `failed`).
    """
    if settings.rerank_url is None:
        yield None
        return
    url = checked_url(settings.rerank_url, _SET_BY["base_url"], _USUALLY)
    secret = settings.rerank_api_key.get_secret_value() if settings.rerank_api_key else None
    headers = key_headers(secret)
    if unfit_header(headers):
        raise StartupError(f"{_SET_BY['api_key']}: the key {NO_HEADER}.")
    endpoint = Endpoint(str(url.netloc, "ascii"), settings.rerank_url, headers, SILENCE_S, set_by=_SET_BY)
    async with open_clients([endpoint], tracing) as clients:
        yield HttpReranker(clients, endpoint, settings.rerank_model, outcomes)


class HttpReranker:
    """A `Reranker`; made by `open_reranker`."""

    def __init__(self, clients: Clients, endpoint: Endpoint, model: str | None, outcomes: Counter) -> None:
        self._clients = clients
        self._endpoint = endpoint
        self._model = model
        self._outcomes = outcomes
        self._style = Style.DOCUMENTS
        self._logits = False

    async def scores(self, query: str, texts: Sequence[str]) -> list[float]:
        """See `Reranker`."""
        try:
            async with asyncio.timeout(TOTAL_S):
                batches = [texts[start : start + BATCH] for start in range(0, len(texts), BATCH)]
                raw = [score for batch in batches for score in await self._batch(query, batch)]
        except TimeoutError as error:
            self._outcomes.labels(outcome="failed").inc()
            raise self._failure(f"did not answer within {TOTAL_S:g} s") from error
        except ModelError:
            self._outcomes.labels(outcome="failed").inc()
            raise
        self._outcomes.labels(outcome="done").inc()
        # For good: the next answers of a model of logits may all happen to lie between 0 and 1
        self._logits = self._logits or any(not 0 <= score <= 1 for score in raw)
        return [_logistic(score) for score in raw] if self._logits else raw

    async def _batch(self, query: str, texts: Sequence[str]) -> list[float]:
        """The scores of one request, in the shape that was understood last, then in the other."""
        refused: ModelError | None = None
        for style in (self._style, *(each for each in Style if each is not self._style)):
            try:
                found = await self._repeated(self._request(style, query, texts), len(texts))
            except _NotUnderstoodError as error:
                refused = refused or error.error
            else:
                self._style = style
                return found
        assert refused is not None, "there are two"
        raise refused

    def _request(self, style: Style, query: str, texts: Sequence[str]) -> Json:
        request: Json = {"query": clean(query), style.value: [clean(text) for text in texts]}
        if style is Style.DOCUMENTS:
            request["top_n"] = len(texts)
            if self._model is not None:
                request["model"] = self._model
        return request

    async def _repeated(self, request: Json, texts: int) -> list[float]:
        for attempt in range(1, ATTEMPTS):
            try:
                return await self._attempt(request, texts)
            except Again as again:
                wait_s = wait_before(attempt + 1, again.wait_s)
                if wait_s is None:
                    raise again.error from again
                log.warning("reranking request failed, trying again", error=str(again.error), wait_s=wait_s)
                await asyncio.sleep(wait_s)
        try:
            return await self._attempt(request, texts)
        except Again as again:
            raise again.error from again

    async def _attempt(self, request: Json, texts: int) -> list[float]:
        endpoint = self._endpoint
        asking = self._clients[endpoint].stream("POST", endpoint.url(""), content=orjson.dumps(request))
        try:
            async with asking as response:
                if response.status_code != httpx.codes.OK:
                    raise self._refusal(response, await beginning(response.aiter_bytes(), ERROR_BYTES))
                content = await beginning(response.aiter_bytes(), ANSWER_BYTES)
        except httpx.ReadTimeout as error:
            raise Again(self._failure("did not answer in time")) from error
        except TRANSPORT_ERRORS as error:
            raise Again(ModelError(unreachable(endpoint, error), "server_error")) from error
        try:
            return read(content, texts)
        except ValueError as error:
            raise self._failure(f"answered a request to rerank with {error}") from error

    def _refusal(self, response: httpx.Response, content: bytes) -> Exception:
        match response.status_code:
            case 400 | 422 as status:
                said = without_keys(content, self._endpoint)[:200].decode(errors="replace")
                return _NotUnderstoodError(self._failure(f"refused the request ({status}). It said: {said}", said))
            case 404 | 405 as status:
                return self._failure(
                    f"has no reranker at this address ({status}): check ADLATUS_RERANK_URL. {_USUALLY}"
                )
            case _:
                return refusal(response, content, self._endpoint, self._model)

    def _failure(self, what: str, said: str = "") -> ModelError:
        return ModelError(f"{the(self._endpoint)} {what}", "server_error", said)


def read(content: bytes, texts: int) -> list[float]:
    """The scores of an answer of either style, in the order of the texts.

    Raises `ValueError` that says what is wrong with the answer.
    """
    try:
        answer = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        raise ValueError("something that is not JSON, or is too long") from error
    entries = answer.get("results") if isinstance(answer, dict) else answer
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("something that is no list of scores")
    if len(entries) != texts:
        raise ValueError(f"{len(entries)} scores for {texts} texts")
    places = [entry.get("index") for entry in entries]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(texts)):
        raise ValueError("indexes that are not those of the texts")
    found = [0.0] * texts
    for place, entry in zip(places, entries, strict=True):
        found[place] = _score(entry.get("relevance_score", entry.get("score")))
    return found


def _score(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(number := float(value)):  # type: ignore[arg-type]
        raise ValueError("a score that is no finite number")
    return number


def _logistic(logit: float) -> float:
    return 0.5 * (1 + math.tanh(logit / 2))  # does not overflow
