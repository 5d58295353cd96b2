"""Leases on files of vector stores: one executor per attempt; outages wait, deaths count, nobody else writes."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from adlatus.backends.wakeup import Wakeup
from adlatus.store import vector_store_files, vector_stores
from adlatus.store.db import Database, Row
from adlatus.store.leases import FILES, FileLease, Interruption
from adlatus.wire.vector_stores import FileError, FileStatus, attaching
from adlatus.worker import Worker
from tests.conftest import Loop
from tests.runs.stored import execute

PROJECT = "default"
ERROR = FileError(code="invalid_file", message="It broke.")
WHOLE = ("vector_store_files", "loose_chunks")
_IS_COMPLETED = "chunks = 1, embedding_model = '', embedding_dimensions = 0, late_interaction = false"
BESIDE = {FileStatus.COMPLETED: _IS_COMPLETED, FileStatus.FAILED: "last_error = '{}'"}


async def add_files(database: Database, count: int = 1) -> tuple[str, list[str]]:
    """A store, and the ids of its files, all in progress."""
    ids = [f"file-{number}" for number in range(count)]
    for file_id in ids:
        await execute(
            database,
            "INSERT INTO files (id, project_id, purpose, filename, bytes) VALUES ($1, $2, 'assistants', 'a.txt', 1)",
            file_id,
            PROJECT,
        )
    async with database.transaction() as tx:
        store_id = await vector_stores.add(tx, PROJECT, metadata={})
        await vector_store_files.attach(tx, PROJECT, store_id, attaching(ids, None))
    return store_id, ids


async def claim_one(database: Database, owner: str = "me") -> FileLease:
    [lease] = await FILES.claim(database, owner, 1)
    return lease


async def complete(database: Database, lease: FileLease) -> bool:
    return await vector_store_files.complete_if_held(
        database,
        lease,
        attributes={},
        usage_bytes=1025,
        chunks=1,
        embedding_model="",
        embedding_dimensions=0,
        late_interaction=False,
    )


async def expire(database: Database) -> None:
    """All executors have been silent for longer than a lease."""
    expired = "UPDATE vector_store_files SET lease_expires_at = now() - interval '1 second'"
    await execute(database, f"{expired} WHERE lease_token IS NOT NULL")


async def the_row(database: Database) -> Row:
    [row] = await execute(
        database, "SELECT *, extract(epoch FROM lease_expires_at - now())::float AS left_s FROM vector_store_files"
    )
    return row


async def contents(database: Database) -> list[list[Row]]:
    return [await execute(database, f"SELECT * FROM {table} ORDER BY 1, 2") for table in WHOLE]


# --- Claims


def test_every_file_is_claimed_once_however_many_want_it(loop: Loop, database: Database) -> None:
    async def claim_all(owner: str) -> list[FileLease]:
        mine: list[FileLease] = []
        while claimed := await FILES.claim(database, owner, 3):
            assert len(claimed) <= 3
            mine += claimed
        return mine

    async def scenario() -> None:
        store_id, ids = await add_files(database, 100)
        claimed = await asyncio.gather(*(claim_all(f"executor {n}") for n in range(8)))
        every = [lease for mine in claimed for lease in mine]
        assert sorted(lease.file_id for lease in every) == sorted(ids)
        assert len({lease.token for lease in every}) == 100
        assert {(lease.vector_store_id, lease.attempt, lease.abandoned) for lease in every} == {(store_id, 1, 0)}

    loop.run(scenario())


def test_a_file_in_two_stores_is_two_pieces_of_work(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        first, ids = await add_files(database)
        async with database.transaction() as tx:
            second = await vector_stores.add(tx, PROJECT, metadata={})
            await vector_store_files.attach(tx, PROJECT, second, attaching(ids, None))
        leases = await FILES.claim(database, "me", 10)
        assert {lease.vector_store_id for lease in leases} == {first, second}
        assert len({lease.token for lease in leases}) == len({lease.key for lease in leases}) == 2

    loop.run(scenario())


def test_the_oldest_file_is_claimed_first(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        _, ids = await add_files(database, 5)
        await execute(database, "UPDATE vector_store_files SET created_at = created_at - 10 WHERE id = $1", ids[3])
        order = [(await claim_one(database)).file_id for _ in ids]
        assert order == [ids[3], *ids[:3], ids[4]]

    loop.run(scenario())


@pytest.mark.parametrize("status", FileStatus)
def test_only_what_is_in_progress_is_claimed(loop: Loop, database: Database, status: FileStatus) -> None:
    async def scenario() -> None:
        await add_files(database)
        beside = BESIDE.get(status, "usage_bytes = 0")
        await execute(database, f"UPDATE vector_store_files SET status = '{status}', {beside}")
        assert len(await FILES.claim(database, "me", 10)) == (status is FileStatus.IN_PROGRESS)

    loop.run(scenario())


def test_a_file_is_left_alone_until_it_is_time_to_try_again(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_files(database)
        lease = await claim_one(database)
        await vector_store_files.retry_if_held(database, lease, 60)
        row = await the_row(database)
        assert (row["status"], row["lease_token"], row["failures"], row["abandoned"]) == ("in_progress", None, 1, 0)
        assert await FILES.claim(database, "me", 10) == []
        await execute(database, "UPDATE vector_store_files SET retry_at = now()")
        again = await claim_one(database)
        assert (again.attempt, again.abandoned) == (2, 0)
        assert again.key != lease.key

    loop.run(scenario())


def test_a_heartbeat_renews_a_lease_and_finds_what_is_lost(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_files(database)
        lease = await claim_one(database)
        await expire(database)
        assert await FILES.heartbeat(database, [lease.token, "none"]) == {lease.token: FileStatus.IN_PROGRESS}
        assert 14 < (await the_row(database))["left_s"] <= 15
        assert await FILES.claim(database, "another", 10) == []
        assert await complete(database, lease)
        assert await FILES.heartbeat(database, [lease.token]) == {}

    loop.run(scenario())


def test_who_dies_with_a_file_counts_and_who_hands_it_back_does_not(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        await add_files(database)
        await FILES.release_if_held(database, await claim_one(database))
        handed_back = await claim_one(database)
        assert (handed_back.attempt, handed_back.abandoned) == (2, 0)
        await expire(database)
        taken_over = await claim_one(database)
        assert (taken_over.attempt, taken_over.abandoned) == (3, 1)
        await FILES.abandon_if_held(database, taken_over)
        failed = await claim_one(database)
        assert (failed.attempt, failed.abandoned) == (4, 2)
        assert await FILES.release_all(database) == 1
        restarted = await claim_one(database)
        assert (restarted.attempt, restarted.abandoned) == (5, 3)

    loop.run(scenario())


# --- A lease that is lost

WRITES: dict[str, Callable[[Database, FileLease], Awaitable[object]]] = {
    "complete": complete,
    "fail": lambda database, lease: vector_store_files.fail_if_held(database, lease, ERROR),
    "retry": lambda database, lease: vector_store_files.retry_if_held(database, lease, 1),
    "hand back": FILES.release_if_held,
    "abandon": FILES.abandon_if_held,
    "load": vector_store_files.load,
    "heartbeat": lambda database, lease: FILES.heartbeat(database, [lease.token]),
}


@pytest.mark.parametrize("how", ["taken over", "freed", "completed", "cancelled", "deleted"])
@pytest.mark.parametrize("write", WRITES)
def test_who_has_lost_a_lease_writes_nothing(loop: Loop, database: Database, write: str, how: str) -> None:
    async def scenario() -> None:
        await add_files(database)
        lease = await claim_one(database)
        match how:
            case "taken over":
                await expire(database)
                await claim_one(database, "another")
            case "freed":
                await FILES.release_all(database)
            case "completed":
                assert await complete(database, lease)
            case "cancelled":
                columns = "lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL"
                await execute(database, f"UPDATE vector_store_files SET status = 'cancelled', {columns}")
            case "deleted":
                await execute(database, "DELETE FROM files")
        before = await contents(database)
        assert not await WRITES[write](database, lease)
        assert await contents(database) == before

    loop.run(scenario())


def test_what_is_loosened_again_waits_again(loop: Loop, database: Database) -> None:
    """Whoever finds its lease lost has its chunks swept later, though they were about to be; not those of a file."""

    async def scenario() -> None:
        store_id, _ = await add_files(database)
        lost = await claim_one(database)
        await expire(database)
        taken = await claim_one(database, "another")
        await execute(database, "UPDATE loose_chunks SET due_at = 0")
        assert await vector_stores.loose(database, 10) == [(store_id, lost.key)]
        assert await vector_stores.loosen(database, lost)
        assert await vector_stores.loose(database, 10) == []
        await vector_stores.forget(database, store_id, lost.key)  # as a sweep does that began before
        assert [row["key"] for row in await execute(database, "SELECT key FROM loose_chunks")] == [lost.key]
        assert await complete(database, taken)
        assert not await vector_stores.loosen(database, taken)

    loop.run(scenario())


def test_a_swept_store_leaves_what_may_still_be_written(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        store_id, _ = await add_files(database, 2)
        leases = await FILES.claim(database, "me", 2)
        assert await complete(database, leases[0])
        await vector_stores.remove(database, PROJECT, store_id)
        assert (store_id, "") in await vector_stores.loose(database, 10)
        await vector_stores.forget(database, store_id, "")
        assert [row["key"] for row in await execute(database, "SELECT key FROM loose_chunks")] == [leases[1].key]

    loop.run(scenario())


# --- The worker


class Hands:
    """Handles the first file by waiting until it is interrupted, remembers why that was, and passes over others."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self.interrupted: list[tuple[str, Interruption | None]] = []

    async def handle(self, lease: FileLease) -> None:
        self.began.append(lease.file_id)
        if len(self.began) > 1:
            return
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.interrupted.append((lease.file_id, lease.interruption))
            raise


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.005)


