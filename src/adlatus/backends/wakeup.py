"""Wake-ups between processes: LISTEN on a connection of its own (direct, not through pgbouncer). They carry no data,
and a lost one costs only the time to the next poll."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import asyncpg
import structlog

log = structlog.get_logger(__name__)

RECONNECT_S = 1.0
_GONE = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # a connection that the server has just closed
)


class Wakeup:
    """Something may be to do. Set by NOTIFY, or directly within this process."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self._others: list[Wakeup] = []

    def another(self) -> "Wakeup":
        """The same for another waiter of this process, which has only one here."""
        other = Wakeup()
        self._others.append(other)
        return other

    def set(self) -> None:
        """Wake the waiters of this process."""
        self._event.set()
        for other in self._others:
            other.set()

    async def wait(self, timeout_s: float) -> bool:
        """Whether a wake-up came within the time; clears it."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._event.wait(), timeout_s)
        woken = self._event.is_set()
        self._event.clear()
        return woken


@asynccontextmanager
async def listen(dsn: str, channel: str) -> AsyncIterator[Wakeup]:
    """A `Wakeup` that hears NOTIFY on `channel`, connecting again whenever the connection is lost."""
    wakeup = Wakeup()
    task = asyncio.create_task(_listen_forever(dsn, channel, wakeup))
    try:
        yield wakeup
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen_forever(dsn: str, channel: str, wakeup: Wakeup) -> None:
    while True:
        try:
            await _listen(dsn, channel, wakeup)
        except _GONE as error:
            log.warning("no wake-ups: cannot listen to the database", error=repr(error))
            await asyncio.sleep(RECONNECT_S)


async def _listen(dsn: str, channel: str, wakeup: Wakeup) -> None:
    """Listen until the connection is lost."""
    connection = await asyncpg.connect(dsn, timeout=10)
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(channel, lambda *_: wakeup.set())
        wakeup.set()  # what was sent before we listened
        await lost.wait()
    finally:
        connection.terminate()
