"""Processes that are stopped, or lose their database, while they start."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from adlatus.store.db import Database
from tests.conftest import Loop
from tests.faults.processes import adlatus
from tests.runs.stored import execute
from tests.runs.transcripts import eventually

pytestmark = pytest.mark.slow

WAITING = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"


@asynccontextmanager
async def held_up(dsn: str) -> AsyncIterator[None]:
    """Whoever starts waits at its first word to the other processes, until the block is left."""
    connection = await asyncpg.connect(dsn)
    try:
        async with connection.transaction():
            await connection.execute("LOCK TABLE executors")
            yield
    finally:
        await connection.close()


def test_a_server_that_is_stopped_while_it_starts_stops(
    loop: Loop, database: Database, database_url: str, tmp_path: Path
) -> None:
    serve = ("serve", "--port", "0", "--data-dir", str(tmp_path))
    with adlatus(*serve, database_url=database_url) as server:
        with loop.stack() as stack:
            loop.run(stack.enter_async_context(held_up(database_url)))
            eventually(lambda: loop.run(execute(database, WAITING)), within_s=60)
            server.popen.terminate()
            eventually(lambda: '"event":"stopping"' in server.log)
        assert server.ended() == 0, server.log
        assert "Traceback" not in server.log
        assert "AttributeError" not in server.log


@pytest.mark.parametrize("command", ["serve", "worker"])
def test_a_process_whose_database_goes_away_while_it_starts_says_so_and_fails(
    loop: Loop, database: Database, database_url: str, tmp_path: Path, command: str
) -> None:
    port = ("--port", "0") if command == "serve" else ()
    with (
        adlatus(command, *port, "--data-dir", str(tmp_path), database_url=database_url) as process,
        loop.stack() as stack,
    ):
        loop.run(stack.enter_async_context(held_up(database_url)))
        eventually(lambda: loop.run(execute(database, WAITING)), within_s=60)
        loop.run(execute(database, f"SELECT pg_terminate_backend(pid) FROM ({WAITING})"))
        assert process.ended() != 0
        assert "The database does not answer" in process.log
        assert "unhandled exception" not in process.log
        if command == "worker":
            assert "Traceback" not in process.log
