"""The HTTP application: opens resources and the worker, mounts the routers, renders every error in one place."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Match
from starlette.types import Receive, Scope, Send

from adlatus import __version__
from adlatus.api import (
    assistants,
    azure,
    files,
    messages,
    models,
    operations,
    relay,
    runs,
    steps,
    threads,
    uploads,
    vector_stores,
)
from adlatus.api.admin import administered
from adlatus.api.middleware import GuardKeyless, Observe
from adlatus.api.sse import BODY_SEND
from adlatus.backends.vectors.edge import EdgeIndex
from adlatus.backends.vectors.elsewhere import ElsewhereIndex
from adlatus.errors import ApiError, MethodNotAllowed, NotFound, body
from adlatus.files.sweeping import sweep_forever
from adlatus.measuring import Gauges, watch_loop
from adlatus.presence import abilities, present
from adlatus.probing import Probes
from adlatus.resources import Resources, open_resources
from adlatus.retrieval import sweeping as chunks
from adlatus.retrieval.index import ingest
from adlatus.retrieval.parse import open_parser
from adlatus.runs import deserted
from adlatus.runs.expiry import expire_forever
from adlatus.runs.loop import execute
from adlatus.settings import Settings
from adlatus.store.leases import FILES, RUNS, AnyLease, FileLease, Lease
from adlatus.telemetry import Metrics
from adlatus.validation import from_validation
from adlatus.wire.events import compact
from adlatus.worker import GRACE_S, Worker

_RATES = [f"x-ratelimit-{what}-{kind}" for kind in ("requests", "tokens") for what in ("limit", "remaining", "reset")]


@dataclass(frozen=True)
class Workers:
    """What a process does beside answering requests: executes runs, makes files searchable."""

    runs: Worker[Lease] | None = None
    files: Worker[FileLease] | None = None

    def are_alive(self) -> bool:
        """Whether all of them get their heartbeats through."""
        return all(worker.is_alive() for worker in (self.runs, self.files) if worker)


def create_app(
    settings: Settings,
    *,
    resources: Resources | None = None,
    executor: bool = True,
    admin: socket.socket | None = None,
) -> FastAPI:
    """The application. It opens its resources itself unless they are handed in; with `executor` it also runs runs.

    On the socket `admin`, if there is one, it answers operators.
    """
    metrics = resources.metrics if resources else Metrics()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with (
            _opened(settings, resources, metrics, executor) as opened,
            housekeeping(opened),
            working(opened, runs=executor, ingestion=executor or isinstance(opened.index, EdgeIndex)) as workers,
        ):
            app.state.resources, app.state.tracing = opened, opened.tracing
            app.state.worker = workers.runs
            app.state.probes = Probes(opened, workers.runs.is_alive if workers.runs else None)
            app.state.gauges = Gauges(opened)
            async with administered(admin, opened, app.state.probes, app.state.gauges):
                yield

    app = _App(
        title="Adlatus",
        version=__version__,
        description="The OpenAI Assistants API v2, self-hosted.",
        lifespan=lifespan,
        redirect_slashes=False,
        # What FastAPI would trace by itself has query strings and messages of exceptions in it
        telemetry={"tracing": False, "metrics": False, "logs": False, "auto_configure": False},
    )
    app.state.worker = None  # a stop may come before there is one
    # As routes of the application: those of an included router are looked for twice, each for twice as long. They are
    # tried in this order, so that what is asked for most comes first.
    for noun in (runs, threads, messages, steps, assistants, files, uploads, vector_stores, models, relay, operations):
        app.router.routes += noun.router.routes
    app.add_exception_handler(ApiError, _render_api_error)
    app.add_exception_handler(RequestValidationError, _render_validation_error)
    app.add_exception_handler(HTTPException, _render_http_exception)
    app.add_middleware(azure.AzurePaths)
    if not settings.keys:
        app.add_middleware(GuardKeyless, allowed_origins=settings.origins)
    app.add_middleware(Observe, metrics=metrics)
    if settings.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.origins),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "openai-processing-ms", "retry-after", *_RATES],
        )
    return app


class _App(FastAPI):
    """Keeps how bodies are sent from before all layers: those want the heads of answers only."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope[BODY_SEND] = send
        await super().__call__(scope, receive, send)


@asynccontextmanager
async def _opened(
    settings: Settings, resources: Resources | None, metrics: Metrics, executor: bool
) -> AsyncIterator[Resources]:
    if resources:
        yield resources
        return
    async with open_resources(settings, metrics, executes=executor) as opened:
        yield opened


