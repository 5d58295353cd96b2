"""Where the chunks of files are kept and found."""

from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from pydantic import SecretStr

from adlatus.backends.vectors.edge import identity, open_edge
from adlatus.backends.vectors.elsewhere import ElsewhereIndex
from adlatus.backends.vectors.protocol import VectorIndex
from adlatus.settings import Settings
from adlatus.store import index_owner
from adlatus.store.db import Database

if TYPE_CHECKING:
    from adlatus.backends.vectors.qdrant import QdrantIndex

log = structlog.get_logger(__name__)


async def open_index(
    stack: AsyncExitStack, settings: Settings, database: Database, *, has_folder: bool
) -> tuple[VectorIndex, str]:
    """Where chunks of files are kept and found, and what to say of it. It is not asked before it is needed."""
    if settings.qdrant_url is not None:
        index = await stack.enter_async_context(open_server(settings.qdrant_url, settings.qdrant_api_key))
        return index, f"Qdrant at {index.shown}"
    folder = index_folder(settings)
    if not has_folder or not await _owned(database, identity(folder), embedded=settings.database_url is None):
        log.warning("no files are indexed or searched by this process", advice=ELSEWHERE)
        return ElsewhereIndex(ELSEWHERE), "in the data folder of another server: no file search in this process"
    embedded = open_edge(folder, when_needed=True)
    return await stack.enter_async_context(embedded), "embedded Qdrant, in the data folder"


def open_server(url: str, key: SecretStr | None) -> AbstractAsyncContextManager["QdrantIndex"]:
    """The index on a Qdrant server. Its client takes 50 MB and as long to import as a third of the rest does."""
    from adlatus.backends.vectors.qdrant import open_qdrant  # noqa: PLC0415

    return open_qdrant(url, key.get_secret_value() if key else None)


async def _owned(database: Database, index_id: str, *, embedded: bool) -> bool:
    """Whether the index has the chunks of the database. That of an embedded database has: it may have been lost."""
    if await index_owner.claim(database, index_id):
        return True
    if embedded:
        async with database.transaction() as tx:
            again = await index_owner.replace(tx, index_id)
        log.warning("the embedded index is a new one: files are indexed again", files=again)
    return embedded


ELSEWHERE = (
    "The index of files is in the data folder of another server of this database. Set ADLATUS_QDRANT_URL for all of "
    "them, or ask that server. If its folder is lost, `adlatus index rebuild` makes an index here."
)
"""Advice where the embedded index is not this process's."""


def index_folder(settings: Settings) -> Path:
    """Where the embedded index is."""
    return settings.data_dir / "vectors"
