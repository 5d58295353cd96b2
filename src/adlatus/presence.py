"""Tells the database again and again that this process is alive and what it can do. Knows neither leases nor work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from adlatus.backends.vectors.elsewhere import ElsewhereIndex
from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.store import executors
from adlatus.store.executors import HEARTBEAT_S, Ability

log = structlog.get_logger(__name__)


def abilities(resources: Resources) -> frozenset[Ability]:
    """What runs may need and this process has at the moment."""
    has = {
        Ability.SEARCH: not isinstance(resources.index, ElsewhereIndex),
        Ability.SANDBOX: resources.code is not None and resources.code.engine is not None,
    }
    return frozenset(ability for ability, there in has.items() if there)


@asynccontextmanager
async def present(resources: Resources, *, runs: bool, ingestion: bool) -> AsyncIterator[None]:
    """This process executes runs, or indexes files, or both, until the block is left. It is known when this is entered.

    An outage of the database is waited out; a process that cannot tell that it is alive is taken for dead meanwhile.
    """
    changed = resources.code.changed if resources.code else asyncio.Event()
    changed.clear()
    await _beat(resources, runs=runs, ingestion=ingestion)
    task = asyncio.create_task(_beat_forever(resources, changed, runs=runs, ingestion=ingestion))
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        with suppress(Unavailable):
            await executors.leave(resources.database, resources.executor_id)


async def _beat_forever(resources: Resources, changed: asyncio.Event, *, runs: bool, ingestion: bool) -> None:
    while True:
        with suppress(TimeoutError):
            async with asyncio.timeout(HEARTBEAT_S):
                await changed.wait()
        changed.clear()
        try:
            await _beat(resources, runs=runs, ingestion=ingestion)
        except Unavailable:
            log.warning("this process cannot tell that it is alive: the database does not answer")
        except Exception:
            log.exception("this process cannot tell that it is alive; this is a fault")


async def _beat(resources: Resources, *, runs: bool, ingestion: bool) -> None:
    code = resources.code
    await executors.beat(
        resources.database,
        resources.executor_id,
        runs=runs,
        ingestion=ingestion,
        search=Ability.SEARCH in abilities(resources),
        sandbox_engine=code.engine if code else None,
        sandbox_problem=(code.problem or None) if code else None,
        sandboxed=resources.sandboxes.threads if resources.sandboxes else (),
    )
