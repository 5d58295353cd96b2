"""Leases: one executor per run, by the database's clock; who has lost one writes nothing."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import asyncpg
import pytest

from adlatus.backends.wakeup import Wakeup, listen
from adlatus.errors import Unavailable
from adlatus.runs.endings import CANCELLED, COMPLETED, EXPIRED, OUT_OF_TOKENS, failed
from adlatus.runs.journal import Journal, LeaseLost
from adlatus.store import leases
from adlatus.store.db import Database
from adlatus.store.leases import WAKE_CHANNEL, Interruption, Lease
from adlatus.wire.common import LastError
from adlatus.wire.runs import RunStatus
from adlatus.worker import Worker
from tests.conftest import Loop
from tests.runs.stored import (
    add_leased,
    add_run,
    calling,
    contents,
    execute,
    expire_lease,
    journal,
    put,
    say,
    steal,
)


async def lease_s(database: Database, run_id: str) -> float:
    """Seconds until the lease of a run expires."""
    [row] = await execute(
        database, "SELECT extract(epoch FROM lease_expires_at - now())::float AS s FROM runs WHERE id = $1", run_id
    )
    left: float = row["s"]
    return left


# --- Claims


def test_every_run_is_claimed_once_however_many_want_it(loop: Loop, database: Database) -> None:
    async def claim_all(owner: str) -> list[Lease]:
        mine: list[Lease] = []
        while claimed := await leases.RUNS.claim(database, owner, 3):
            assert len(claimed) <= 3
            mine += claimed
        return mine

    async def scenario() -> None:
        runs = {(await add_run(database))[0].id for _ in range(100)}
        claimed = await asyncio.gather(*(claim_all(f"executor {n}") for n in range(8)))
        every = [lease for mine in claimed for lease in mine]
        assert sorted(lease.run_id for lease in every) == sorted(runs)
        assert len({lease.token for lease in every}) == 100
        for row in await execute(database, "SELECT * FROM runs"):
            [(owner, lease)] = [(n, le) for n, mine in enumerate(claimed) for le in mine if le.run_id == row["id"]]
            assert row["lease_token"] == lease.token
            assert row["lease_owner"] == f"executor {owner}"
            assert row["attempt"] == lease.attempt == 1
            assert row["status"] == "queued"

    loop.run(scenario())


def test_the_oldest_run_is_claimed_first(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        runs = [(await add_run(database))[0].id for _ in range(5)]
        await execute(database, "UPDATE runs SET created_at = created_at - 10 WHERE id = $1", runs[3])
        order = [(await leases.RUNS.claim(database, "me", 1))[0].run_id for _ in runs]
        assert order == [runs[3], *runs[:3], runs[4]]

    loop.run(scenario())


@pytest.mark.parametrize("status", RunStatus)
def test_what_nobody_has_to_work_on_is_not_claimed(loop: Loop, database: Database, status: RunStatus) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database)
        await put(database, run.id, status)
        claimed = await leases.RUNS.claim(database, "me", 10)
        wanted = status in (RunStatus.QUEUED, RunStatus.IN_PROGRESS, RunStatus.CANCELLING)
        assert [lease.run_id for lease in claimed] == ([run.id] if wanted else [])

    loop.run(scenario())


def test_a_live_lease_is_not_claimed_and_an_expired_one_is(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        lost = await add_leased(database)
        assert 14 < await lease_s(database, lost.run_id) <= 15
        assert await leases.RUNS.claim(database, "another", 10) == []
        await expire_lease(database, lost.run_id)
        [taken] = await leases.RUNS.claim(database, "another", 10)
        assert (taken.run_id, taken.attempt) == (lost.run_id, 2)
        assert taken.token != lost.token
        assert await leases.RUNS.heartbeat(database, [lost.token, taken.token]) == {taken.token: RunStatus.QUEUED}

    loop.run(scenario())


def test_a_heartbeat_renews_a_lease_and_tells_the_status(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        first, second = await add_leased(database), await add_leased(database)
        other = await add_leased(database)
        await put(database, second.run_id, RunStatus.CANCELLING)
        await execute(database, "UPDATE runs SET lease_expires_at = now() + interval '1 second'")
        statuses = await leases.RUNS.heartbeat(database, [first.token, second.token, "none"])
        assert statuses == {first.token: RunStatus.QUEUED, second.token: RunStatus.CANCELLING}
        assert [await lease_s(database, lease.run_id) > 14 for lease in (first, second, other)] == [True, True, False]

    loop.run(scenario())


def test_an_expired_lease_that_nobody_claimed_lives_again_by_a_heartbeat(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        await expire_lease(database, lease.run_id)
        assert await leases.RUNS.heartbeat(database, [lease.token]) == {lease.token: RunStatus.QUEUED}
        assert await leases.RUNS.claim(database, "another", 10) == []

    loop.run(scenario())


def test_a_run_is_handed_back_by_who_holds_it_only(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        lost = await add_leased(database)
        await put(database, lost.run_id, RunStatus.IN_PROGRESS)
        await expire_lease(database, lost.run_id)
        [taken] = await leases.RUNS.claim(database, "another", 1)
        before = await contents(database)
        await leases.RUNS.release_if_held(database, lost)
        assert await contents(database) == before
        await leases.RUNS.release_if_held(database, taken)
        [row] = await execute(database, "SELECT status, lease_token FROM runs")
        assert dict(row) == {"status": "in_progress", "lease_token": None}

    loop.run(scenario())


def test_all_leases_are_freed_where_no_other_process_can_be(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        for _ in range(3):
            await add_leased(database)
        await add_run(database)
        assert await leases.RUNS.release_all(database) == 3
        assert len(await leases.RUNS.claim(database, "me", 10)) == 4

    loop.run(scenario())


def test_a_wake_up_is_heard_at_the_commit(loop: Loop, database: Database, pytestconfig: pytest.Config) -> None:
    if pytestconfig.getoption("--deaf"):
        pytest.skip("wake-ups are lost (--deaf)")

    async def scenario() -> None:
        async with listen(database.dsn, WAKE_CHANNEL) as wakeup:
            assert await wakeup.wait(10)  # it listens
            async with database.transaction() as tx:
                await leases.wake(tx)
                assert not await wakeup.wait(0.05)
            assert await wakeup.wait(10)

    loop.run(scenario())


# --- A lease that is lost

WRITES: dict[str, Callable[[Journal], Awaitable[object]]] = {
    "load": lambda journal: journal.load(),
    "begin": lambda journal: journal.begin(),
    "take back": lambda journal: journal.take_back(),
    "say": lambda journal: journal.say(["Hello"]),
    "call": lambda journal: say(journal, calling("get_weather")),
    "ask the client": lambda journal: journal.ask_client(),
    "complete": lambda journal: journal.end(COMPLETED),
    "cancel": lambda journal: journal.end(CANCELLED),
    "expire": lambda journal: journal.end(EXPIRED),
    "stop": lambda journal: journal.end(OUT_OF_TOKENS),
    "fail": lambda journal: journal.end(failed(LastError(code="server_error", message="-"))),
}


@pytest.mark.parametrize("how", ["stolen", "freed", "ended", "deleted"])
@pytest.mark.parametrize("write", WRITES)
def test_who_has_lost_a_lease_writes_nothing(loop: Loop, database: Database, write: str, how: str) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        before_that = journal(database, lease)
        await before_that.begin()
        await before_that.say(["Half"])
        match how:
            case "stolen":
                await steal(database, lease.run_id)
            case "freed":
                await leases.RUNS.release_all(database)
            case "ended":
                await before_that.end(COMPLETED)
            case "deleted":
                await execute(database, "DELETE FROM threads")
        before = await contents(database)
        with pytest.raises(LeaseLost):
            await WRITES[write](journal(database, lease))
        assert await contents(database) == before

    loop.run(scenario())


# --- The worker


class Hands:
    """Handles runs by waiting until it is interrupted, unless it is idle, and remembers why that was."""

    def __init__(self, *, idle: bool = False) -> None:
        self.idle = idle
        self.began: list[str] = []
        self.interrupted: list[tuple[str, Interruption | None]] = []

    async def handle(self, lease: Lease) -> None:
        self.began.append(lease.run_id)
        try:
            if not self.idle:
                await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.interrupted.append((lease.run_id, lease.interruption))
            raise


def worker_of(database: Database, hands: Hands, wakeup: Wakeup, concurrency: int = 10) -> Worker[Lease]:
    return Worker(database, wakeup, leases.RUNS, hands.handle, name="me", concurrency=concurrency)


async def until(look: Callable[[], Any]) -> None:
    async with asyncio.timeout(60):
        while not look():
            await asyncio.sleep(0.005)


@pytest.mark.parametrize("how", ["cancelled", "stolen", "deleted"])
def test_a_worker_interrupts_what_is_cancelled_or_lost(loop: Loop, database: Database, how: str) -> None:
    async def scenario() -> None:
        run, _ = await add_run(database)
        hands, wakeup = Hands(), Wakeup()
        worker = worker_of(database, hands, wakeup)
        running = asyncio.create_task(worker.run())
        await until(lambda: hands.began)
        match how:
            case "cancelled":
                await put(database, run.id, RunStatus.CANCELLING)
            case "stolen":
                await steal(database, run.id)
            case "deleted":
                await execute(database, "DELETE FROM threads")
        wakeup.set()
        await until(lambda: hands.interrupted)
        reason = Interruption.CANCEL if how == "cancelled" else Interruption.LOST
        assert hands.interrupted == [(run.id, reason)]
        await worker.stop()
        await running

    loop.run(scenario())


def test_a_run_on_which_its_executor_fails_counts_as_abandoned(loop: Loop, database: Database) -> None:
    """Or it would be claimed and fail for ever, as fast as the database can."""

    async def scenario() -> None:
        await add_run(database)
        seen: list[int] = []

        async def fail(lease: Lease) -> None:
            seen.append(lease.abandoned)
            if len(seen) <= 3:
                raise ValueError("a fault of ours")
            await asyncio.Event().wait()

        worker = Worker(database, Wakeup(), leases.RUNS, fail, name="me", concurrency=1)
        running = asyncio.create_task(worker.run())
        await until(lambda: len(seen) == 4)
        assert seen == [0, 1, 2, 3]
        await worker.stop()
        await running

    loop.run(scenario())


@pytest.mark.slow
def test_a_worker_that_stops_hands_back_what_it_has(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        for _ in range(3):
            await add_run(database)
        hands = Hands()
        worker = worker_of(database, hands, Wakeup(), concurrency=2)
        running = asyncio.create_task(worker.run())
        await until(lambda: len(hands.began) == 2)
        assert worker.offer() is None
        await worker.stop()
        await running
        assert [reason for _, reason in hands.interrupted] == [Interruption.STOP] * 2
        assert len(await leases.RUNS.claim(database, "another", 10)) == 3

    loop.run(scenario())


def test_a_run_that_comes_in_while_the_worker_stops_is_handed_back(loop: Loop, database: Database) -> None:
    """Claimed by a request before the stop, committed after it."""

    async def scenario() -> None:
        hands = Hands()
        worker = worker_of(database, hands, Wakeup())
        await worker.stop()
        assert worker.offer() is None
        lease = await add_leased(database)
        worker.start(lease)
        await worker.stop()
        assert hands.began == []
        [claimed] = await leases.RUNS.claim(database, "another", 10)
        assert claimed.run_id == lease.run_id

    loop.run(scenario())


def test_a_worker_waits_out_an_outage_of_the_database(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        hands, wakeup = Hands(idle=True), Wakeup()
        worker = worker_of(database, hands, wakeup)
        running = asyncio.create_task(worker.run())
        connection = await asyncpg.connect(database.dsn)
        try:
            await connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
        finally:
            await connection.close()
        wakeup.set()
        async with asyncio.timeout(60):
            while not hands.began:
                with suppress(Unavailable):
                    await add_run(database)
                wakeup.set()
                await asyncio.sleep(0.01)
        await worker.stop()
        await running

    loop.run(scenario())
