"""Connections to PostgreSQL, lent to one statement or transaction at a time. Knows nothing of statements.

asyncpg's own pool makes a task, a timeout and a proxy for each loan, which together take longer than asyncpg takes for
a row: 95 of 125 µs of CPU.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress

import asyncpg

WAIT_S = 30.0
"""How long to wait for a connection where all are lent."""
ANSWERS_S = 1.0
"""How long a server may take to answer on a connection in doubt before it is cut."""
IDLE_S = 300.0
"""How long a connection stays that nobody borrows; each is a process of the server."""
_LOOK_S = 60.0

GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server has just closed
    asyncpg.OperatorInterventionError,  # starts up, shuts down, a statement's timeout
    asyncpg.InsufficientResourcesError,  # disk full, out of memory, too many connections
    asyncpg.ReadOnlySQLTransactionError,  # while it is switched to its standby
    asyncpg.TransactionRollbackError,  # a deadlock
    asyncpg.LockNotAvailableError,  # a lock's timeout
)
"""What is raised where a server does not do its work, through no fault of the statement's."""


class Pool:
    """Up to `most` connections, opened when they are wanted. The one that was given back last is lent first."""

    def __init__(
        self, connect: Callable[[], Awaitable[asyncpg.Connection]], most: int, *, wait_s: float = WAIT_S
    ) -> None:
        self._connect = connect
        self._most = most
        self._wait_s = wait_s
        self._trusted: set[asyncpg.Connection] = set()
        self._idle: deque[tuple[asyncpg.Connection, float]] = deque()
        self._taken = 0  # lent, being opened or in doubt
        self._waiting: deque[asyncio.Future[asyncpg.Connection | None]] = deque()
        self._checks: set[asyncio.Task[None]] = set()
        self._returned = asyncio.Event()
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)

    @property
    def most(self) -> int:
        """How many connections there are at most."""
        return self._most

    @property
    def in_use(self) -> int:
        """How many are lent, being opened or in doubt."""
        return self._taken

    @property
    def waiting(self) -> int:
        """How many wait for one."""
        return len(self._waiting)

    async def borrow(self) -> asyncpg.Connection:
        """A connection for the caller alone, who gives it back. Raises what `connect` raises, and `TimeoutError`."""
        while True:
            while self._idle:
                connection, _ = self._idle.pop()
                if not connection.is_closed():
                    self._taken += 1
                    return connection
                self._trusted.discard(connection)
            if self._taken < self._most:
                return await self._opened()
            if connection := await self._next():
                return connection

    def give_back(self, connection: asyncpg.Connection, *, sure: bool = True) -> None:
        """Lend it to the next; unless `sure`, once the server has answered on it."""
        if connection not in self._trusted or connection.is_closed() or connection.is_in_transaction():
            self._drop(connection)
        elif not sure:
            check = asyncio.create_task(self._check(connection))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)
        elif waiting := self._who_waits():
            waiting.set_result(connection)
        else:
            self._taken -= 1
            self._idle.append((connection, time.monotonic()))
            self._returned.set()

    def distrust(self) -> None:
        """Lend none of those again that are open now: the server may not know of them any more."""
        self._trusted.clear()
        while self._idle:
            self._idle.pop()[0].terminate()

    def close_idle(self, for_s: float) -> None:
        """Close all but one of those that nobody has borrowed for so long."""
        long_ago = time.monotonic() - for_s
        while len(self._idle) > 1 and self._idle[0][1] < long_ago:
            connection, _ = self._idle.popleft()
            self._trusted.discard(connection)
            connection.terminate()

    async def close(self, within_s: float) -> None:
        """Close all, those that are lent once they are given back, or after so many seconds."""
        self._looking.cancel()
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while self._taken:
                    self._returned.clear()
                    await self._returned.wait()
                for connection, _ in self._idle:
                    with suppress(*GONE):
                        await connection.close()
        self._idle.clear()
        for connection in self._trusted:
            connection.terminate()

    async def _opened(self) -> asyncpg.Connection:
        self._taken += 1
        try:
            connection = await self._connect()
        except BaseException:
            self._free()
            raise
        self._trusted.add(connection)
        return connection

    async def _next(self) -> asyncpg.Connection | None:
        """The next that is given back; None where there is room to open one instead."""
        waiting: asyncio.Future[asyncpg.Connection | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(waiting)
        try:
            async with asyncio.timeout(self._wait_s):
                return await waiting
        except BaseException:
            if waiting.done() and not waiting.cancelled():  # it came at the same moment
                if connection := waiting.result():
                    self.give_back(connection)
                else:
                    self._wake_one()
            raise

    async def _check(self, connection: asyncpg.Connection) -> None:
        if await answers(connection):
            self.give_back(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: asyncpg.Connection) -> None:
        self._trusted.discard(connection)
        connection.terminate()
        self._free()

    def _free(self) -> None:
        """There is room for another connection."""
        self._taken -= 1
        self._returned.set()
        self._wake_one()

    def _wake_one(self) -> None:
        if waiting := self._who_waits():
            waiting.set_result(None)

    def _who_waits(self) -> asyncio.Future[asyncpg.Connection | None] | None:
        while self._waiting:
            waiting = self._waiting.popleft()
            if not waiting.done():
                return waiting
        return None

    def _look(self) -> None:
        self._looking = asyncio.get_running_loop().call_later(_LOOK_S, self._look)
        self.close_idle(IDLE_S)


async def answers(connection: asyncpg.Connection) -> bool:
    """Whether a server that took too long, or was not waited for, does answer: then it has given up what it was at."""
    try:
        async with asyncio.timeout(ANSWERS_S):
            await connection.execute("SELECT 1")
    except GONE:
        return False
    return True
