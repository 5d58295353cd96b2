"""The sandboxes of threads that were deleted end: nothing of them is kept until nobody has used them for an hour."""

from functools import partial

import structlog

from adlatus.housekeeping import forever
from adlatus.resources import Resources
from adlatus.store import threads

log = structlog.get_logger(__name__)

PACE_S = 10.0


async def sweep_forever(resources: Resources) -> None:
    """Sweep every ten seconds, until cancelled."""
    await forever("sandboxes of deleted threads are not closed", PACE_S, partial(sweep, resources))


async def sweep(resources: Resources) -> None:
    """Close the sandboxes of this process whose threads are gone, once the last code in them has ended."""
    if (sandboxes := resources.sandboxes) and (used := sandboxes.threads):
        for thread_id in await threads.gone(resources.database, used):
            await sandboxes.discard(thread_id)
            log.info("the sandbox of a deleted thread is closed", thread_id=thread_id)
