"""The database for commands that end soon: that of a running server, which goes on, or one that is started for them."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import asyncpg

from adlatus.backends.postgres import attach, embedded_postgres
from adlatus.errors import StartupError
from adlatus.settings import Settings
from adlatus.store import migrate
from adlatus.store.db import ANSWER_S, Database, open_database, plain_dsn


@asynccontextmanager
async def attached(settings: Settings, *, answer_s: float = ANSWER_S) -> AsyncIterator[Database]:
    """The database at the schema of this version, by one connection. Raises `StartupError` with advice.

    An embedded one that no server has open is brought to that schema, any other must be there already. A statement may
    take `answer_s`.
    """
    async with AsyncExitStack() as stack:
        if settings.database_url is not None:
            dsn, advice = plain_dsn(settings.database_url.get_secret_value()), "run `adlatus migrate` first"
        elif running := await attach(settings.data_dir):
            dsn, advice = running.dsn, "use the version of the server that runs, or restart that"
        else:
            dsn, advice = (await stack.enter_async_context(embedded_postgres(settings.data_dir))).dsn, ""
            await migrate.upgrade_if_behind(dsn)
        try:
            revision = await migrate.current(dsn)
            if revision != migrate.head():
                raise StartupError(
                    f"The database is at revision {revision or 'none'}, not at {migrate.head()}: {advice}."
                )
            database = await stack.enter_async_context(open_database(dsn, max_connections=1, answer_s=answer_s))
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError, ValueError) as error:
            raise StartupError(f"cannot connect to the database: {error}") from error
        yield database
