"""Everything outside the process that the server works with, opened in order and closed in reverse.

The only place that picks a backend.
"""

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from secrets import token_hex

import asyncpg
import httpx
import structlog
from pydantic import SecretStr

from adlatus.backends import models_file
from adlatus.backends.blobs import Blobs, open_blobs, why
from adlatus.backends.embeddings import Embedder, fetch, local
from adlatus.backends.embeddings.endpoint import EndpointEmbedder
from adlatus.backends.embeddings.local import LocalModel
from adlatus.backends.images import Images, open_images
from adlatus.backends.llm import Llm
from adlatus.backends.postgres import embedded_postgres
from adlatus.backends.relay import Relay
from adlatus.backends.rerank import Reranker, open_reranker
from adlatus.backends.routing import LOCAL, Endpoint, Route, Routing
from adlatus.backends.sandbox.availability import Availability, looking
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.backends.upstreams import Clients, open_clients
from adlatus.backends.vectors.edge import identity, open_edge
from adlatus.backends.vectors.elsewhere import ElsewhereIndex
from adlatus.backends.vectors.protocol import VectorIndex
from adlatus.backends.vectors.qdrant import open_qdrant
from adlatus.backends.wakeup import Wakeup, listen
from adlatus.errors import StartupError, Unavailable
from adlatus.rehearsal import server as rehearsal
from adlatus.rehearsal.embeddings import MODEL as REHEARSAL_EMBEDDING
from adlatus.settings import DEFAULT_PROJECT, Settings
from adlatus.store import executors, index_owner, leases, migrate, projects
from adlatus.store.db import Database, open_database, plain_dsn
from adlatus.store.events import EventLog
from adlatus.store.seen import SeenAssistants
from adlatus.telemetry import Metrics
from adlatus.telemetry.tracing import Tracing, open_tracing
from adlatus.tenants.access import Access, open_access
from adlatus.tenants.rates import Rates

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 24
"""Connections to PostgreSQL that one process holds at most, one more than that for wake-ups."""

_SANDBOXES_S = 1.0
"""How long a start waits for what is found of sandboxes; they may come later."""

_SET_BY = {
    "base_url": "ADLATUS_MODEL_BASE_URL",
    "api_key": "ADLATUS_MODEL_API_KEY",
    "model": "ADLATUS_MODEL",
    "image_urls": "ADLATUS_IMAGE_URLS",
}
"""The settings of the endpoint that is not in a routing table."""

_EMBEDDING_SET_BY = {
    "base_url": "ADLATUS_EMBEDDING_BASE_URL",
    "api_key": "ADLATUS_EMBEDDING_API_KEY",
    "model": "ADLATUS_EMBEDDING_MODEL",
}

_NO_DATABASE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError)


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
        dsn, database_report = await _open_dsn(stack, settings)
        try:
            database = await stack.enter_async_context(open_database(dsn, max_connections=MAX_CONNECTIONS))
        except _NO_DATABASE as error:
            raise StartupError(f"cannot open {MAX_CONNECTIONS} connections to the database: {error}") from error
        code = await stack.enter_async_context(looking(settings)) if executes else None
        # The lock on the data folder is ours, so whoever held leases in it is dead
        if settings.database_url is None:
            await executors.remove_all(database)
        if settings.database_url is None and (freed := await leases.RUNS.release_all(database)):
            log.info("runs of an earlier process go on", runs=freed)
        if settings.database_url is None and (freed := await leases.FILES.release_all(database)):
            log.info("files of an earlier process go on being indexed", files=freed)
        await projects.ensure(database, {DEFAULT_PROJECT, *(key.project_id for key in settings.keys)})
        access = await stack.enter_async_context(open_access(database, settings))
        events = EventLog(database)
        await _in_background(stack, events)
        wakeup = await stack.enter_async_context(listen(dsn, leases.WAKE_CHANNEL))
        routing, model_report = await stack.enter_async_context(open_routing(settings))
        clients = await stack.enter_async_context(open_clients(routing.addressed, tracing))
        images = await stack.enter_async_context(open_images())
        blobs = await _open_blobs(settings)
        index, index_report = await _open_index(stack, settings, database, has_folder=has_folder)
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
            ("embeddings", _embeddings_report(embedder), _EMBEDDING_SETTINGS),
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


