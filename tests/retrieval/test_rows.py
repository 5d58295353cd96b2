"""What the database refuses of vector stores, and which chunks it knows to be loose, however their row went."""

import asyncpg
import pytest
from sqlalchemy import CheckConstraint

from adlatus.store import files, leases, vector_store_files, vector_stores
from adlatus.store.db import Database
from adlatus.store.leases import FileLease
from adlatus.store.tables import metadata
from adlatus.wire.vector_stores import FileError, attaching
from tests.conftest import Loop
from tests.runs.stored import execute

PROJECT = "default"
FILES = ("file-a", "file-b")
SPACE = {"embedding_model": "", "embedding_dimensions": 0, "late_interaction": False}
ERROR = FileError(code="invalid_file", message="It broke.")


async def add_store(database: Database, *, days: int | None = None) -> str:
    """A store with two files in progress, which are made if they are not there."""
    for file_id in FILES:
        await execute(
            database,
            "INSERT INTO files (id, project_id, purpose, filename, bytes) "
            "VALUES ($1, $2, 'assistants', 'a.txt', 1) ON CONFLICT DO NOTHING",
            file_id,
            PROJECT,
        )
    async with database.transaction() as tx:
        store_id = await vector_stores.add(tx, PROJECT, metadata={}, expires_after_days=days)
        await vector_store_files.attach(tx, PROJECT, store_id, attaching(FILES, None))
    return store_id


async def claim(database: Database) -> list[FileLease]:
    return await leases.FILES.claim(database, "the test", 10)


async def complete(database: Database, lease: FileLease) -> None:
    done = await vector_store_files.complete_if_held(
        database,
        lease,
        attributes={},
        usage_bytes=1025,
        chunks=1,
        **SPACE,  # type: ignore[arg-type]
    )
    assert done


async def loose(database: Database, *, due: bool | None = None) -> set[tuple[str, str]]:
    """Stores and keys of what is loose; only what is due by now, or what is not yet, if wanted."""
    rows = await execute(database, "SELECT *, due_at <= extract(epoch FROM now()) AS due FROM loose_chunks")
    return {(row["vector_store_id"], row["key"]) for row in rows if due in (None, row["due"])}


# --- What is refused

COMPLETED = "status = 'completed', chunks = 1, embedding_model = '', embedding_dimensions = 0, late_interaction = false"
LEASED = "lease_owner = 'x', lease_token = 'x', lease_expires_at = now()"
BAD_CHANGES = [
    ("vector_stores", "expires_after_days", "expires_after_days = 0"),
    ("vector_stores", "expires_after_days", "expires_after_days = 366"),
    ("vector_store_files", "status", "status = 'expired'"),
    ("vector_store_files", "status", "status = 'Completed'"),
    ("vector_store_files", "last_error", "status = 'failed'"),
    ("vector_store_files", "last_error", "last_error = '{}'"),
    ("vector_store_files", "last_error", f"{COMPLETED}, last_error = '{{}}'"),
    ("vector_store_files", "space", "status = 'completed'"),
    *(
        ("vector_store_files", "space", COMPLETED.replace(given, "", 1))
        for given in (
            ", chunks = 1",
            ", embedding_model = ''",
            ", embedding_dimensions = 0",
            ", late_interaction = false",
        )
    ),
    ("vector_store_files", "space", "chunks = 1"),
    ("vector_store_files", "space", "embedding_model = ''"),
    ("vector_store_files", "lease_ended", f"{COMPLETED}, {LEASED}"),
    ("vector_store_files", "lease_ended", f"status = 'cancelled', {LEASED}"),
    ("vector_store_files", "lease_ended", f"status = 'failed', last_error = '{{}}', {LEASED}"),
    ("vector_store_files", "lease_whole", "lease_token = 'x'"),
    ("vector_store_files", "lease_whole", "lease_owner = 'x'"),
    ("vector_store_files", "lease_whole", "lease_token = 'x', lease_owner = 'x'"),
]
GOOD_CHANGES = [
    ("vector_stores", "expires_after_days = 1"),
    ("vector_stores", "expires_after_days = 365"),
    ("vector_store_files", COMPLETED),
    ("vector_store_files", LEASED),
    ("vector_store_files", "status = 'cancelled'"),
    ("vector_store_files", "status = 'failed', last_error = '{}'"),
]


