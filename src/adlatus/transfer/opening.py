"""The database and the file storage alone, beside a server that runs, or without one."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from adlatus.backends.blobs import Blobs, open_blobs, why
from adlatus.backends.postgres import attach, embedded_postgres
from adlatus.errors import StartupError, Unavailable
from adlatus.settings import Settings
from adlatus.store import migrate
from adlatus.store.db import Database, open_database

ANSWER_S = 3600.0
"""How long a statement may take that sorts all of an import, or of a project."""


@dataclass(frozen=True)
class Opened:
    """What a transfer works with. The database has one connection, which keeps its temporary tables."""

    database: Database
    blobs: Blobs


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Opened]:
    """Open what the settings ask for: the embedded database as a guest of the server that runs, else for ourselves.

    Raises `StartupError` with advice.
    """
    async with AsyncExitStack() as stack:
        dsn = await _dsn(stack, settings)
        revision = await migrate.current(dsn)
        if revision != migrate.head():
            raise StartupError(
                f"The database is at revision {revision or 'none'}, this version of Adlatus wants {migrate.head()}: "
                "run `adlatus migrate` first."
            )
        blobs = open_blobs(settings.storage_url, settings.data_dir)
        try:
            await blobs.check()
        except Unavailable as error:
            raise StartupError(f"the file storage ({blobs.shown}) cannot be used: {why(error)}.") from error
        yield Opened(await stack.enter_async_context(open_database(dsn, max_connections=1, answer_s=ANSWER_S)), blobs)


async def _dsn(stack: AsyncExitStack, settings: Settings) -> str:
    if settings.database_url is not None:
        return settings.database_url.get_secret_value()
    if running := await attach(settings.data_dir):
        return running.dsn
    embedded = await stack.enter_async_context(embedded_postgres(settings.data_dir))
    if await migrate.current(embedded.dsn) != migrate.head():
        await migrate.upgrade(embedded.dsn)
    return embedded.dsn