@asynccontextmanager
async def working(resources: Resources, *, runs: bool, ingestion: bool) -> AsyncIterator[Workers]:
    """Execute runs, or index files, or both, known to all processes as who does, until the block is left.

    An index in the data folder is written to by its own process or by none.
    """
    concurrency = resources.settings.ingestion_concurrency
    ingestion = ingestion and concurrency > 0 and not isinstance(resources.index, ElsewhereIndex)
    async with AsyncExitStack() as stack:
        if runs or ingestion:
            await stack.enter_async_context(present(resources, runs=runs, ingestion=ingestion))
        of_files = await stack.enter_async_context(_indexing(resources)) if ingestion else None
        of_runs = await stack.enter_async_context(_executing(resources)) if runs else None
        yield Workers(of_runs, of_files)


@asynccontextmanager
async def housekeeping(resources: Resources) -> AsyncIterator[None]:
    """What every process does for all, until the block is left: what is overdue expires, whoever created it."""
    tasks = [
        asyncio.create_task(expire_forever(resources.database, resources.events, resources.metrics)),
        asyncio.create_task(sweep_forever(resources.database, resources.blobs)),
        asyncio.create_task(chunks.sweep_forever(resources)),
        asyncio.create_task(deserted.sweep_forever(resources)),
        asyncio.create_task(watch_loop(resources.metrics)),
    ]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def _executing(resources: Resources) -> AsyncIterator[Worker[Lease]]:
    """A worker that claims and executes runs until the block is left, and hands back what it has not finished."""
    worker = Worker(
        resources.database,
        resources.wakeup,
        RUNS.limited(resources.settings.project_run_concurrency),
        partial(execute, resources=resources),
        name=resources.executor_id,
        concurrency=resources.settings.run_concurrency,
        abilities=partial(abilities, resources),
        busy=resources.metrics.runs_executing.set,
    )
    async with _running(worker):
        yield worker


@asynccontextmanager
async def _indexing(resources: Resources) -> AsyncIterator[Worker[FileLease]]:
    """A worker that makes files searchable until the block is left, and hands back what it has not finished."""
    worker = Worker(
        resources.database,
        resources.wakeup.another(),
        FILES,
        partial(ingest, resources=resources, parser=await asyncio.to_thread(open_parser)),
        name=resources.executor_id,
        concurrency=resources.settings.ingestion_concurrency,
        busy=resources.metrics.files_indexing.set,
    )
    async with _running(worker):
        yield worker


@asynccontextmanager
async def _running(worker: Worker[AnyLease]) -> AsyncIterator[None]:
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        await worker.stop()
        await asyncio.wait([task], timeout=GRACE_S)  # a last claim may be on its way
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await worker.stop()


def _json(error: ApiError) -> Response:
    return Response(
        compact(body(error)), status_code=error.status, headers=error.headers, media_type="application/json"
    )


async def _render_api_error(request: Request, error: Any) -> Response:
    return _json(azure.in_its_words(request.scope, error))


async def _render_validation_error(_request: Request, error: Any) -> Response:
    return _json(from_validation(error.errors(), error.body))


async def _render_http_exception(request: Request, error: Any) -> Response:
    """Routing's own refusals. *Source* of the wording: the original's `Invalid URL`, with a hint of ours."""
    asked = azure.asked_for(request.scope)
    path = asked.path if asked else request.url.path
    where = f"({request.method} {path[:200]})"
    if error.status_code == MethodNotAllowed.status:
        allowed = ", ".join(_allowed_methods(request))
        message = f"Not allowed to {request.method} on {path[:200]} (HINT: allowed are {allowed})."
        return _json(MethodNotAllowed(message, headers={"allow": allowed}))
    if error.status_code != NotFound.status:
        problem = ApiError(str(error.detail))
        problem.status = error.status_code
        return _json(problem)
    if "/openai/" in path[1:]:
        hint = f"an azure_endpoint has no path: set it to {request.url.scheme}://{request.url.netloc}"
    elif asked or path == "/v1" or path.startswith("/v1/"):
        hint = "this server does not offer that endpoint; /docs lists those that it does"
    else:
        hint = f"the API lives under /v1: set base_url to {request.url.scheme}://{request.url.netloc}/v1"
    return _json(NotFound(f"Invalid URL {where} (HINT: {hint})."))


def _allowed_methods(request: Request) -> list[str]:
    """The methods that some route takes on the path of the request; Starlette names the first route's only."""
    scopes = {method: {**request.scope, "method": method} for method in ("DELETE", "GET", "POST")}
    routes = request.app.router.routes
    return [
        method for method, scope in scopes.items() if any(route.matches(scope)[0] is Match.FULL for route in routes)
    ]
