"""Chunks that no row stands for any more leave the index; what has expired is emptied.

Any process may do this, several at once: everything is read from the database, and done twice does no harm.
"""

from functools import partial

import structlog

from adlatus.errors import Unavailable
from adlatus.housekeeping import forever
from adlatus.resources import Resources
from adlatus.store import vector_stores

log = structlog.get_logger(__name__)

PACE_S = 30.0
BATCH = 100


async def sweep_forever(resources: Resources) -> None:
    """Sweep every half minute, until cancelled."""
    await forever("no chunks are swept", PACE_S, partial(sweep, resources))


async def sweep(resources: Resources) -> None:
    """Empty expired stores, then delete all chunks that are due. Raises `Unavailable`."""
    while expired := await vector_stores.empty_expired(resources.database):
        log.info("vector stores expired", stores=expired)
    while await _delete_due(resources):
        pass


async def _delete_due(resources: Resources) -> int:
    """Delete chunks that are due, `BATCH` keys at most; gives how many there were."""
    due = await vector_stores.loose(resources.database, BATCH)
    for store_id, key in due:
        await resources.index.delete(store_id, key or None)
        await vector_stores.forget(resources.database, store_id, key)
    return len(due)


async def sweep_soon(resources: Resources) -> None:
    """Delete what is due now if that works, but no more than a batch: the rest is swept later.

    For who has just deleted something, and must not wait for all that others have.
    """
    try:
        await _delete_due(resources)
    except Unavailable as error:
        log.warning("chunks are deleted later", error=error.message)
