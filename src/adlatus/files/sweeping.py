"""Expired files and uploads go, and so do bytes that no row stands for.

Any process may do this, several at once: everything is read from the database, and done twice does no harm.
"""

from functools import partial

import structlog

from adlatus.backends.blobs import Blobs
from adlatus.housekeeping import forever
from adlatus.store import files, uploads
from adlatus.store.db import Database

log = structlog.get_logger(__name__)

PACE_S = 60.0


async def sweep_forever(database: Database, blobs: Blobs) -> None:
    """Sweep once a minute, until cancelled."""
    await forever("no files are swept", PACE_S, partial(sweep, database, blobs))


async def sweep(database: Database, blobs: Blobs) -> None:
    """Let go what has expired, then delete all bytes that are due."""
    while expired := await files.expire(database):
        log.info("files expired", files=expired)
    while expired := await _expire_uploads(database):
        log.info("uploads expired", uploads=expired)
    while keys := await files.due(database):
        await blobs.delete(keys)
        await files.forget(database, keys)
        log.info("bytes deleted", keys=len(keys))


async def _expire_uploads(database: Database) -> int:
    async with database.transaction() as tx:
        return await uploads.expire(tx)
