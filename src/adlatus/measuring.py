"""What is not counted as it happens but looked up when somebody asks for the metrics, and the lag of the event loop."""

import asyncio
import math
import time

from adlatus.errors import Unavailable
from adlatus.resources import Resources
from adlatus.store import queues
from adlatus.store.queues import Queue
from adlatus.telemetry import Metrics

QUEUES_S = 5.0
"""How often the database is asked for its queues at most, whoever wants the metrics how often."""

ANSWER_S = 2.0
"""How long it may take; the other metrics are told without."""

SAMPLE_S = 0.25
"""How often it is looked whether the event loop is late."""


class Gauges:
    """The metrics of a process as they are now."""

    def __init__(self, resources: Resources) -> None:
        self._resources = resources
        self._asking = asyncio.Lock()
        self._asked_at = -math.inf

    async def render(self) -> bytes:
        """In Prometheus' text format."""
        async with self._asking:
            if time.monotonic() - self._asked_at >= QUEUES_S:
                await self._ask()
                self._asked_at = time.monotonic()
        self._look()
        return self._resources.metrics.render()

    async def _ask(self) -> None:
        """The queues; not a number where the database does not tell."""
        database, metrics = self._resources.database, self._resources.metrics
        try:
            async with asyncio.timeout(ANSWER_S):
                of_runs, of_files = await queues.of_runs(database), await queues.of_files(database)
        except (Unavailable, TimeoutError):
            of_runs = of_files = Queue(math.nan, math.nan)
        metrics.runs_waiting.set(of_runs.waiting)
        metrics.runs_oldest_waiting.set(of_runs.oldest_s)
        metrics.files_waiting.set(of_files.waiting)
        metrics.files_oldest_waiting.set(of_files.oldest_s)

    def _look(self) -> None:
        metrics, pool = self._resources.metrics, self._resources.database.pool
        metrics.database_connections.labels("in_use").set(pool.in_use)
        metrics.database_connections.labels("waiting").set(pool.waiting)
        metrics.database_connections_max.set(pool.most)
        sandboxes = self._resources.sandboxes
        metrics.sandboxes.labels("warm").set(sandboxes.warm if sandboxes else 0)
        metrics.sandboxes.labels("busy").set(sandboxes.busy if sandboxes else 0)
        metrics.sandboxes.labels("idle").set(sandboxes.idle if sandboxes else 0)


async def watch_loop(metrics: Metrics) -> None:
    """Measure how late the event loop comes, until cancelled: what keeps it keeps everybody waiting."""
    while True:
        due = time.monotonic() + SAMPLE_S
        await asyncio.sleep(SAMPLE_S)
        metrics.event_loop_lag_seconds.observe(max(time.monotonic() - due, 0.0))
