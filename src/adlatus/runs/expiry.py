"""Runs that nobody executes expire in time too: those that wait for their client above all.

Any process may do this, several at once; it needs nothing but the database. A run that is executed expires by the
hand of its executor.
"""

import structlog

from adlatus.housekeeping import forever
from adlatus.runs import journal
from adlatus.runs.endings import CANCELLED, EXPIRED
from adlatus.store import runs as statements
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.telemetry import Metrics
from adlatus.wire.runs import RunStatus

log = structlog.get_logger(__name__)

PACE_S = 1.0
BATCH = 100


async def expire_forever(database: Database, events: EventLog, metrics: Metrics | None = None) -> None:
    """Look for overdue runs every second, until cancelled."""

    async def sweep() -> None:
        while await expire(database, events, metrics) == BATCH:
            pass

    await forever("no run expires", PACE_S, sweep)


async def expire(database: Database, events: EventLog, metrics: Metrics | None = None) -> int:
    """End the overdue runs that nobody executes, `BATCH` at most. Returns how many there were."""
    told = []
    async with database.transaction() as tx:
        for run in await tx.fetch(statements.OVERDUE, row_limit=BATCH):
            ending = CANCELLED if run["status"] == RunStatus.CANCELLING else EXPIRED
            ended, frames = await journal.end_unexecuted(tx, run["id"], ending)
            told.append((run["id"], ended["attempt"], frames, ending.status))
    for run_id, attempt, frames, status in told:
        events.append(run_id, attempt, frames)
        if metrics:
            metrics.runs_ended.labels(status).inc()
        log.info("run expired", run_id=run_id)
    return len(told)