@pytest.mark.parametrize(("table", "constraint", "change"), BAD_CHANGES)
def test_the_database_refuses_a_row_that_contradicts_itself(
    loop: Loop, database: Database, table: str, constraint: str, change: str
) -> None:
    async def scenario() -> None:
        await add_store(database)
        with pytest.raises(asyncpg.CheckViolationError) as refused:
            await execute(database, f"UPDATE {table} SET {change}")
        assert refused.value.constraint_name == f"ck_{table}_{constraint}"

    loop.run(scenario())


@pytest.mark.parametrize(("table", "change"), GOOD_CHANGES)
def test_the_database_takes_a_row_that_makes_sense(loop: Loop, database: Database, table: str, change: str) -> None:
    loop.run(add_store(database))
    loop.run(execute(database, f"UPDATE {table} SET {change}"))


def test_every_check_of_the_tables_of_vector_stores_is_tried() -> None:
    checks = {
        (name, str(check.name).removeprefix(f"ck_{name}_"))
        for name, table in metadata.tables.items()
        if name.startswith("vector_store")
        for check in table.constraints
        if isinstance(check, CheckConstraint)
    }
    assert checks == {(table, constraint) for table, constraint, _ in BAD_CHANGES}


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("vector_stores", "project_id"),
        ("vector_store_files", "project_id"),
        ("vector_store_files", "vector_store_id"),
        ("vector_store_files", "id"),
        ("vector_store_file_batches", "vector_store_id"),
    ],
)
def test_the_database_refuses_what_belongs_to_nobody_or_nowhere(
    loop: Loop, database: Database, table: str, column: str
) -> None:
    async def scenario() -> None:
        store_id = await add_store(database)
        async with database.transaction() as tx:
            await vector_store_files.add_batch(tx, PROJECT, store_id, attaching(FILES, None))
        await execute(database, f"DELETE FROM {table} WHERE id = 'file-b'")
        with pytest.raises(asyncpg.ForeignKeyViolationError):
            await execute(database, f"UPDATE {table} SET {column} = 'none'")
        with pytest.raises(asyncpg.NotNullViolationError):
            await execute(database, f"UPDATE {table} SET {column} = NULL")

    loop.run(scenario())


