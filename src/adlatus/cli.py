"""The command line: reads Settings, starts things, prints for people. No logic."""

import argparse
import asyncio
import gc
import os
import signal
import socket
import sys
import time
from collections.abc import Coroutine
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Any, Literal

import structlog
import uvicorn
import uvloop
from pydantic import ValidationError

from adlatus import __version__, administration, doctor
from adlatus.api.admin import administered
from adlatus.api.connections import guarded, limits_for
from adlatus.app import create_app, housekeeping, working
from adlatus.attaching import attached
from adlatus.backends.embeddings import fetch
from adlatus.backends.postgres import embedded_postgres
from adlatus.backends.sandbox import prepare
from adlatus.backends.vectors.edge import identity
from adlatus.errors import StartupError, Unavailable
from adlatus.listening import GuestServer, listen, shown
from adlatus.measuring import Gauges
from adlatus.probing import Probes
from adlatus.rehearsal import server as rehearsal
from adlatus.resources import Resources, open_resources
from adlatus.resources.index import index_folder
from adlatus.settings import Settings, is_loopback
from adlatus.store import index_owner, migrate
from adlatus.telemetry import Metrics, configure_logging
from adlatus.transfer import commands as transfer
from adlatus.worker import GRACE_S

log = structlog.get_logger(__name__)


