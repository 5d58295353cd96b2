"""A Qdrant server for several processes: its protocol as far as it is spoken here, on the engine of its own client.

It keeps what it has while it refuses everything, as a server does that is restarted.
"""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
from pydantic import BaseModel
from qdrant_client import QdrantClient, models

from tests.retrieval.service import Answer, answering

RELEASED_AT_LATEST_S = 60


@dataclass
class Qdrant:
    """The server as tests see it. While it is `down` all that it answers is 503."""

    url: str = ""
    down: bool = False
    written: list[str] = field(default_factory=list)
    """The keys of the files whose chunks were written, in order, once per request and key."""
    refused: int = 0
    """Requests that it was down for."""
    held: int = 0
    """Writes that wait."""
    _client: QdrantClient = field(default_factory=lambda: QdrantClient(":memory:"))
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _writes: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._writes.set()

    @property
    def settings(self) -> dict[str, Any]:
        """What a server of ours is told to use it."""
        return {"qdrant_url": self.url}

    def hold_writes(self) -> None:
        """Take chunks, but write them only after `release_writes`."""
        self._writes.clear()

    def release_writes(self) -> None:
        self._writes.set()

    def chunks(self, store_id: str) -> Counter[str]:
        """How many chunks of a store there are, by the keys of their files."""
        found: Counter[str] = Counter()
        of_store = models.Filter(
            must=[models.FieldCondition(key="vector_store_id", match=models.MatchValue(value=store_id))]
        )
        with self._lock:
            for collection in self._client.get_collections().collections:
                points, _ = self._client.scroll(collection.name, of_store, limit=100_000)
                found.update(str(point.payload["file_id"]) for point in points if point.payload)
        return found

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """The status and the body of an answer."""
        if self.down:
            self.refused += 1
            return 503, {"status": {"error": "the server is being restarted"}}
        asked = orjson.loads(body) if body else {}
        if method == "PUT" and path.endswith("/points"):
            self._let_write()
        with self._lock:
            for (known, pattern), act in _ACTS.items():
                if known == method and (found := re.fullmatch(pattern, path)):
                    try:
                        return 200, {"result": act(self, *found.groups(), asked), "status": "ok", "time": 0.0}
                    except ValueError as error:
                        return 404, {"status": {"error": str(error)}}
        return 404, {"status": {"error": f"{method} {path} is not spoken here"}}

    def _let_write(self) -> None:
        if not self._writes.is_set():
            self.held += 1
            self._writes.wait(RELEASED_AT_LATEST_S)
            self.held -= 1

    def _collections(self, _asked: Any) -> object:
        return _plain(self._client.get_collections())

    def _collection(self, name: str, _asked: Any) -> object:
        return _plain(self._client.get_collection(name))

    def _exists(self, name: str, _asked: Any) -> object:
        return {"exists": self._client.collection_exists(name)}

    def _create(self, name: str, asked: Any) -> object:
        wanted = models.CreateCollection.model_validate(asked)
        return self._client.create_collection(
            name,
            vectors_config=wanted.vectors or {},
            sparse_vectors_config=wanted.sparse_vectors,
        )

    def _index(self, _name: str, _asked: Any) -> object:
        return _UPDATED

    def _upsert(self, name: str, asked: Any) -> object:
        points = models.PointsList.model_validate(asked).points
        self._client.upsert(name, points)
        self.written += sorted({str(point.payload["file_id"]) for point in points if point.payload})
        return _UPDATED

    def _delete(self, name: str, asked: Any) -> object:
        self._client.delete(name, models.FilterSelector.model_validate(asked))
        return _UPDATED

    def _set_payload(self, name: str, asked: Any) -> object:
        wanted = models.SetPayload.model_validate(asked)
        assert wanted.filter is not None
        self._client.set_payload(name, wanted.payload, models.FilterSelector(filter=wanted.filter))
        return _UPDATED

    def _count(self, name: str, asked: Any) -> object:
        wanted = models.CountRequest.model_validate(asked)
        return _plain(self._client.count(name, wanted.filter, exact=True))

    def _retrieve(self, name: str, asked: Any) -> object:
        return [_plain(record) for record in self._client.retrieve(name, asked["ids"], with_payload=True)]

    def _facet(self, name: str, asked: Any) -> object:
        wanted = models.FacetRequest.model_validate(asked)
        return _plain(self._client.facet(name, wanted.key, wanted.filter, limit=wanted.limit or 10))

    def _query(self, name: str, asked: Any) -> object:
        requests = models.QueryRequestBatch.model_validate(asked).searches
        return [_plain(answer) for answer in self._client.query_batch_points(name, requests)]


_UPDATED = {"operation_id": 1, "status": "completed"}
_NAMED = r"/collections/([^/]+)"
_ACTS: dict[tuple[str, str], Callable[..., object]] = {
    ("GET", "/collections"): Qdrant._collections,
    ("GET", _NAMED): Qdrant._collection,
    ("GET", f"{_NAMED}/exists"): Qdrant._exists,
    ("PUT", _NAMED): Qdrant._create,
    ("PUT", f"{_NAMED}/index"): Qdrant._index,
    ("PUT", f"{_NAMED}/points"): Qdrant._upsert,
    ("POST", f"{_NAMED}/points"): Qdrant._retrieve,
    ("POST", f"{_NAMED}/points/delete"): Qdrant._delete,
    ("POST", f"{_NAMED}/points/payload"): Qdrant._set_payload,
    ("POST", f"{_NAMED}/points/count"): Qdrant._count,
    ("POST", f"{_NAMED}/facet"): Qdrant._facet,
    ("POST", f"{_NAMED}/points/query/batch"): Qdrant._query,
}


def _plain(model: BaseModel) -> object:
    return model.model_dump(mode="json")


@contextmanager
def qdrant_server() -> Iterator[Qdrant]:
    """Run one until the block is left."""
    qdrant = Qdrant()

    def respond(request: BaseHTTPRequestHandler, body: bytes) -> Answer:
        status, answer = qdrant.answer(request.command, request.path.partition("?")[0], body)
        return status, orjson.dumps(answer)

    with answering(respond) as qdrant.url:
        try:
            yield qdrant
        finally:
            qdrant.release_writes()