def test_a_file_is_in_a_store_once(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_store(database)
        with pytest.raises(asyncpg.UniqueViolationError):
            await execute(database, "UPDATE vector_store_files SET id = 'file-a'")

    loop.run(scenario())


# --- What is loose


def test_files_that_nobody_has_begun_with_leave_nothing_loose(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        store_id = await add_store(database)
        await vector_store_files.remove(database, PROJECT, store_id, "file-a")
        await files.remove(database, PROJECT, "file-b")
        assert await loose(database) == set()

    loop.run(scenario())


@pytest.mark.parametrize("way", ["taken out", "file deleted", "file expired", "project's rows deleted"])
def test_whatever_deletes_a_completed_file_leaves_its_chunks_loose_and_due(
    loop: Loop, database: Database, way: str
) -> None:
    async def scenario() -> None:
        store_id, other = await add_store(database), await add_store(database)
        held = {(lease.vector_store_id, lease.file_id): lease for lease in await claim(database)}
        for lease in held.values():
            await complete(database, lease)
        assert await loose(database) == set()
        stores = [store_id] if way == "taken out" else [store_id, other]
        match way:
            case "taken out":
                await vector_store_files.remove(database, PROJECT, store_id, "file-a")
            case "file deleted":
                await files.remove(database, PROJECT, "file-a")
            case "file expired":
                await execute(database, "UPDATE files SET created_at = 1, expires_at = 4000 WHERE id = 'file-a'")
                assert await files.expire(database) == 1
            case _:
                await execute(database, "DELETE FROM files WHERE id = 'file-a'")
        assert await loose(database, due=True) == {(each, held[each, "file-a"].key) for each in stores}
        assert await loose(database, due=False) == set()

    loop.run(scenario())


def test_a_deleted_store_leaves_all_of_it_loose(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        store_id, other = await add_store(database), await add_store(database)
        for lease in await claim(database):
            await complete(database, lease)
        await vector_stores.remove(database, PROJECT, store_id)
        assert (store_id, "") in await loose(database, due=True)
        assert {store for store, _ in await loose(database)} == {store_id}
        assert [row["vector_store_id"] for row in await execute(database, "SELECT * FROM vector_store_files")] == [
            other,
            other,
        ]

    loop.run(scenario())


def test_an_expired_store_leaves_all_of_it_loose_once_and_keeps_its_files(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        store_id = await add_store(database, days=1)
        await add_store(database)
        assert await vector_stores.empty_expired(database) == 0
        await execute(database, "UPDATE vector_stores SET last_active_at = 1000 WHERE id = $1", store_id)
        assert await vector_stores.empty_expired(database) == 1
        assert await loose(database, due=True) == {(store_id, "")}
        assert await vector_stores.empty_expired(database) == 0
        rows = await execute(database, "SELECT FROM vector_store_files WHERE vector_store_id = $1", store_id)
        assert len(rows) == len(FILES)

    loop.run(scenario())


@pytest.mark.parametrize("way", ["taken out", "cancelled", "failed"])
def test_what_a_file_leaves_that_somebody_works_on_is_due_only_when_that_one_has_heard_of_it(
    loop: Loop, database: Database, way: str
) -> None:
    async def scenario() -> None:
        store_id = await add_store(database)
        async with database.transaction() as tx:
            batch = await vector_store_files.add_batch(tx, PROJECT, store_id, attaching(FILES, None))
        [lease, other] = await claim(database)
        match way:
            case "taken out":
                await vector_store_files.remove(database, PROJECT, store_id, lease.file_id)
            case "failed":
                assert await vector_store_files.fail_if_held(database, lease, ERROR)
            case _:
                async with database.transaction() as tx:
                    await vector_store_files.cancel_batch(tx, PROJECT, store_id, batch["id"])
        left = {(store_id, each.key) for each in ([lease, other] if way == "cancelled" else [lease])}
        assert await loose(database, due=False) == left
        assert await loose(database, due=True) == set()

    loop.run(scenario())


def test_every_new_attempt_leaves_that_before_it_loose(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_store(database)
        first = await claim(database)
        await execute(database, "UPDATE vector_store_files SET lease_expires_at = now() - interval '1 second'")
        second = await claim(database)
        assert {lease.key for lease in first}.isdisjoint({lease.key for lease in second})
        assert {key for _, key in await loose(database)} == {lease.key for lease in first}

    loop.run(scenario())


def test_chunks_that_are_forgotten_are_not_loose_any_more(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        store_id = await add_store(database)
        leased = await claim(database)
        for lease in leased:
            await complete(database, lease)
            await vector_store_files.remove(database, PROJECT, store_id, lease.file_id)
        due = await vector_stores.loose(database, 10)
        assert sorted(due) == sorted((store_id, lease.key) for lease in leased)
        await vector_stores.forget(database, *due[0])
        assert await vector_stores.loose(database, 10) == due[1:]
        await vector_stores.remove(database, PROJECT, store_id)
        assert (await vector_stores.loose(database, 10))[0] == (store_id, ""), "whole stores come first"
        await vector_stores.forget(database, store_id, "")
        assert await loose(database) == set()

    loop.run(scenario())
