"""The embedded index: Qdrant Edge inside this process, one shard per space in a folder that one process owns.

The engine's calls block, so they run in threads: writes one after another, each flushed to disk before it returns,
reads beside them.
"""

import asyncio
import fcntl
import os
import shutil
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TypeVar

import qdrant_edge as edge
import structlog

from adlatus.backends.vectors import points
from adlatus.backends.vectors.edge_queries import belonging, config, hybrid, of_stores, point, schema
from adlatus.backends.vectors.filters import Scalar, number_fields
from adlatus.backends.vectors.protocol import PREFIX, Chunk, Hit, Search, Space
from adlatus.errors import StartupError, Unavailable

log = structlog.get_logger(__name__)
T = TypeVar("T")

_READERS = 4
_UNFINISHED = ".unfinished"
_MAX_LANGUAGES = 64


@asynccontextmanager
async def open_edge(folder: Path) -> AsyncIterator["EdgeIndex"]:
    """Own the index of a folder, which is made unless it is there.

    Raises `StartupError` with advice where another process owns it, or where it cannot be read.
    """
    with _owned(folder):
        index = EdgeIndex(folder)
        try:
            await index.load()
            yield index
        finally:
            await index.close()


class EdgeIndex:
    """A `VectorIndex` in a folder; made by `open_edge`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: dict[str, edge.EdgeShard] = {}
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="vectors-write")
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="vectors-read")

    async def load(self) -> None:
        """Open all shards of the folder."""
        try:
            await _in(self._writer, self._load)
        except Unavailable as error:
            raise StartupError(
                f"The vector index in {self._folder} cannot be opened. If its files are damaged, restore them from a "
                "backup, or remove the folder and add the files to their vector stores again. The log has the details."
            ) from error

    def _load(self) -> None:
        for path in sorted(self._folder.glob(f"{PREFIX}*")):
            if path.suffix == _UNFINISHED:
                shutil.rmtree(path)
            else:
                self._shards[path.name] = edge.EdgeShard.load(str(path))

    async def close(self) -> None:
        """Wait for what is under way, then close the shards."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        self._readers.shutdown()
        self._writer.shutdown()
        for shard in self._shards.values():
            shard.close()
        self._shards.clear()

    async def ping(self) -> None:
        """Return if the shards answer."""
        await _in(self._readers, lambda: [shard.info() for shard in list(self._shards.values())])

    async def ensure(self, space: Space) -> None:
        """Make the shard of a space unless it is there."""
        await self._shard(space)

    async def _shard(self, space: Space) -> edge.EdgeShard:
        if space.collection not in self._shards:
            await _in(self._writer, lambda: self._create(space))
        return self._shards[space.collection]

    def _create(self, space: Space) -> None:
        """Make a shard under another name first: a process that is killed meanwhile leaves no half of one."""
        name = space.collection
        if name in self._shards:
            return
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        shard = edge.EdgeShard.create(str(unfinished), config(space))
        for field, index in schema().items():
            shard.update(edge.UpdateOperation.create_field_index(field, index))
        shard.close()
        unfinished.rename(self._folder / name)
        self._shards[name] = edge.EdgeShard.load(str(self._folder / name))
        log.info("vector collection made", collection=name)

    async def upsert(self, space: Space, chunks: Sequence[Chunk]) -> None:
        """Add or replace chunks."""
        shard = await self._shard(space)

        def write() -> None:
            points.check(space, chunks)
            for batch in points.batches(chunks):
                shard.update(edge.UpdateOperation.upsert_points([point(space, chunk) for chunk in batch]))
            shard.flush()

        await _in(self._writer, write)

    async def delete(self, vector_store_id: str, file_id: str | None = None) -> None:
        """Remove what a store holds of a file, or all of it."""
        await self._everywhere(edge.UpdateOperation.delete_points_by_filter(belonging(vector_store_id, file_id)))

    async def set_attributes(self, vector_store_id: str, file_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Replace the attributes of a file in a store."""
        of_file = belonging(vector_store_id, file_id)
        payload = points.attributes_payload(attributes)
        await self._everywhere(edge.UpdateOperation.set_payload_by_filter(of_file, payload))

    async def _everywhere(self, operation: edge.UpdateOperation) -> None:
        def write() -> None:
            for shard in self._shards.values():
                shard.update(operation)
                shard.flush()

        await _in(self._writer, write)

    async def count(self, space: Space, vector_store_id: str, file_id: str | None = None) -> int:
        """How many chunks there are."""
        shard = await self._shard(space)
        request = edge.CountRequest(filter=belonging(vector_store_id, file_id), exact=True)
        return await _in(self._readers, lambda: shard.count(request))

    async def chunks(self, space: Space, vector_store_id: str, file_id: str, start: int, limit: int) -> list[Chunk]:
        """The chunks of a file, in order."""
        shard = await self._shard(space)
        ids: list[edge.PointId] = [
            points.point_id(vector_store_id, file_id, index) for index in range(start, start + limit)
        ]
        found = await _in(self._readers, lambda: shard.retrieve(ids, with_payload=True, with_vector=False))
        return sorted((points.chunk_of(record.payload) for record in found), key=lambda chunk: chunk.index)

    async def languages(self, space: Space, vector_store_ids: Sequence[str]) -> frozenset[str]:
        """The languages of the chunks of some stores."""
        shard = await self._shard(space)
        request = edge.FacetRequest("language", limit=_MAX_LANGUAGES, exact=True, filter=of_stores(vector_store_ids))
        found = await _in(self._readers, lambda: shard.facet(request))
        return frozenset(str(hit.value) for hit in found.hits)

    async def search(self, space: Space, search: Search) -> list[Hit]:
        """The best hits, best first."""
        shard = await self._shard(space)
        if search.filter is not None:
            await self._index_numbers(shard, set(number_fields(search.filter)))
        return await _in(self._readers, lambda: hybrid(shard, space, search))

    async def _index_numbers(self, shard: edge.EdgeShard, wanted: set[str]) -> None:
        def write() -> None:
            there = shard.info().payload_schema
            free = points.MAX_NUMBER_INDEXES - sum(field.startswith(points.NUMBER_PREFIX) for field in there)
            for field in sorted(wanted - there.keys())[: max(0, free)]:
                shard.update(edge.UpdateOperation.create_field_index(field, edge.PayloadSchemaType.Float))

        if wanted:
            await _in(self._writer, write)

    async def optimize(self) -> None:
        """Merge segments and build graphs, shard by shard."""
        for shard in list(self._shards.values()):
            await _in(self._writer, shard.optimize)


async def _in(threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """Do work of the engine in a thread. The engine raises plain `Exception` for everything that goes wrong in it."""
    try:
        return await asyncio.get_running_loop().run_in_executor(threads, work)
    except (ValueError, TypeError, KeyError):
        raise  # ours
    except Exception as error:
        log.error("vector index fails", error=f"{type(error).__name__}: {error}")
        raise Unavailable("The vector index of this server does not answer; its log has the details.") from error


@contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold the folder's lock: two engines on the same files would damage them."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        descriptor = os.open(folder / "adlatus.lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StartupError(f"The folder {folder} of the vector index cannot be used: {error.strerror}.") from error
    try:
        _lock(descriptor, folder)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.pread(descriptor, 32, 0).decode(errors="replace").strip() or "that just started"
        raise StartupError(
            f"The vector index in {folder} is in use by the adlatus process {owner}. Stop that one, give this one a "
            "folder of its own with --data-dir, or share a Qdrant server by ADLATUS_QDRANT_URL."
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
