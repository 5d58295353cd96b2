"""Makes files of vector stores searchable: the ingestion job, whose record is the row of the file.

Every attempt writes chunks under a key of its own (`FileLease.key`), and the row says which attempt has come to its
end: so no chunk is found twice, whoever else worked on the file, and none of a file that is gone.
"""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import islice

import structlog

from adlatus.backends.refusals import ModelError
from adlatus.backends.vectors import protocol
from adlatus.backends.vectors.languages import detect
from adlatus.backends.vectors.protocol import Space
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.retrieval.chunk import Chunk, TooManyTokensError, chunks
from adlatus.retrieval.parse import TOO_LARGE, Failure, Parsed, Parser, ParserUnavailableError
from adlatus.store import files
from adlatus.store import vector_store_files as rows
from adlatus.store.db import Row
from adlatus.store.leases import FileLease, Interruption
from adlatus.wire.vector_stores import FileError

log = structlog.get_logger(__name__)

BATCH = 32
"""Chunks that are cut, embedded and written at a time."""
MAX_ABANDONED = 3
"""Processes that died with a file, after which it fails rather than take a fourth one down."""
MAX_FAILURES = 10
"""Attempts that failed by an outage: with the waits between them some six minutes, after which the file fails."""
LONGEST_WAIT_S = 60.0
CHUNK_OVERHEAD_BYTES = 1024
"""What a chunk adds to the bytes that its file uses. *Source*: recorded files, 256 floats of 4 bytes."""
KEYWORDS = Space("", 0)
"""Where chunks are that have no vectors."""


class LeaseLost(Exception):  # noqa: N818
    """Another executor has the file, or it is gone from its store: nothing more may be written."""


async def ingest(lease: FileLease, resources: Resources, parser: Parser) -> None:
    """Make a claimed file searchable, or say why it never will be; outages hand it back, to be tried again later."""
    try:
        await _ingest(lease, resources, parser)
    except LeaseLost:
        log.info("file was taken over or is gone, nothing more is written")
        await _discard(lease, resources)
    except asyncio.CancelledError:
        if lease.interruption is Interruption.LOST:
            await asyncio.shield(_discard(lease, resources))
        raise
    except (Unavailable, ModelError, ParserUnavailableError, OSError) as error:
        await _later(lease, resources, error)


async def _ingest(lease: FileLease, resources: Resources, parser: Parser) -> None:
    row = await rows.load(resources.database, lease)
    if row is None:
        raise LeaseLost
    if lease.abandoned >= MAX_ABANDONED:
        log.error("file took too many processes down", abandoned=lease.abandoned)
        await _fail(lease, resources, FileError(code="server_error", message="The file could not be processed."))
        return
    source = await resources.blobs.read(files.key_of(lease.file_id), 0, row["bytes"])
    parsed = await parser.parse(source, row["filename"])
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


async def _write(lease: FileLease, resources: Resources, row: Row, parsed: Parsed) -> tuple[Space, int]:
    """Cut a text, embed it and write it to the index, some chunks at a time; where it is then, and in how many."""
    sizes = row["chunking_strategy"]["static"]
    cut = chunks(parsed.pieces(), sizes["max_chunk_size_tokens"], sizes["chunk_overlap_tokens"])
    space, language, count = KEYWORDS, "", 0
    while batch := await asyncio.to_thread(_take, cut):
        language = language or detect(batch[0].text)
        space, vectors = await _embedded(resources, [each.text for each in batch])
        await resources.index.upsert(
            space,
            [_of(each, lease, language, row, own) for each, own in zip(batch, vectors, strict=True)],
        )
        count += len(batch)
    return space, count


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
    attributes = row["attributes"]
    while not await rows.complete_if_held(
        resources.database,
        lease,
        attributes=attributes,
        usage_bytes=usage_bytes,
        chunks=count,
        embedding_model=space.model,
        embedding_dimensions=space.dimensions,
        late_interaction=space.late_interaction,
    ):
        fresh = await rows.load(resources.database, lease)
        if fresh is None:
            raise LeaseLost
        attributes = fresh["attributes"]
        await resources.index.set_attributes(lease.vector_store_id, lease.key, attributes)
    resources.metrics.files_indexed.labels(status="completed").inc()
    log.info("file can be searched", chunks=count, model=space.model or None)


async def _fail(lease: FileLease, resources: Resources, error: FileError) -> None:
    if await rows.fail_if_held(resources.database, lease, error):
        resources.metrics.files_indexed.labels(status="failed").inc()
        log.info("file cannot be searched", code=error.code, reason=error.message)


async def _later(lease: FileLease, resources: Resources, error: Exception) -> None:
    """Hand the file back because of an outage, to whoever claims it when it may be over."""
    reason = getattr(error, "message", str(error))
    try:
        row = await rows.load(resources.database, lease)
        if row is None:
            return
        if row["failures"] + 1 >= MAX_FAILURES:
            log.error("file given up", failures=row["failures"] + 1, error=reason)
            message = f"The file could not be processed, and it was tried {MAX_FAILURES} times: {reason}"
            await _fail(lease, resources, FileError(code="server_error", message=message))
            return
        wait_s = min(2.0 ** row["failures"], LONGEST_WAIT_S)
        log.warning("file is tried again", failures=row["failures"] + 1, wait_s=wait_s, error=reason)
        await rows.retry_if_held(resources.database, lease, wait_s)
    except Unavailable:
        log.error("the database does not answer; the file will be claimed again when its lease has run out")


async def _discard(lease: FileLease, resources: Resources) -> None:
    """Take back what this attempt has written: nobody else knows how far it came."""
    try:
        await resources.index.delete(lease.vector_store_id, lease.key)
    except Unavailable as error:
        log.warning("chunks are left behind", key=lease.key, error=error.message)