def main() -> None:
    """Entry point of the `adlatus` command."""
    arguments = _parser().parse_args()
    try:
        settings = _settings(arguments)
        configure_logging(settings.log_format, settings.log_level)
        code = arguments.run(arguments, settings)
    except (StartupError, Unavailable) as error:  # what was there when it was opened may be gone a moment later
        print(f"adlatus: {error}", file=sys.stderr)
        code = 1
    except KeyboardInterrupt:
        code = 130
    sys.exit(code or 0)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="adlatus", description="The OpenAI Assistants API v2, self-hosted. Settings are ADLATUS_… variables."
    )
    parser.add_argument("--version", action="version", version=f"adlatus {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    data_dir = argparse.ArgumentParser(add_help=False)
    data_dir.add_argument("--data-dir", type=Path, help="folder of everything that is kept on this machine")

    serve = commands.add_parser("serve", parents=[data_dir], help="serve the API and execute runs")
    serve.add_argument("--host", help="address to listen on (127.0.0.1)")
    serve.add_argument("--port", type=int, help="port to listen on (8000)")
    serve.add_argument("--no-executor", action="store_true", help="leave runs to `adlatus worker`")
    serve.set_defaults(run=_serve)

    worker = commands.add_parser("worker", parents=[data_dir], help="do the work of a shared database")
    worker.add_argument("--concurrency", type=int, metavar="N", dest="run_concurrency", help="runs at a time")
    worker.add_argument("--only", choices=("runs", "ingestion"), help="execute runs only, or index files only")
    worker.set_defaults(run=_worker)

    migrations = commands.add_parser("migrate", parents=[data_dir], help="bring the database to this version's schema")
    migrations.set_defaults(run=_migrate)

    examine = commands.add_parser("doctor", parents=[data_dir], help="check every component and give advice")
    examine.set_defaults(run=_doctor)

    administration.add_commands(commands, data_dir)

    index = commands.add_parser("index", help="the index of files")
    actions = index.add_subparsers(required=True, metavar="ACTION")
    rebuilding = actions.add_parser(
        "rebuild", parents=[data_dir], help="index all files again: the index is lost, or another model is to be used"
    )
    rebuilding.set_defaults(run=_rebuild_index)

    transfer.add_commands(commands, data_dir)

    models = commands.add_parser("models", help="the local embedding model")
    actions = models.add_subparsers(required=True, metavar="ACTION")
    fetching = actions.add_parser("fetch", parents=[data_dir], help="fetch and build it, unless it is there")
    fetching.set_defaults(run=_fetch_models)

    sandbox = commands.add_parser("sandbox", help="what model-written code runs in")
    actions = sandbox.add_subparsers(required=True, metavar="ACTION")
    preparing = actions.add_parser("prepare", parents=[data_dir], help="build it, unless it is there")
    preparing.add_argument("--base-image", metavar="IMAGE", help="image to build on (python:3.12-slim-bookworm)")
    preparing.set_defaults(run=_prepare_sandbox)

    rehearse = commands.add_parser("rehearse", help="serve the scripted rehearsal model alone")
    rehearse.add_argument("--host", help="address to listen on (127.0.0.1)")
    rehearse.add_argument("--port", type=int, help="port to listen on (8001)")
    rehearse.add_argument(
        "--script", type=Path, metavar="FILE", dest="rehearsal_script", help="YAML of expectations and answers"
    )
    rehearse.set_defaults(run=_rehearse)
    return parser


def _settings(arguments: argparse.Namespace) -> Settings:
    """Settings from the environment, flags in front."""
    flags = {
        name: value
        for name in ("host", "port", "data_dir", "run_concurrency", "rehearsal_script")
        if (value := getattr(arguments, name, None)) is not None
    }
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        problems = "; ".join(
            f"ADLATUS_{'_'.join(map(str, problem['loc'])).upper() or 'settings'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        )
        raise StartupError(problems) from error
    return settings.model_copy(update={"data_dir": settings.data_dir.expanduser().absolute()})


def _serve(arguments: argparse.Namespace, settings: Settings) -> int:
    return _run_until_signal(_serve_until_stopped(settings, executor=not arguments.no_executor))


async def _serve_until_stopped(settings: Settings, *, executor: bool) -> None:
    listener, admin = listen(settings.host, settings.port, "Choose another --port."), _listen_for_operators(settings)
    async with open_resources(settings, Metrics(), executes=executor) as resources:
        if not resources.access.has_keys and not is_loopback(settings.host):
            raise StartupError(
                f"refusing to listen on {settings.host} without API keys: anyone who reaches it could use it. Make one "
                "with `adlatus keys create`, set ADLATUS_API_KEYS=key or key:project, or listen on 127.0.0.1."
            )
        app = create_app(settings, resources=resources, executor=executor, admin=admin)
        _tune_collector()
        config = uvicorn.Config(
            app,
            loop="none",
            http=guarded(limits_for(settings.max_connections)),
            ws="none",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            timeout_graceful_shutdown=round(GRACE_S) + 2,
            timeout_keep_alive=75,
        )
        server = GuestServer(config)
        _print_banner(resources, listener, admin, executor=executor)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            await asyncio.shield(serving)
        except asyncio.CancelledError:
            server.should_exit = True  # no new connections; those that are open see their runs out, or handed back
            if worker := app.state.worker:
                await worker.stop()
            await resources.events.stop()
            await serving


def _worker(arguments: argparse.Namespace, settings: Settings) -> int:
    if settings.database_url is None:
        raise StartupError(
            "`adlatus worker` shares a PostgreSQL with servers: set ADLATUS_DATABASE_URL. On one machine without it, "
            "`adlatus serve` executes the runs of its embedded database itself."
        )
    return _run_until_signal(_work_until_stopped(settings, arguments.only))


async def _work_until_stopped(settings: Settings, only: Literal["runs", "ingestion"] | None) -> None:
    admin = _listen_for_operators(settings)
    async with AsyncExitStack() as stack:
        runs, ingestion = only != "ingestion", only != "runs"
        opening = open_resources(settings, Metrics(), has_folder=False, executes=runs)
        resources = await stack.enter_async_context(opening)
        await stack.enter_async_context(housekeeping(resources))
        workers = await stack.enter_async_context(working(resources, runs=runs, ingestion=ingestion))
        probes = Probes(resources, workers.are_alive)
        await stack.enter_async_context(administered(admin, resources, probes, Gauges(resources)))
        if admin:
            log.info("answering operators", address=shown(admin))
        if workers.runs:
            log.info("executing runs", worker=workers.runs.name, concurrency=settings.run_concurrency)
        if ingestion:
            log.info("indexing files", concurrency=settings.ingestion_concurrency)
        _tune_collector()
        await asyncio.Event().wait()


def _tune_collector() -> None:
    """Pass over what is here by now, which stays, and look for cycles less often: a tenth of what a run takes."""
    gc.freeze()
    gc.set_threshold(10_000)


def _migrate(_arguments: argparse.Namespace, settings: Settings) -> int:
    asyncio.run(_migrate_database(settings))
    print(f"The database is at revision {migrate.head()}.")
    return 0


async def _migrate_database(settings: Settings) -> None:
    if settings.database_url is not None:
        await migrate.upgrade(settings.database_url.get_secret_value())
        return
    async with embedded_postgres(settings.data_dir) as embedded:
        await migrate.upgrade(embedded.dsn)


def _doctor(_arguments: argparse.Namespace, settings: Settings) -> int:
    return asyncio.run(doctor.examine(settings))


def _rebuild_index(_arguments: argparse.Namespace, settings: Settings) -> int:
    count = asyncio.run(_index_again(settings))
    print(f"{count} file(s) are going to be indexed again by the server that runs, or the next one that starts.")
    return 0


async def _index_again(settings: Settings) -> int:
    index_id = identity(index_folder(settings)) if settings.qdrant_url is None else None
    async with attached(settings) as database, database.transaction() as tx:
        return await index_owner.replace(tx, index_id)


def _fetch_models(_arguments: argparse.Namespace, settings: Settings) -> int:
    print(f"The local embedding model is in {fetch.fetch(settings.data_dir)}.")
    return 0


def _prepare_sandbox(arguments: argparse.Namespace, settings: Settings) -> int:
    print(prepare.prepare(settings, arguments.base_image))
    return 0


def _rehearse(arguments: argparse.Namespace, settings: Settings) -> int:
    host, port = arguments.host or "127.0.0.1", 8001 if arguments.port is None else arguments.port
    return _run_until_signal(_rehearse_until_stopped(host, port, settings.rehearsal_script))


async def _rehearse_until_stopped(host: str, port: int, script: Path | None) -> None:
    async with rehearsal.running(port, host, script) as base_url:
        plays = f"plays {script}" if script else "a scripted stand-in, not a language model"
        print(f"Rehearsal model on {base_url}: {plays}.", flush=True)
        print(f"What it is asked: {base_url.removesuffix('/v1')}/requests", flush=True)
        await asyncio.Event().wait()


def _run_until_signal(work: Coroutine[Any, Any, None]) -> int:
    """Run until `work` ends, or SIGINT or SIGTERM cancels it; a second signal ends the process at once."""

    async def supervised() -> None:
        task = asyncio.ensure_future(work)
        loop = asyncio.get_running_loop()
        first_at: float | None = None

        def stop(number: signal.Signals) -> None:
            nonlocal first_at
            if first_at is None:
                first_at = time.monotonic()
            elif time.monotonic() - first_at < 1:
                return  # the same stop, heard twice: from a terminal and from whoever started us
            else:
                log.warning("stopping at once; the embedded database will be adopted by the next start")
                os._exit(128 + number)
            log.info("stopping", signal=number.name)
            task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop, number)
        with suppress(asyncio.CancelledError):
            await task

    uvloop.run(supervised())
    return 0


def _listen_for_operators(settings: Settings) -> socket.socket | None:
    address = settings.admin_address
    return listen(*address, "Choose another ADLATUS_ADMIN_BIND.") if address else None


def _print_banner(
    resources: Resources, listener: socket.socket, admin: socket.socket | None, *, executor: bool
) -> None:
    address = shown(listener)
    width = max(len(name) for name, _, _ in resources.report)
    print(f"\nAdlatus {__version__} serves the Assistants API on http://{address}/v1\n", file=sys.stderr)
    for name, what, change in resources.report:
        print(f"  {name:<{width}}  {what}" + (f"  [{change}]" if change else ""), file=sys.stderr)
    if admin:
        print(f"  For operators, without a key: http://{shown(admin)}/readyz and /metrics", file=sys.stderr)
    if not executor:
        print("  This process executes no runs: start `adlatus worker` beside it.", file=sys.stderr)
    print(f"\n  Stop with Ctrl-C. API: http://{address}/docs. Check: adlatus doctor\n", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
