"""Makes files of vector stores searchable: the ingestion job, whose record is the row of the file.

Every attempt writes chunks under a key of its own (`FileLease.key`), and the row says which attempt has come to its
end: so no chunk is found twice, whoever else worked on the file, and none of a file that is gone.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from itertools import islice
from time import monotonic
from typing import TypeVar

import structlog

from adlatus.backends.refusals import ModelError
from adlatus.backends.vectors import protocol
from adlatus.backends.vectors.languages import detect
from adlatus.backends.vectors.protocol import Space
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.retrieval.chunk import Chunk, TooManyTokensError, chunks
from adlatus.retrieval.parse import TOO_LARGE, Failure, Parsed, Parser, ParserUnavailableError
from adlatus.store import files, vector_stores
from adlatus.store import vector_store_files as rows
from adlatus.store.db import Row
from adlatus.store.leases import FILES, FileLease, Interruption
from adlatus.telemetry.tracing import NO_SPAN, Attributes
from adlatus.wire.vector_stores import FileError

log = structlog.get_logger(__name__)
T = TypeVar("T")

BATCH = 32
"""Chunks that are cut, embedded and written at a time."""
MAX_ABANDONED = 3
"""Processes that died with a file, after which it fails rather than take a fourth one down."""
MAX_FAILURES = 10
"""Attempts that failed by an outage: with the waits between them some six minutes, after which the file fails."""
LONGEST_WAIT_S = 60.0
CHUNK_OVERHEAD_BYTES = 1024
"""What a chunk adds to the bytes that its file uses. *Source*: recorded files, 256 floats of 4 bytes."""
OUTAGE_POLL_S = 1.0
"""How often a database that is gone is asked again."""
MISSING = "The content of the file is not in the storage of this server any more. Upload it again."
UNREADABLE = "This server has no means to read it at the moment."
KEYWORDS = Space("", 0)
"""Where chunks are that have no vectors."""


class LeaseLost(Exception):  # noqa: N818
    """Another executor has the file, or it is gone from its store: nothing more may be written."""


class BytesMissing(Exception):  # noqa: N818
    """The storage has not got what the file consists of."""


async def ingest(lease: FileLease, resources: Resources, parser: Parser) -> None:
    """Make a claimed file searchable, or say why it never will be; outages hand it back, to be tried again later.

    An outage of the database alone is waited out: the lease tells then whose the file is.
    """
    described: Attributes = {
        "adlatus.file_id": lease.file_id,
        "adlatus.vector_store_id": lease.vector_store_id,
        "adlatus.project_id": lease.project_id,
        "adlatus.attempt": lease.attempt,
    }
    with resources.tracing.span("index file", described) if resources.tracing else NO_SPAN:
        await _to_an_end(lease, resources, parser)


async def _to_an_end(lease: FileLease, resources: Resources, parser: Parser) -> None:
    try:
        await _ingest(lease, resources, parser)
    except LeaseLost:
        lease.interruption = Interruption.LOST  # it is known: no heartbeat interrupts what follows to say so
        await asyncio.shield(_discard(lease, resources))
    except asyncio.CancelledError:
        if lease.interruption is Interruption.LOST:
            await asyncio.shield(_discard(lease, resources))
        raise
    except BytesMissing:
        await _missing(lease, resources)
    except (Unavailable, ModelError, ParserUnavailableError, OSError) as error:
        await _later(lease, resources, error)


async def _ingest(lease: FileLease, resources: Resources, parser: Parser) -> None:
    begun, row = monotonic(), await _load(lease, resources)
    if lease.abandoned >= MAX_ABANDONED:
        log.error("file took too many processes down", abandoned=lease.abandoned)
        await _fail(lease, resources, FileError(code="server_error", message="The file could not be processed."))
        return
    parsed = await parser.parse(_bytes(lease, resources, row["bytes"]), row["filename"])
    if isinstance(parsed, Failure):
        await _fail(lease, resources, FileError(code=parsed.code, message=parsed.message))
        return
    with parsed:
        try:
            space, count = await _write(lease, resources, row, parsed)
        except TooManyTokensError:
            await _fail(lease, resources, FileError(code=TOO_LARGE.code, message=TOO_LARGE.message))
            return
        size_bytes = parsed.size_bytes
    await _complete(lease, resources, row, space, count, size_bytes + CHUNK_OVERHEAD_BYTES * count)
    resources.metrics.file_seconds.observe(monotonic() - begun)


async def _load(lease: FileLease, resources: Resources) -> Row:
    """The row as it is now. Raises `LeaseLost`."""
    row = await _answered(partial(rows.load, resources.database, lease))
    if row is None:
        raise LeaseLost
    return row


async def _answered(ask: Callable[[], Awaitable[T]]) -> T:
    """What the database answers, however long it is gone: nobody else can take the file over meanwhile either."""
    while True:
        try:
            return await ask()
        except Unavailable:
            log.warning("the file waits for the database")
            await asyncio.sleep(OUTAGE_POLL_S)


async def _bytes(lease: FileLease, resources: Resources, size_bytes: int) -> AsyncIterator[bytes]:
    """What the file consists of, in pieces. Raises `BytesMissing`."""
    try:
        async for piece in await resources.blobs.read(files.key_of(lease.file_id), 0, size_bytes):
            yield piece
    except FileNotFoundError:
        raise BytesMissing from None


async def _write(lease: FileLease, resources: Resources, row: Row, parsed: Parsed) -> tuple[Space, int]:
    """Cut a text, embed it and write it to the index, some chunks at a time; where it is then, and in how many."""
    sizes = row["chunking_strategy"]["static"]
    cut = chunks(parsed.pieces(), sizes["max_chunk_size_tokens"], sizes["chunk_overlap_tokens"])
    space, language, count = KEYWORDS, "", 0
    while batch := await asyncio.to_thread(_take, cut):
        language = language or detect(batch[0].text)
        space, vectors = await _embedded(resources, [each.text for each in batch])
        await _hold(lease, resources)
        await resources.index.upsert(
            space,
            [_of(each, lease, language, row, own) for each, own in zip(batch, vectors, strict=True)],
        )
        count += len(batch)
    return space, count


async def _hold(lease: FileLease, resources: Resources) -> None:
    """Renew the lease before something is written: this process may have been asleep. Raises `LeaseLost`."""
    if lease.token not in await _answered(partial(FILES.heartbeat, resources.database, [lease.token])):
        raise LeaseLost


def _take(cut: Iterator[Chunk]) -> list[Chunk]:
    return list(islice(cut, BATCH))


async def _embedded(resources: Resources, texts: Sequence[str]) -> tuple[Space, list[list[protocol.Vector]]]:
    """The vectors of each text, and the space that they are of. Without an embedding model there are none."""
    if resources.embedder is None:
        return KEYWORDS, [[] for _ in texts]
    vectors = await resources.embedder.embed_documents(texts)
    return Space(resources.embedder.name, vectors.shape[1]), [[vector.tolist()] for vector in vectors]


def _of(cut: Chunk, lease: FileLease, language: str, row: Row, vectors: Sequence[protocol.Vector]) -> protocol.Chunk:
    return protocol.Chunk(
        vector_store_id=lease.vector_store_id,
        file_id=lease.key,
        index=cut.index,
        text=cut.text,
        language=language,
        char_from=cut.char_from,
        char_to=cut.char_to,
        page_from=cut.page_from,
        page_to=cut.page_to,
        attributes=row["attributes"],
        vectors=vectors,
    )


async def _complete(
    lease: FileLease, resources: Resources, row: Row, space: Space, count: int, usage_bytes: int
) -> None:
    """The file can be searched: with the attributes that it has by now, which a client may have changed meanwhile."""
    complete = partial(
        rows.complete_if_held,
        resources.database,
        lease,
        usage_bytes=usage_bytes,
        chunks=count,
        embedding_model=space.model,
        embedding_dimensions=space.dimensions,
        late_interaction=space.late_interaction,
    )
    attributes = row["attributes"]
    while not await _answered(partial(complete, attributes=attributes)):
        attributes = (await _load(lease, resources))["attributes"]
        await resources.index.set_attributes(lease.vector_store_id, lease.key, attributes)
    resources.metrics.files_indexed.labels("completed").inc()
    resources.metrics.chunks_indexed.inc(count)
    if resources.tracing:
        resources.tracing.current().set({"adlatus.chunks": count, "gen_ai.request.model": space.model or None})
    log.info("file can be searched", chunks=count, model=space.model or None)


async def _fail(lease: FileLease, resources: Resources, error: FileError) -> None:
    if await _answered(partial(rows.fail_if_held, resources.database, lease, error)):
        resources.metrics.files_indexed.labels("failed").inc()
        if resources.tracing:
            resources.tracing.current().fail(error.code)
        reason = None if error.code == "server_error" else error.message  # of a server, it may repeat the file
        log.info("file cannot be searched", code=error.code, reason=reason)


async def _missing(lease: FileLease, resources: Resources) -> None:
    """Fail a file whose bytes are not in the storage, if only they are missing and not all that it should have."""
    try:
        await resources.blobs.glance()
    except Unavailable as error:
        await _later(lease, resources, error)
        return
    await _fail(lease, resources, FileError(code="server_error", message=MISSING))


async def _later(lease: FileLease, resources: Resources, error: Exception) -> None:
    """Hand the file back because of an outage, to whoever claims it when it may be over."""
    row = await _answered(partial(rows.load, resources.database, lease))
    if row is None:
        return
    failures = row["failures"] + 1
    if failures >= MAX_FAILURES:
        log.error("file given up", failures=failures, error=str(error))
        reason = error.message if isinstance(error, Unavailable | ModelError) else UNREADABLE
        message = f"The file could not be processed, and it was tried {MAX_FAILURES} times: {reason}"
        await _fail(lease, resources, FileError(code="server_error", message=message))
        return
    wait_s = min(2.0 ** row["failures"], LONGEST_WAIT_S)
    resources.metrics.file_retries.inc()
    log.warning("file is tried again", failures=failures, wait_s=wait_s, error=str(error))
    await _answered(partial(rows.retry_if_held, resources.database, lease, wait_s))


async def _discard(lease: FileLease, resources: Resources) -> None:
    """Take back what this attempt has written, now and, for what is still on its way, in a minute.

    Not what it has completed: whoever has done that holds no lease any more either.
    """
    log.info("file was taken over or is gone, nothing more is written")
    if not await _answered(partial(vector_stores.loosen, resources.database, lease)):
        return
    try:
        await resources.index.delete(lease.vector_store_id, lease.key)
    except Unavailable as error:
        log.warning("chunks are deleted later", error=error.message)