def _has(those: list[asyncio.Event], count: int) -> bool:
    return len(those) >= count


@pytest.mark.parametrize("how", ["taken over", "cancelled", "deleted"])
def test_a_worker_interrupts_what_is_lost_and_takes_the_next(loop: Loop, database: Database, how: str) -> None:
    async def scenario() -> None:
        _, ids = await add_files(database, 2)
        hands, wakeup = Hands(), Wakeup()
        worker = Worker(database, wakeup, FILES, hands.handle, name="me", concurrency=1)
        running = asyncio.create_task(worker.run())
        await until(lambda: hands.began)
        match how:
            case "taken over":
                taken = "lease_token = 'stolen', attempt = attempt + 1"
                await execute(database, f"UPDATE vector_store_files SET {taken} WHERE id = $1", ids[0])
            case "cancelled":
                columns = "lease_owner = NULL, lease_token = NULL, lease_expires_at = NULL"
                cancelled = f"UPDATE vector_store_files SET status = 'cancelled', {columns} WHERE id = $1"
                await execute(database, cancelled, ids[0])
            case "deleted":
                await execute(database, "DELETE FROM files WHERE id = $1", ids[0])
        wakeup.set()
        await until(lambda: len(hands.began) == 2)
        assert hands.began == ids
        assert hands.interrupted == [(ids[0], Interruption.LOST)]
        await worker.stop()
        await running

    loop.run(scenario())