async def _open_dsn(stack: AsyncExitStack, settings: Settings) -> tuple[str, str]:
    """A database at the schema of this version, and what to say of it."""
    if settings.database_url is None:
        embedded = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        if await migrate.current(embedded.dsn) != migrate.head():
            await migrate.upgrade(embedded.dsn)
        state = "adopted from an earlier, killed server" if embedded.adopted else "started"
        return embedded.dsn, f"embedded PostgreSQL, {state} (pid {embedded.pid})"
    dsn = plain_dsn(settings.database_url.get_secret_value())
    try:
        revision = await migrate.current(dsn)
    except _NO_DATABASE as error:
        raise StartupError(f"ADLATUS_DATABASE_URL: cannot connect to the database: {error}") from error
    if revision != migrate.head():
        raise StartupError(
            f"The database is at revision {revision or 'none'}, this version of Adlatus wants {migrate.head()}: "
            "run `adlatus migrate` with the same ADLATUS_DATABASE_URL first."
        )
    at = httpx.URL(dsn)
    return dsn, f"PostgreSQL at {at.host or 'a unix socket'}{at.path}"


async def _open_blobs(settings: Settings) -> Blobs:
    """The file storage, which takes and gives bytes."""
    blobs = open_blobs(settings.storage_url, settings.data_dir)
    try:
        await blobs.check()
    except Unavailable as error:
        raise StartupError(f"the file storage ({blobs.shown}) cannot be used: {why(error)}.") from error
    return blobs


async def _open_index(
    stack: AsyncExitStack, settings: Settings, database: Database, *, has_folder: bool
) -> tuple[VectorIndex, str]:
    """Where chunks of files are kept and found, and what to say of it. It is not asked before it is needed."""
    if settings.qdrant_url is not None:
        key = settings.qdrant_api_key
        opened = open_qdrant(settings.qdrant_url, key.get_secret_value() if key else None)
        index = await stack.enter_async_context(opened)
        return index, f"Qdrant at {index.shown}"
    folder = index_folder(settings)
    if not has_folder or not await _owned(database, identity(folder), embedded=settings.database_url is None):
        log.warning("no files are indexed or searched by this process", advice=ELSEWHERE)
        return ElsewhereIndex(ELSEWHERE), "in the data folder of another server: no file search in this process"
    embedded = open_edge(folder, when_needed=True)
    return await stack.enter_async_context(embedded), "embedded Qdrant, in the data folder"


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


async def _in_background(stack: AsyncExitStack, events: EventLog) -> None:
    """Write events until the stack closes; what is left then is written last."""
    task = asyncio.create_task(events.write_forever())

    async def stop() -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await events.stop()

    stack.push_async_callback(stop)


@asynccontextmanager
async def open_routing(settings: Settings) -> AsyncIterator[tuple[Routing, str]]:
    """Which endpoint answers for which model, and what to say of it. Serves the rehearsal model if a name needs it.

    Raises `StartupError` with advice.
    """
    table = models_file.read(settings.models_file) if settings.models_file else None
    script, configured = settings.rehearsal_script, _configured(settings)
    async with AsyncExitStack() as stack:
        stand_in = None
        if table.wants_rehearsal if table else configured is None:
            base_url = await stack.enter_async_context(rehearsal.running(script=script))
            stand_in = Endpoint(
                models_file.REHEARSAL,
                base_url,
                timeout_s=settings.model_timeout_s,
                image_urls="forward",
                set_by=_SET_BY,
            )
        elif script:
            log.warning("no name leads to the rehearsal model, its script is ignored", script=str(script))
        routes = _routes(settings, table, stand_in) if table else []
        default = configured or (None if table else stand_in)
        unrouted = Route("*", default, settings.model or "*") if default else None
        embeddings = list(_embedding_routes(settings, configured, None if table else stand_in))
        routing = Routing(routes, unrouted, Route("*", default) if default else None, embeddings)
        yield routing, "; ".join(_routing_report(settings, routes, configured, stand_in))


def _routes(settings: Settings, table: models_file.ModelsFile, stand_in: Endpoint | None) -> list[Route]:
    timeout_s, image_urls = settings.model_timeout_s, settings.image_urls
    return table.routes(os.environ, timeout_s=timeout_s, image_urls=image_urls, rehearsal=stand_in)


def _configured(settings: Settings) -> Endpoint | None:
    """The endpoint of ADLATUS_MODEL_BASE_URL."""
    return _endpoint(settings, settings.model_base_url, settings.model_api_key, _SET_BY)


