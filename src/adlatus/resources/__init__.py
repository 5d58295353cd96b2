"""Everything outside the process that the server works with, opened in order and closed in reverse.

The only place that picks a backend.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from secrets import token_hex

import structlog

from adlatus.backends.blobs import Blobs, open_blobs, why
from adlatus.backends.embeddings import Embedder
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.images import Images, open_images
from adlatus.backends.llm import Llm
from adlatus.backends.relay import Relay
from adlatus.backends.rerank import Reranker, open_reranker
from adlatus.backends.sandbox.availability import Availability, looking
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.backends.upstreams import open_clients
from adlatus.backends.vectors.protocol import VectorIndex
from adlatus.backends.wakeup import Wakeup, listen
from adlatus.errors import StartupError, Unavailable
from adlatus.resources.database import opened_database
from adlatus.resources.index import open_index
from adlatus.resources.models import (
    EMBEDDING_SETTINGS,
    EMBEDDINGS_ADVICE,
    embeddings_report,
    open_local_model,
    open_routing,
    pick_embedder,
)
from adlatus.settings import Settings
from adlatus.store import leases
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.seen import SeenAssistants
from adlatus.telemetry import Metrics
from adlatus.telemetry.tracing import Tracing, open_tracing
from adlatus.tenants.access import Access, open_access
from adlatus.tenants.rates import Rates

log = structlog.get_logger(__name__)

_SANDBOXES_S = 1.0
"""How long a start waits for what is found of sandboxes; they may come later."""


@dataclass(frozen=True)
class Resources:
    """What is open.

    `embedder` is None where there is none: then files are found by their words only. `local_model` is there if it was
    fetched, whatever files are indexed with. `code` is None in a process that executes no runs, `tracing` where
    nobody wants traces. `executor_id` is this process's name in the database.
    """

    settings: Settings
    executor_id: str
    database: Database
    events: EventLog
    wakeup: Wakeup
    llm: Llm
    relay: Relay
    images: Images
    blobs: Blobs
    index: VectorIndex
    embedder: Embedder | None
    reranker: Reranker | None
    local_model: LocalModel | None
    code: Availability | None
    metrics: Metrics
    tracing: Tracing | None
    access: Access
    rates: Rates
    picked: tuple[tuple[str, str, str], ...]
    seen: SeenAssistants = field(default_factory=SeenAssistants)

    @property
    def sandboxes(self) -> Sandboxes | None:
        """What code is executed in, if there is anything now."""
        return self.code.sandboxes if self.code else None

    @property
    def sandbox_problem(self) -> str:
        """Why this process, which executes runs, has no sandboxes at the moment, and what to do about it."""
        return self.code.problem if self.code else ""

    @property
    def report(self) -> tuple[tuple[str, str, str], ...]:
        """What was picked, for people, and how to pick something else."""
        picked = *self.picked, ("keys", self.access.report, "`adlatus keys create` or ADLATUS_API_KEYS")
        if self.code is None:
            return picked
        return *picked, ("code", self.code.engine or f"not executed: {self.code.problem}", "ADLATUS_SANDBOX")


@asynccontextmanager
async def open_resources(
    settings: Settings, metrics: Metrics, *, has_folder: bool = True, executes: bool = True
) -> AsyncIterator[Resources]:
    """Open every backend that the settings ask for. Raises `StartupError` with advice.

    `has_folder` says whether the data folder may be this process's own: a worker of a shared database has none;
    `executes` whether this process is going to execute runs.
    """
    executor_id = f"{socket.gethostname()}:{os.getpid()}:{token_hex(4)}"
    async with AsyncExitStack() as stack:
        tracing = await stack.enter_async_context(open_tracing(executor_id))
        database, database_report = await stack.enter_async_context(opened_database(settings))
        code = await stack.enter_async_context(looking(settings)) if executes else None
        access = await stack.enter_async_context(open_access(database, settings))
        events = EventLog(database)
        await _in_background(stack, events)
        wakeup = await stack.enter_async_context(listen(database.dsn, leases.WAKE_CHANNEL))
        routing, model_report = await stack.enter_async_context(open_routing(settings))
        clients = await stack.enter_async_context(open_clients(routing.addressed, tracing))
        images = await stack.enter_async_context(open_images())
        blobs = await _open_blobs(settings)
        index, index_report = await open_index(stack, settings, database, has_folder=has_folder)
        local_model = open_local_model(stack, settings)
        embedder = pick_embedder(settings, routing, clients, local_model)
        reranker = await stack.enter_async_context(open_reranker(settings, metrics.reranks, tracing))
        metrics.embeddings_available.set(embedder is not None)
        if embedder is None:
            log.warning("no embedding model: files are found by their words only", advice=EMBEDDINGS_ADVICE)
        if code and settings.sandbox != "off":
            with suppress(TimeoutError):
                await asyncio.wait_for(code.changed.wait(), _SANDBOXES_S)
        picked = (
            ("data folder", str(settings.data_dir), "--data-dir or ADLATUS_DATA_DIR"),
            ("database", database_report, "ADLATUS_DATABASE_URL"),
            ("models", model_report, "ADLATUS_MODEL_BASE_URL, ADLATUS_MODEL, ADLATUS_MODELS_FILE"),
            ("storage", blobs.shown, "ADLATUS_STORAGE_URL"),
            ("index", index_report, "ADLATUS_QDRANT_URL"),
            ("embeddings", embeddings_report(embedder), EMBEDDING_SETTINGS),
        )
        yield Resources(
            settings,
            executor_id,
            database,
            events,
            wakeup,
            Llm(clients, routing),
            Relay(clients, routing),
            images,
            blobs,
            index,
            embedder,
            reranker,
            local_model,
            code,
            metrics,
            tracing,
            access,
            Rates(database, access.limits),
            picked,
        )


async def _open_blobs(settings: Settings) -> Blobs:
    """The file storage, which takes and gives bytes."""
    blobs = open_blobs(settings.storage_url, settings.data_dir)
    try:
        await blobs.check()
    except Unavailable as error:
        raise StartupError(f"the file storage ({blobs.shown}) cannot be used: {why(error)}.") from error
    return blobs


async def _in_background(stack: AsyncExitStack, events: EventLog) -> None:
    """Write events until the stack closes; what is left then is written last."""
    task = asyncio.create_task(events.write_forever())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await events.stop()

    stack.push_async_callback(stop)
