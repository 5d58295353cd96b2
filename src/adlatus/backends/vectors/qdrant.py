"""The index on a Qdrant server or cluster, shared by any number of processes."""

import asyncio
import warnings
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urlsplit

import structlog
from qdrant_client import AsyncQdrantClient, models
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse

from adlatus.backends.vectors import points
from adlatus.backends.vectors.filters import Scalar
from adlatus.backends.vectors.protocol import PREFIX, Chunk, Hit, Search, Space
from adlatus.backends.vectors.qdrant_queries import belonging, hybrid, of_stores, point, schema, vectors
from adlatus.errors import Unavailable

log = structlog.get_logger(__name__)

_TIMEOUT_S = 30
_NOT_FOUND = 404
_REFUSED = (401, 403)


@asynccontextmanager
async def open_qdrant(url: str, api_key: str | None) -> AsyncIterator["QdrantIndex"]:
    """The index on a server, which is not asked before it is needed: `ping` tells whether it answers."""
    if api_key and not url.startswith("https:"):
        log.warning("the key of the vector database is sent unencrypted", url=_shown(url))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Api key is used with an insecure connection")  # past the log, to stderr
        client = AsyncQdrantClient(
            url=url,
            api_key=api_key,
            timeout=_TIMEOUT_S,
            check_compatibility=False,  # it would ask the server here and now, and block the loop
        )
    try:
        yield QdrantIndex(client, _shown(url))
    finally:
        await client.close()


def _points(space: Space, chunks: Sequence[Chunk]) -> list[models.PointStruct]:
    return [point(space, chunk) for chunk in chunks]


def _shown(url: str) -> str:
    """The address without what may be secret in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


class QdrantIndex:
    """A `VectorIndex` on whatever the client is connected to, which messages name by `shown`."""

    def __init__(self, client: AsyncQdrantClient, shown: str) -> None:
        self._client = client
        self.shown = shown
        self._ensured: set[str] = set()
        self._indexed: dict[str, set[str]] = {}

    @contextmanager
    def _asked(self) -> Iterator[None]:
        """Turn what the client raises into what the caller can tell its client."""
        try:
            yield
        except (ApiException, QdrantException, ValueError, AssertionError) as error:  # the last two: no Qdrant's answer
            log.error("vector database fails", url=self.shown, error=f"{type(error).__name__}: {error}"[:500])
            raise Unavailable(self._advice(error)) from error

    def _advice(self, error: Exception) -> str:
        name = f"The vector database at {self.shown}"
        match error:
            case UnexpectedResponse(status_code=status) if status in _REFUSED:
                return f"{name} refused this server's key ({status}): check ADLATUS_QDRANT_API_KEY."
            case UnexpectedResponse(status_code=status) if status == _NOT_FOUND:
                self._ensured.clear()  # so that the next one makes it again
                return f"{name} has lost a collection: restore it, or add the files to their vector stores again."
            case UnexpectedResponse(status_code=status):
                return f"{name} refused a request ({status}); the log of this server has the details."
            case ValueError() | AssertionError():
                return f"{name} does not answer as one: check ADLATUS_QDRANT_URL."
            case QdrantException():
                return f"{name} refused a request (429); the log of this server has the details."
            case _:
                return f"{name} could not be reached: check that it runs, and ADLATUS_QDRANT_URL."

    async def ping(self) -> None:
        """Return if the server answers, and takes the key."""
        with self._asked():
            await self._client.get_collections()

    async def ensure(self, space: Space) -> None:
        """Make the collection of a space unless it is there. Other processes may do so at the same time."""
        name = space.collection
        if name in self._ensured:
            return
        with self._asked():
            if not await self._client.collection_exists(name):
                await self._create(space)
            for field, index in schema().items():
                await self._client.create_payload_index(name, field, index)
        self._ensured.add(name)

    async def _create(self, space: Space) -> None:
        dense, sparse = vectors(space)
        hnsw = models.HnswConfigDiff(m=points.HNSW_M, payload_m=points.HNSW_PAYLOAD_M)
        try:
            await self._client.create_collection(
                space.collection, vectors_config=dense, sparse_vectors_config=sparse, hnsw_config=hnsw
            )
        except UnexpectedResponse:
            if not await self._client.collection_exists(space.collection):
                raise
        log.info("vector collection made", collection=space.collection, url=self.shown)

    async def upsert(self, space: Space, chunks: Sequence[Chunk]) -> None:
        """Add or replace chunks."""
        points.check(space, chunks)
        await self.ensure(space)
        for batch in points.batches(chunks):
            encoded = await asyncio.to_thread(_points, space, batch)
            with self._asked():
                await self._client.upsert(space.collection, encoded, wait=True)

    async def delete(self, vector_store_id: str, file_id: str | None = None) -> None:
        """Remove what a store holds of a file, or all of it."""
        wanted = models.FilterSelector(filter=belonging(vector_store_id, file_id))
        with self._asked():
            for name in await self._collections():
                await self._client.delete(name, wanted, wait=True)

    async def set_attributes(self, vector_store_id: str, file_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Replace the attributes of a file in a store."""
        payload = points.attributes_payload(attributes)
        wanted = models.FilterSelector(filter=belonging(vector_store_id, file_id))
        with self._asked():
            for name in await self._collections():
                await self._client.set_payload(name, payload, wanted, wait=True)

    async def _collections(self) -> list[str]:
        found = await self._client.get_collections()
        return [each.name for each in found.collections if each.name.startswith(PREFIX)]

    async def count(self, space: Space, vector_store_id: str, file_id: str | None = None) -> int:
        """How many chunks there are."""
        await self.ensure(space)
        with self._asked():
            found = await self._client.count(space.collection, belonging(vector_store_id, file_id), exact=True)
        return found.count

    async def chunks(self, space: Space, vector_store_id: str, file_id: str, start: int, limit: int) -> list[Chunk]:
        """The chunks of a file, in order."""
        await self.ensure(space)
        ids = [points.point_id(vector_store_id, file_id, index) for index in range(start, start + limit)]
        with self._asked():
            found = await self._client.retrieve(space.collection, ids, with_payload=True)
        return sorted((points.chunk_of(record.payload) for record in found), key=lambda chunk: chunk.index)

    async def languages(self, space: Space, vector_store_ids: Sequence[str]) -> frozenset[str]:
        """The languages of the chunks of some stores."""
        await self.ensure(space)
        with self._asked():
            found = await self._client.facet(
                space.collection, "language", of_stores(vector_store_ids), limit=points.MAX_LANGUAGES, exact=True
            )
        return frozenset(str(hit.value) for hit in found.hits)

    async def search(self, space: Space, search: Search) -> list[Hit]:
        """The best hits, best first, in two requests."""
        points.check_search(space, search)
        await self.ensure(space)
        with self._asked():
            await self._index_numbers(space.collection, search)
            return await hybrid(self._client, space, search)

    async def _index_numbers(self, name: str, search: Search) -> None:
        """Index the numbers that are compared. Nothing waits for it: until it is done, they are compared one by one."""
        if not points.to_index(search, ()):
            return
        if name not in self._indexed:
            self._indexed[name] = set((await self._client.get_collection(name)).payload_schema)
        for field in points.to_index(search, self._indexed[name]):
            await self._client.create_payload_index(name, field, models.PayloadSchemaType.FLOAT, wait=False)
            self._indexed[name].add(field)

    async def optimize(self) -> None:
        """A server does that by itself."""
