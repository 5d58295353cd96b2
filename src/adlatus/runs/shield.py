"""Work that is finished once it has begun, whoever cancels it meanwhile, and whatever does not answer for a while."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, TypeVar

import structlog

from adlatus.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

OUTAGE_S = 0.5
"""How long to wait before a database that did not answer is asked again."""

Result = TypeVar("Result")


async def to_the_end(work: Coroutine[Any, Any, Result]) -> Result:
    """Await `work` to its end even if this task is cancelled meanwhile; the cancellation is raised after it."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with suppress(asyncio.CancelledError):  # a second one: the first is raised below
                await asyncio.wait([task])
        if not task.cancelled() and (error := task.exception()):
            raise error from None
        raise


async def through_outages(write: Callable[[], Coroutine[Any, Any, Result]]) -> Result:
    """Write to the end, again and again while the database does not answer; between two attempts it may be cancelled.

    For what is lost otherwise: that a lease is lost meanwhile is for the write to find out, or for who cancels.
    """
    while True:
        try:
            return await to_the_end(write())
        except DatabaseUnavailable:
            log.warning("what was done is kept until the database answers again")
        await asyncio.sleep(OUTAGE_S)
