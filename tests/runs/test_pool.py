"""How connections are lent: few, whole, and to everybody in turn."""

import asyncio
from collections.abc import Awaitable, Callable

import asyncpg
import pytest

from adlatus.store.pool import Pool
from tests.conftest import Loop

Scenario = Callable[[Pool], Awaitable[None]]


@pytest.fixture
def pooled(loop: Loop, database_url: str) -> Callable[[int, Scenario], None]:
    """Runs a scenario with a pool of that many connections."""

    def run(most: int, scenario: Scenario) -> None:
        async def with_pool() -> None:
            pool = Pool(lambda: asyncpg.connect(database_url), most)
            try:
                await scenario(pool)
            finally:
                await pool.close(5)

        loop.run(with_pool())

    return run


async def pid_of(connection: asyncpg.Connection) -> int:
    pid: int = await connection.fetchval("SELECT pg_backend_pid()")
    return pid


def test_the_connection_that_came_back_last_is_lent_first(pooled: Callable[[int, Scenario], None]) -> None:
    async def scenario(pool: Pool) -> None:
        first, second = await pool.borrow(), await pool.borrow()
        pool.give_back(first)
        pool.give_back(second)
        assert [await pool.borrow(), await pool.borrow()] == [second, first]
        pool.give_back(first)
        pool.give_back(second)

    pooled(5, scenario)


def test_a_statement_that_nobody_waits_for_is_given_up_before_its_connection_is_lent_again(
    pooled: Callable[[int, Scenario], None],
) -> None:
    async def scenario(pool: Pool) -> None:
        connection = await pool.borrow()
        pid = await pid_of(connection)
        asking = asyncio.create_task(connection.execute("SELECT pg_sleep(60)"))
        await asyncio.sleep(0.05)  # so that it is sent, whichever half of it is cancelled
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        pool.give_back(connection, sure=False)
        again = await pool.borrow()
        assert again is connection
        assert await pid_of(again) == pid
        pool.give_back(again)

    pooled(1, scenario)


def test_a_connection_that_is_left_in_a_transaction_is_not_lent_again(
    pooled: Callable[[int, Scenario], None],
) -> None:
    async def scenario(pool: Pool) -> None:
        connection = await pool.borrow()
        await connection.execute("BEGIN")
        pool.give_back(connection)
        another = await pool.borrow()
        assert another is not connection
        assert connection.is_closed()
        pool.give_back(another)

    pooled(1, scenario)


def test_who_waits_is_served_in_turn_and_who_has_left_is_passed_over(
    pooled: Callable[[int, Scenario], None],
) -> None:
    async def scenario(pool: Pool) -> None:
        lent = await pool.borrow()
        served: list[str] = []

        async def use(name: str) -> None:
            connection = await pool.borrow()
            served.append(name)
            await connection.execute("SELECT 1")
            pool.give_back(connection)

        tasks = [asyncio.create_task(use(name)) for name in ("first", "leaves", "second", "leaves late", "third")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        await asyncio.sleep(0)
        pool.give_back(lent)
        tasks[0].add_done_callback(lambda _: tasks[3].cancel())
        await asyncio.gather(*tasks, return_exceptions=True)
        assert served == ["first", "second", "third"]

    pooled(1, scenario)


def test_who_leaves_at_the_moment_of_being_served_leaves_the_connection_to_the_next(
    pooled: Callable[[int, Scenario], None],
) -> None:
    async def scenario(pool: Pool) -> None:
        lent = await pool.borrow()
        leaving, staying = asyncio.create_task(pool.borrow()), asyncio.create_task(pool.borrow())
        await asyncio.sleep(0)
        pool.give_back(lent)
        leaving.cancel()
        assert await staying is lent
        assert leaving.cancelled()
        pool.give_back(lent)

    pooled(1, scenario)


def test_a_server_that_lets_nobody_in_for_a_while_takes_no_place(loop: Loop, database_url: str) -> None:
    attempts = 0

    async def connect() -> asyncpg.Connection:
        nonlocal attempts
        attempts += 1
        if attempts == 1:
            raise ConnectionRefusedError
        return await asyncpg.connect(database_url)

    async def scenario() -> None:
        pool = Pool(connect, 1)
        first, second = asyncio.create_task(pool.borrow()), asyncio.create_task(pool.borrow())
        with pytest.raises(ConnectionRefusedError):
            await first
        pool.give_back(await second)
        await pool.close(5)

    loop.run(scenario())


def test_connections_that_were_distrusted_while_lent_are_not_lent_again(
    pooled: Callable[[int, Scenario], None],
) -> None:
    async def scenario(pool: Pool) -> None:
        lent, idle = await pool.borrow(), await pool.borrow()
        pool.give_back(idle)
        pool.distrust()
        pool.give_back(lent)
        fresh = [await pool.borrow(), await pool.borrow()]
        assert not {lent, idle} & set(fresh)
        assert lent.is_closed()
        assert idle.is_closed()
        for connection in fresh:
            pool.give_back(connection)

    pooled(2, scenario)


def test_all_but_one_of_those_that_nobody_wants_are_closed(pooled: Callable[[int, Scenario], None]) -> None:
    async def scenario(pool: Pool) -> None:
        lent = [await pool.borrow() for _ in range(3)]
        for connection in lent:
            pool.give_back(connection)
        pool.close_idle(60)
        assert not any(connection.is_closed() for connection in lent)
        pool.close_idle(0)
        assert [connection.is_closed() for connection in lent] == [True, True, False]
        assert await pool.borrow() is lent[-1]
        pool.give_back(lent[-1])

    pooled(3, scenario)


def test_closing_waits_for_what_is_lent_but_not_for_ever(loop: Loop, database_url: str) -> None:
    async def scenario() -> None:
        pool = Pool(lambda: asyncpg.connect(database_url), 2)
        kept, returned = await pool.borrow(), await pool.borrow()
        closing = asyncio.create_task(pool.close(0.5))
        await asyncio.sleep(0)
        assert not kept.is_closed()
        pool.give_back(returned)
        await closing
        assert kept.is_closed()
        assert returned.is_closed()

    loop.run(scenario())