def test_a_worker_takes_no_more_files_than_it_has_places(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        _, ids = await add_files(database, 5)
        places: list[asyncio.Event] = []
        busy: list[float] = []

        async def handle(lease: FileLease) -> None:
            places.append(asyncio.Event())
            await places[-1].wait()
            assert await complete(database, lease)

        wakeup = Wakeup()
        worker = Worker(database, wakeup, FILES, handle, name="me", concurrency=2, busy=busy.append)
        running = asyncio.create_task(worker.run())
        for done in range(len(ids)):
            await until(partial(_has, places, min(done + 2, len(ids))))
            places[done].set()
        await until(lambda: busy[-1] == 0)
        assert max(busy) == 2
        await worker.stop()
        await running
        rows = await execute(database, "SELECT status, attempt FROM vector_store_files")
        assert {(row["status"], row["attempt"]) for row in rows} == {("completed", 1)}

    loop.run(scenario())


def test_a_file_on_which_its_executor_fails_counts_as_abandoned(loop: Loop, database: Database) -> None:
    """Or it would be claimed and fail for ever, as fast as the database can."""

    async def scenario() -> None:
        await add_files(database)
        seen: list[int] = []

        async def fail(lease: FileLease) -> None:
            seen.append(lease.abandoned)
            if len(seen) <= 3:
                raise ValueError("a fault of ours")
            assert await complete(database, lease)

        worker = Worker(database, Wakeup(), FILES, fail, name="me", concurrency=1)
        running = asyncio.create_task(worker.run())
        await until(lambda: len(seen) == 4)
        assert seen == [0, 1, 2, 3]
        await worker.stop()
        await running

    loop.run(scenario())
