"""What every process does for all from time to time. Knows no more of it than its pace.

A sweep reads from the database alone what there is to do. Done twice, or by several processes at once, it does no harm.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from adlatus.errors import Unavailable

log = structlog.get_logger(__name__)


async def forever(what: str, pace_s: float, sweep: Callable[[], Awaitable[object]]) -> None:
    """Sweep at this pace, until cancelled. Outages are waited out, and a fault ends one sweep only.

    `what` is in the log where nothing comes of it, such as "no run expires".
    """
    while True:
        try:
            await sweep()
        except Unavailable as error:
            log.warning(what, error=error.message)
        except Exception:
            log.exception(f"{what}; this is a fault")
        await asyncio.sleep(pace_s)
