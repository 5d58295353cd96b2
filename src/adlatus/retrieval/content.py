"""What a store knows of a file beyond finding it: its text, and its attributes, which the index has too."""

from collections.abc import AsyncIterator

from adlatus.backends.vectors.protocol import Space
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.store import vector_store_files as rows
from adlatus.store.db import Row
from adlatus.store.leases import chunks_key
from adlatus.wire.common import Json
from adlatus.wire.vector_stores import FileStatus

AT_A_TIME = 100
ATTEMPTS = 20


def key_of(row: Row) -> str:
    """Under what the index has the chunks of a file that can be searched."""
    return chunks_key(row["id"], row["seq"], row["attempt"])


async def texts(resources: Resources, row: Row) -> AsyncIterator[str]:
    """The text of a file that can be searched, chunk after chunk, each without what the one before had already.

    Raises `Unavailable` where the index does not answer, or has lost a chunk.
    """
    space = Space(row["embedding_model"], row["embedding_dimensions"], row["late_interaction"])
    end = 0
    for start in range(0, row["chunks"], AT_A_TIME):
        wanted = min(AT_A_TIME, row["chunks"] - start)
        found = await resources.index.chunks(space, row["vector_store_id"], key_of(row), start, wanted)
        if len(found) < wanted:
            raise Unavailable("The index has not all of the file. Put it into the vector store again.")
        for chunk in found:
            if chunk.char_to > end:
                yield chunk.text[max(0, end - chunk.char_from) :]
                end = chunk.char_to


async def set_attributes(resources: Resources, project_id: str, store_id: str, file_id: str, attributes: Json) -> Row:
    """Replace the attributes of a file, in the index and in its row. Raises `NotFound`, `Unavailable`.

    The index first, then the row if nobody else has changed it meanwhile, else once more: so both have the same in the
    end, whoever came last. A file in progress is completed with the attributes of its row.
    """
    for _ in range(ATTEMPTS):
        row = await rows.get(resources.database, project_id, store_id, file_id)
        if row["status"] == FileStatus.COMPLETED:
            await resources.index.set_attributes(store_id, key_of(row), attributes)
        if await rows.exchange_attributes(resources.database, row, attributes):
            return await rows.get(resources.database, project_id, store_id, file_id)
    raise Unavailable("The attributes of the file are being changed by others. Try again.")
