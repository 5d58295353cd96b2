"""The migrations build what the tables say, and can be taken back."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import asyncpg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import CheckConstraint, Connection, pool, text
from sqlalchemy.ext.asyncio import create_async_engine

from adlatus.store import migrate
from adlatus.store.tables import metadata
from tests.conftest import Loop

UNNAMED = """
    SELECT conrelid::regclass::text, conname FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n' AND conname !~ '^(pk|fk|uq|ck|alembic)_'
"""


async def _inspect(dsn: str, look: Callable[[Connection], Any]) -> Any:
    engine = create_async_engine(dsn.replace("postgresql://", "postgresql+asyncpg://", 1), poolclass=pool.NullPool)
    try:
        async with engine.connect() as connection:
            return await connection.run_sync(look)
    finally:
        await engine.dispose()


def _differences(connection: Connection) -> Any:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return compare_metadata(context, metadata)


def _checks(connection: Connection) -> set[tuple[str, str]]:
    rows = connection.execute(
        text("SELECT conrelid::regclass::text, conname FROM pg_constraint WHERE contype = 'c' AND conrelid <> 0")
    )
    return {(table, name) for table, name in rows if table in metadata.tables}


def test_the_head_equals_the_tables(loop: Loop, database_url: str) -> None:
    assert loop.run(_inspect(database_url, _differences)) == []


def test_every_check_of_the_tables_is_in_the_database(loop: Loop, database_url: str) -> None:
    # Alembic compares everything but CHECKs
    wanted = {
        (table.name, str(constraint.name))
        for table in metadata.tables.values()
        for constraint in table.constraints
        if isinstance(constraint, CheckConstraint)
    }
    assert loop.run(_inspect(database_url, _checks)) == wanted


def test_every_constraint_has_a_name_of_ours(loop: Loop, database_url: str) -> None:
    rows = loop.run(_inspect(database_url, lambda connection: connection.execute(text(UNNAMED)).all()))
    assert rows == []


def test_the_event_table_is_unlogged(loop: Loop, database_url: str) -> None:
    query = text("SELECT relpersistence FROM pg_class WHERE relname = 'run_events'")
    assert loop.run(_inspect(database_url, lambda connection: connection.execute(query).scalar_one())) in ("u", b"u")


@pytest.mark.parametrize("revision", [script.revision for script in ScriptDirectory("migrations").walk_revisions()])
def test_each_migration_goes_down_and_up_again(loop: Loop, new_database: Callable[..., str], revision: str) -> None:
    dsn = new_database(empty=True)
    loop.run(migrate.upgrade(dsn, revision))
    before = loop.run(_inspect(dsn, _catalogue))
    loop.run(migrate.downgrade(dsn, "-1"))
    loop.run(migrate.upgrade(dsn, revision))
    assert loop.run(_inspect(dsn, _catalogue)) == before


def test_downgrading_to_base_leaves_nothing(loop: Loop, new_database: Callable[..., str]) -> None:
    dsn = new_database(empty=True)
    assert loop.run(migrate.current(dsn)) is None
    loop.run(migrate.upgrade(dsn))
    assert loop.run(migrate.current(dsn)) == migrate.head()
    loop.run(migrate.downgrade(dsn, "base"))
    assert {row[0] for row in loop.run(_inspect(dsn, _catalogue))} <= {
        "alembic_version",
        "alembic_version_pkc",
        "alembic_version_version_num_not_null",
    }


def test_an_address_means_to_migrations_what_it_means_to_the_server(loop: Loop, database_url: str) -> None:
    dsn = f"{database_url}{'&' if '?' in database_url else '?'}sslmode=prefer"
    loop.run(migrate.upgrade(dsn))
    assert loop.run(migrate.current(dsn)) == migrate.head()


def test_two_processes_may_migrate_at_once(loop: Loop, new_database: Callable[..., str]) -> None:
    dsn = new_database(empty=True)
    command = [sys.executable, "-m", "adlatus.cli", "migrate"]
    both = [subprocess.Popen(command, env=os.environ | {"ADLATUS_DATABASE_URL": dsn}) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert loop.run(migrate.current(dsn)) == migrate.head()


def test_a_database_that_does_not_answer_is_an_error_with_its_cause(loop: Loop) -> None:
    with pytest.raises((OSError, asyncpg.PostgresError)):
        loop.run(migrate.current("postgresql://nobody@127.0.0.1:1/none"))


def _catalogue(connection: Connection) -> list[tuple[str, ...]]:
    """Tables, columns, indexes and constraints as the database describes them."""
    query = """
        SELECT relname, relkind::text, relpersistence::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT attrelid::regclass::text, attname, format_type(atttypid, atttypmod) || attnotnull
            FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid
            WHERE relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
        UNION ALL SELECT indexrelid::regclass::text, 'index', pg_get_indexdef(indexrelid)
            FROM pg_index JOIN pg_class ON pg_class.oid = indrelid WHERE relnamespace = 'public'::regnamespace
        UNION ALL SELECT conname, 'constraint', pg_get_constraintdef(oid)
            FROM pg_constraint WHERE connamespace = 'public'::regnamespace
        ORDER BY 1, 2, 3
    """
    return [tuple(row) for row in connection.execute(text(query))]


def test_runs_on_their_way_are_told_apart_by_what_they_need(loop: Loop, new_database: Callable[..., str]) -> None:
    made = """
        INSERT INTO projects (id) VALUES ('p');
        INSERT INTO threads (id, project_id, metadata, tool_resources)
            SELECT 't' || n, 'p', '{}', '{}' FROM generate_series(1, 4) AS n;
        INSERT INTO runs (id, project_id, thread_id, assistant_id, status, expires_at, model, tools, tool_resources,
            metadata, truncation_strategy, response_format, tool_choice, parallel_tool_calls)
            SELECT 'r' || n, 'p', 't' || n, 'a', 'queued', 1, 'm', tools::json, '{}',
                '{}', '{}', '"auto"', choice::json, true
            FROM (VALUES
                (1, '[{"type": "function", "function": {"name": "file_search"}}]', '"auto"'),
                (2, '[{"type": "file_search"}, {"type": "code_interpreter"}]', '"auto"'),
                (3, '[{"type": "code_interpreter"}]', '{"type": "code_interpreter"}'),
                (4, '[{"type": "code_interpreter"}]', '"none"')
            ) AS made (n, tools, choice)
    """

    async def scenario() -> list[list[str]]:
        await migrate.upgrade(dsn, "0004")
        connection = await asyncpg.connect(dsn)
        try:
            await connection.execute(made)
            await migrate.upgrade(dsn)
            return [row["needs"] for row in await connection.fetch("SELECT needs FROM runs ORDER BY id")]
        finally:
            await connection.close()

    dsn = new_database(empty=True)
    assert loop.run(scenario()) == [[], ["search", "sandbox"], ["sandbox"], []]
