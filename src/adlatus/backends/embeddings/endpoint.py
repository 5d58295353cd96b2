"""Vectors by any OpenAI-compatible `/v1/embeddings`: several texts per request, several requests at a time, retries.

Whatever it answers is checked, for wrong vectors would stay in an index unnoticed.
"""

import asyncio
import base64
import time
from collections.abc import Sequence
from itertools import count
from operator import itemgetter

import httpx
import numpy as np
import numpy.typing as npt
import orjson
import structlog

from adlatus.backends.embeddings import Vector, Vectors, clean, mean, unit
from adlatus.backends.refusals import Again, ModelError, not_a_model, refusal, wait_before
from adlatus.backends.routing import Endpoint, Route
from adlatus.backends.tokens import counter, most
from adlatus.backends.upstreams import TRANSPORT_ERRORS, Clients, beginning, the, unreachable
from adlatus.wire.common import Json

log = structlog.get_logger(__name__)

BATCH = 32
"""Texts per request: what Text Embeddings Inference takes by default; others take more."""

AT_A_TIME = 4
"""Requests for documents that are under way. Queries do not wait for them."""

ATTEMPTS = 4
LOADING_S = 60.0
"""How long a server that is still loading its model is waited for."""

ANSWER_BYTES = 64 * 2**20
ERROR_BYTES = 2**16
MOST_DIMENSIONS = 2**16

Array = npt.NDArray[np.float32] | npt.NDArray[np.float64]


class EndpointEmbedder:
    """An `Embedder`. `dimensions` is asked for where it is given, and else as the endpoint's first answer has it."""

    def __init__(self, clients: Clients, route: Route, *, dimensions: int | None, max_tokens: int) -> None:
        self.name = route.model
        self.max_tokens = max_tokens
        self.dimensions = dimensions
        self._asks_for_dimensions = dimensions is not None
        self._clients = clients
        self._route = route
        self._under_way = asyncio.Semaphore(AT_A_TIME)
        self._count = counter(route.model)

    @property
    def endpoint(self) -> Endpoint:
        """Who is asked."""
        return self._route.endpoint

    async def embed_documents(self, texts: Sequence[str]) -> Vectors:
        """See `Embedder`."""
        parts, owners = await asyncio.to_thread(self._cut_all, texts)
        batches = [parts[start : start + BATCH] for start in range(0, len(parts), BATCH)]
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._in_turn(batch)) for batch in batches]
        except ExceptionGroup as failed:  # not `except*`, out of which Python 3.11.2 lets groups only
            raise failed.exceptions[0] from None
        if not tasks:
            return np.zeros((0, self.dimensions or 0), np.float32)
        return mean(np.concatenate([task.result() for task in tasks]), owners, len(texts))

    async def embed_query(self, text: str) -> Vector:
        """See `Embedder`."""
        parts, owners = await asyncio.to_thread(self._cut_all, [text])
        vectors = [await self._embed(parts[start : start + BATCH]) for start in range(0, len(parts), BATCH)]
        [vector] = mean(np.concatenate(vectors), owners, 1)
        return np.asarray(vector)

    def _cut_all(self, texts: Sequence[str]) -> tuple[list[str], list[int]]:
        cut = [(owner, part) for owner, text in enumerate(texts) for part in self._cut(clean(text))]
        return [part for _, part in cut], [owner for owner, _ in cut]

    def _cut(self, text: str) -> list[str]:
        """The text in halves, and those again, until none has more tokens than the model reads."""
        if len(text) < 2 or most(text) <= self.max_tokens or self._count(text) <= self.max_tokens:
            return [text]
        middle = len(text) // 2
        space = text.find(" ", middle, middle + 100)
        edge = space if space > 0 else middle
        return [*self._cut(text[:edge]), *self._cut(text[edge:])]

    async def _in_turn(self, texts: Sequence[str]) -> Vectors:
        async with self._under_way:
            return await self._embed(texts)

    async def _embed(self, texts: Sequence[str]) -> Vectors:
        """One request, repeated as long as another attempt may help."""
        loading_until = time.monotonic() + LOADING_S
        for attempt in count(1):
            try:
                return await self._attempt(texts)
            except Again as again:
                wait_s = wait_before(attempt + 1, again.wait_s)
                last = time.monotonic() >= loading_until if again.loading else attempt >= ATTEMPTS
                if last or wait_s is None:
                    raise again.error from again
                said = str(again.error)
                log.warning("embedding request failed, trying again", error=said, wait_s=round(wait_s, 2))
            await asyncio.sleep(wait_s)
        raise AssertionError("the attempts are counted without end")

    async def _attempt(self, texts: Sequence[str]) -> Vectors:
        endpoint, model = self._route.endpoint, self._route.model
        request: Json = {"model": model, "input": list(texts)}
        if self._asks_for_dimensions:
            request["dimensions"] = self.dimensions
        asking = self._clients[endpoint].stream(
            "POST", endpoint.url("/embeddings", model), content=orjson.dumps(self._route.adapted(request))
        )
        try:
            async with asking as response:
                if response.status_code != httpx.codes.OK:
                    raise refusal(response, await beginning(response.aiter_bytes(), ERROR_BYTES), endpoint, model)
                content = await beginning(response.aiter_bytes(), ANSWER_BYTES)
        except httpx.ReadTimeout as error:
            raise Again(ModelError(f"{the(endpoint)} did not answer in time.", "server_error")) from error
        except TRANSPORT_ERRORS as error:
            raise Again(ModelError(unreachable(endpoint, error), "server_error")) from error
        try:
            vectors = await asyncio.to_thread(read, content, len(texts))
        except orjson.JSONDecodeError as error:
            raise not_a_model(endpoint, response) from error
        except ValueError as error:
            raise _wrong(endpoint, str(error)) from error
        return self._of_one_length(vectors)

    def _of_one_length(self, vectors: Vectors) -> Vectors:
        length = vectors.shape[1]
        if self.dimensions is None:
            self.dimensions = length
        if length != self.dimensions:
            raise _wrong(
                self._route.endpoint,
                f"vectors of {length} dimensions instead of {self.dimensions}: check ADLATUS_EMBEDDING_DIMENSIONS",
            )
        return vectors


