"""What the database refuses for now is an outage, whoever asked; what it refuses for good is a fault."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from adlatus.errors import Unavailable
from adlatus.runs.expiry import expire_forever
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from tests.conftest import Loop
from tests.runs.stored import add_run, execute


def _raising(state: str) -> str:
    return f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{state}'; END $$"


@pytest.mark.parametrize(
    "state",
    ["25006", "40001", "40P01", "53300", "55P03", "57014", "57P01", "57P03"],
    ids=[
        "only reads, as a standby does",
        "serialization failure",
        "deadlock",
        "too many connections",
        "lock timeout",
        "statement timeout",
        "shuts down",
        "starts up",
    ],
)
def test_what_passes_by_itself_is_an_outage(loop: Loop, database: Database, state: str) -> None:
    with pytest.raises(Unavailable):
        loop.run(database.fetch(text(_raising(state))))


def test_a_violation_is_no_outage(loop: Loop, database: Database) -> None:
    with pytest.raises(asyncpg.CheckViolationError):
        loop.run(database.fetch(text(_raising("23514"))))


@asynccontextmanager
async def _only_reading(database: Database) -> AsyncIterator[None]:
    """The database refuses writes, as after a switch to its standby, until the block is left."""
    connection = await asyncpg.connect(database.dsn)
    name = await connection.fetchval("SELECT quote_ident(current_database())")

    async def switch(action: str) -> None:
        await connection.execute("SET default_transaction_read_only = off")
        await connection.execute(f"ALTER DATABASE {name} {action}")
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    await switch("SET default_transaction_read_only = on")
    try:
        yield
    finally:
        await switch("RESET default_transaction_read_only")
        await connection.close()


def test_runs_expire_and_events_are_written_again_once_the_database_takes_writes(
    loop: Loop, database: Database
) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database)
        await execute(database, "UPDATE runs SET expires_at = 1")
        events = EventLog(database)
        events.append(run.id, 0, [b"event: thread.run.queued\ndata: {}\n\n"])
        tasks: list[asyncio.Task[None]] = []
        async with asyncio.timeout(60):
            with capture_logs() as logged:
                async with _only_reading(database):
                    tasks += [asyncio.create_task(expire_forever(database, events))]
                    tasks += [asyncio.create_task(events.write_forever())]
                    refused = {"no run expires"}
                    refused |= {"events are kept in memory until the database answers again"}
                    while not refused <= {entry["event"] for entry in logged}:
                        assert not any(task.done() for task in tasks)
                        await asyncio.sleep(0.01)
            while not await _expired_and_told(database):
                await asyncio.sleep(0.01)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    loop.run(scenario())


async def _expired_and_told(database: Database) -> bool:
    try:
        rows = await database.fetch(text("SELECT 1 FROM runs JOIN run_events ON run_id = id WHERE status = 'expired'"))
    except Unavailable:  # on a connection that the switch has cut
        return False
    return bool(rows)


def test_no_statement_is_compiled_by_the_database(loop: Loop, database: Database) -> None:
    """Where PostgreSQL has LLVM: it takes far longer than the claim of a run, which only looks expensive."""
    [row] = loop.run(execute(database, "SHOW jit"))
    assert row["jit"] == "off"
