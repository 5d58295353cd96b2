"""Whose run is next: projects take turns, and each has as many runs in execution as it may, at any moment."""

import asyncio

import pytest

from adlatus.runs import commands
from adlatus.runs.endings import COMPLETED
from adlatus.store import leases
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.store.leases import Lease, new_claim
from adlatus.wire.runs import RunStatus
from tests.conftest import Loop
from tests.runs.stored import PROJECT, add_run, execute, expire_lease, journal, put

LIMITED = leases.RUNS.limited(2)


async def queue(database: Database, project_id: str, count: int) -> list[str]:
    """So many queued runs of a project, the oldest first."""
    await execute(database, "INSERT INTO projects (id) VALUES ($1) ON CONFLICT DO NOTHING", project_id)
    ids = [(await add_run(database))[0].id for _ in range(count)]
    await execute(database, "UPDATE runs SET project_id = $1 WHERE id = ANY($2)", project_id, ids)
    return ids


def projects_of(claimed: list[Lease]) -> list[str]:
    return [lease.project_id for lease in claimed]


def test_projects_take_turns_by_what_they_execute_then_the_oldest(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        many = await queue(database, "many", 6)
        few = await queue(database, "few", 2)
        claimed = [(await leases.RUNS.claim(database, "me", 1))[0] for _ in range(5)]
        assert projects_of(claimed) == ["many", "few", "many", "few", "many"]
        assert [lease.run_id for lease in claimed] == [many[0], few[0], many[1], few[1], many[2]]
        at_once = await leases.RUNS.claim(database, "me", 10)
        assert {lease.run_id for lease in at_once} == set(many[3:])

    loop.run(scenario())


def test_of_many_places_each_project_gets_its_share_in_one_claim(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        for project_id, count in (("many", 20), ("some", 5), ("one", 1)):
            await queue(database, project_id, count)
        claimed = projects_of(await leases.RUNS.claim(database, "me", 7))
        assert {name: claimed.count(name) for name in ("many", "some", "one")} == {"many": 3, "some": 3, "one": 1}

    loop.run(scenario())


def test_a_run_that_has_begun_goes_before_older_ones(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        _, younger = await queue(database, "many", 2)
        await put(database, younger, RunStatus.IN_PROGRESS)
        [lease] = await leases.RUNS.claim(database, "me", 1)
        assert lease.run_id == younger

    loop.run(scenario())


def test_however_many_claim_at_once_no_project_has_more_than_its_limit(loop: Loop, database: Database) -> None:
    async def work(owner: str) -> int:
        ended = 0
        while await execute(database, "SELECT 1 FROM runs WHERE status = 'queued'"):
            for lease in await LIMITED.claim(database, owner, 3):
                writer = journal(database, lease)
                await writer.begin()
                await writer.end(COMPLETED)
                ended += 1
        return ended

    async def watch(done: asyncio.Event) -> int:
        most = 0
        while not done.is_set():
            held = await execute(
                database, "SELECT count(*) AS n FROM runs WHERE lease_token IS NOT NULL GROUP BY project_id"
            )
            most = max([most, *(row["n"] for row in held)])
        return most

    async def scenario() -> None:
        for project_id in ("many", "few"):
            await queue(database, project_id, 20)
        done = asyncio.Event()
        watching = asyncio.create_task(watch(done))
        ended = await asyncio.gather(*(work(f"executor {n}") for n in range(6)))
        done.set()
        assert await watching <= 2
        assert sum(ended) == 40

    loop.run(scenario())


def test_claims_and_requests_at_once_keep_to_the_limit(loop: Loop, database: Database) -> None:
    """A request whose project has no place, or whose place is being given away, leaves its run queued."""

    async def scenario() -> None:
        for _ in range(10):
            await execute(database, "TRUNCATE threads CASCADE")
            await queue(database, PROJECT, 3)
            async with asyncio.TaskGroup() as group:
                requests = [group.create_task(add_run(database, claim=new_claim("a request", (), 2))) for _ in range(4)]
                for n in range(4):
                    group.create_task(LIMITED.claim(database, f"executor {n}", 2))
            created = [request.result() for request in requests]
            held = await execute(database, "SELECT id FROM runs WHERE lease_token IS NOT NULL")
            assert 1 <= len(held) <= 2
            assert {lease.run_id for _, lease in created if lease} <= {row["id"] for row in held}
            assert all(run.status == "queued" for run, _ in created)

    loop.run(scenario())


def test_a_request_takes_a_place_if_there_is_one(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        leased = [(await add_run(database, claim=new_claim("me", (), 2)))[1] is not None for _ in range(3)]
        assert leased == [True, True, False]
        assert await LIMITED.claim(database, "me", 5) == []
        assert len(await leases.RUNS.claim(database, "me", 5)) == 1

    loop.run(scenario())


@pytest.mark.parametrize("how", ["its executor died", "it is to be cancelled"])
def test_no_place_is_needed_to(loop: Loop, database: Database, how: str) -> None:
    """Take over what has one, and end what was cancelled, even where the limit has been lowered meanwhile."""

    async def scenario() -> None:
        await queue(database, PROJECT, 2)
        first, _ = await LIMITED.claim(database, "me", 5)
        await queue(database, PROJECT, 130)
        await execute(database, "UPDATE runs SET created_at = created_at + 10 WHERE id = $1", first.run_id)
        if how == "its executor died":
            await journal(database, first).begin()
            await expire_lease(database, first.run_id)
        else:
            await commands.cancel(database, EventLog(database), PROJECT, first.thread_id, first.run_id)
            await LIMITED.release_if_held(database, first)
            _, lease = await add_run(database, claim=new_claim("a request", (), 2))
            assert lease, "its place is another's"
        claimed = await leases.RUNS.limited(1).claim(database, "another", 5)
        assert [lease.run_id for lease in claimed] == [first.run_id]

    loop.run(scenario())