def _wrong(endpoint: Endpoint, what: str) -> ModelError:
    return ModelError(f"{the(endpoint)} answered a request for embeddings with {what}.", "server_error")


def read(content: bytes, texts: int) -> Vectors:
    """The vectors of an answer in the order of the texts, of length 1.

    Raises `orjson.JSONDecodeError`, or `ValueError` that says what is wrong with the answer.
    """
    answer = orjson.loads(content)
    entries = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError("something that is no list of embeddings")
    if len(entries) != texts:
        raise ValueError(f"{len(entries)} vectors for {texts} texts")
    places = [entry.get("index", place) for place, entry in enumerate(entries)]
    if not all(type(place) is int for place in places) or sorted(places) != list(range(texts)):
        raise ValueError("indexes that are not those of the texts")
    ordered = sorted(zip(places, entries, strict=True), key=itemgetter(0))
    vectors = [_vector(entry.get("embedding")) for _, entry in ordered]
    if len({len(vector) for vector in vectors}) > 1:
        raise ValueError("vectors of different lengths")
    stacked = np.array(vectors, np.float64)
    if not 1 <= stacked.shape[1] <= MOST_DIMENSIONS:
        raise ValueError(f"vectors of {stacked.shape[1]} dimensions")
    largest = np.abs(stacked).max(axis=1)
    if not ((largest > 1e-18) & (largest < 1e18)).all():  # false for what is no number, too
        raise ValueError("vectors that are zero or not finite")
    return unit(stacked.astype(np.float32))


def _vector(embedding: object) -> Array:
    """Numbers, or the base64 of their 32 bits each."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
        if isinstance(embedding, list) and all(type(value) in (int, float) for value in embedding):
            return np.array(embedding, np.float64)
    except (ValueError, OverflowError) as error:
        raise ValueError("a vector that cannot be read") from error
    raise ValueError("a vector that is neither numbers nor base64")
