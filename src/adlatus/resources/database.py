"""The database at the schema of this version, and what is done in it before anything else."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg
import httpx
import structlog

from adlatus.backends.postgres import embedded_postgres
from adlatus.errors import StartupError
from adlatus.settings import DEFAULT_PROJECT, Settings
from adlatus.store import executors, leases, migrate, projects
from adlatus.store.db import Database, open_database, plain_dsn

log = structlog.get_logger(__name__)

MAX_CONNECTIONS = 24
"""Connections to PostgreSQL that one process holds at most, one more than that for wake-ups."""

_NO_DATABASE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError)


@asynccontextmanager
async def opened_database(settings: Settings) -> AsyncIterator[tuple[Database, str]]:
    """The database, and what to say of it. What an earlier process of an embedded one has left is freed.

    Raises `StartupError` with advice.
    """
    async with AsyncExitStack() as stack:
        dsn, report = await _open_dsn(stack, settings)
        try:
            database = await stack.enter_async_context(open_database(dsn, max_connections=MAX_CONNECTIONS))
        except _NO_DATABASE as error:
            raise StartupError(f"cannot open {MAX_CONNECTIONS} connections to the database: {error}") from error
        if settings.database_url is None:
            await _free_what_is_left(database)
        await projects.ensure(database, {DEFAULT_PROJECT, *(key.project_id for key in settings.keys)})
        yield database, report


async def _free_what_is_left(database: Database) -> None:
    """The lock on the data folder is ours, so whoever held leases in it is dead."""
    await executors.remove_all(database)
    if freed := await leases.RUNS.release_all(database):
        log.info("runs of an earlier process go on", runs=freed)
    if freed := await leases.FILES.release_all(database):
        log.info("files of an earlier process go on being indexed", files=freed)


async def _open_dsn(stack: AsyncExitStack, settings: Settings) -> tuple[str, str]:
    """A database at the schema of this version, and what to say of it."""
    if settings.database_url is None:
        embedded = await stack.enter_async_context(embedded_postgres(settings.data_dir))
        await migrate.upgrade_if_behind(embedded.dsn)
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