def _endpoint(
    settings: Settings, base_url: str | None, api_key: SecretStr | None, set_by: Mapping[str, str]
) -> Endpoint | None:
    if base_url is None:
        return None
    url = models_file.checked_url(base_url, set_by["base_url"])
    headers = models_file.key_headers(api_key.get_secret_value() if api_key else None)
    if models_file.unfit_header(headers):
        raise StartupError(f"{set_by['api_key']}: the key {models_file.NO_HEADER}.")
    return Endpoint(
        str(url.netloc, "ascii"),
        base_url,
        headers=headers,
        timeout_s=settings.model_timeout_s,
        image_urls=models_file.of_images(settings.image_urls, url),
        set_by=set_by,
    )


def _embedding_routes(settings: Settings, configured: Endpoint | None, stand_in: Endpoint | None) -> Iterator[Route]:
    """Where names of embedding models lead that are not in the table.

    The local model answers under its own name, and where the rehearsal model would stand in, to every name but that
    of the rehearsal's embeddings. A script is for tests, which want what they always get.
    """
    endpoint = _endpoint(settings, settings.embedding_base_url, settings.embedding_api_key, _EMBEDDING_SET_BY)
    if endpoint:
        yield Route("*", endpoint, settings.embedding_model or "*", chat=False)
    elif configured is None and local.installed() and fetch.find(settings.data_dir):
        yield Route(local.NAME, LOCAL, local.NAME, chat=False)
        if stand_in and settings.rehearsal_script is None:
            yield Route(REHEARSAL_EMBEDDING, stand_in, REHEARSAL_EMBEDDING)
            yield Route("*", LOCAL, local.NAME, chat=False)


def open_local_model(stack: AsyncExitStack, settings: Settings) -> LocalModel | None:
    """The local model if it was fetched. It is loaded when it is first used."""
    folder = fetch.find(settings.data_dir) if local.installed() else None
    if folder is None:
        return None
    model = LocalModel(folder)
    stack.callback(model.close)
    return model


def pick_embedder(
    settings: Settings, routing: Routing, clients: Clients, local_model: LocalModel | None
) -> Embedder | None:
    """What files are indexed with: the model of ADLATUS_EMBEDDING_MODEL, wherever its name leads, or the local one.

    Raises `StartupError` with advice.
    """
    if settings.embedding_model is None:
        if settings.embedding_base_url:
            raise StartupError("ADLATUS_EMBEDDING_BASE_URL needs ADLATUS_EMBEDDING_MODEL: which model to ask for.")
        return local_model
    route = routing.resolve_embedding(settings.embedding_model)
    if route is None:
        raise StartupError(
            f"ADLATUS_EMBEDDING_MODEL: the name '{settings.embedding_model}' leads nowhere. Set "
            "ADLATUS_EMBEDDING_BASE_URL, or route the name in ADLATUS_MODELS_FILE."
        )
    if route.endpoint is LOCAL:
        return local_model
    return EndpointEmbedder(
        clients, route, dimensions=settings.embedding_dimensions, max_tokens=settings.embedding_max_tokens
    )


def _routing_report(
    settings: Settings, routes: list[Route], default: Endpoint | None, stand_in: Endpoint | None
) -> Iterator[str]:
    if routes:
        yield f"{len(routes)} name(s) and patterns of {settings.models_file}"
    if stand_in and settings.rehearsal_script:
        asked = f"{stand_in.base_url.removesuffix('/v1')}/requests"
        yield f"rehearsal: plays {settings.rehearsal_script}; what it is asked: {asked}"
    elif stand_in:
        yield "rehearsal: a scripted stand-in, not a language model"
    if default:
        others = "other" if routes else "every"
        which = f"{others} name goes to {settings.model}" if settings.model else f"{others} name passes through"
        yield f"{default.shown}, {which}"


EMBEDDINGS_ADVICE = "Run `adlatus models fetch`, or set ADLATUS_EMBEDDING_BASE_URL and ADLATUS_EMBEDDING_MODEL."
_EMBEDDING_SETTINGS = "`adlatus models fetch`, or ADLATUS_EMBEDDING_BASE_URL and ADLATUS_EMBEDDING_MODEL"


def _embeddings_report(embedder: Embedder | None) -> str:
    match embedder:
        case None:
            return "none: degraded, files would be found by their words only"
        case LocalModel():
            return f"{embedder.name}, on this machine"
        case _:
            return f"{embedder.name}, by its endpoint"
