"""Wake-ups between processes: LISTEN on a connection of its own (direct, not through pgbouncer). They carry no data,
and a lost one costs only the time to the next poll."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial

import asyncpg
import structlog

log = structlog.get_logger(__name__)

RECONNECT_S = 1.0
PING_S = 10.0
ANSWER_S = 5.0
_GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, TimeoutError)


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
async def listen(
    dsn: str, channel: str, *, ping_s: float = PING_S, answer_s: float = ANSWER_S
) -> AsyncIterator[Wakeup]:
    """A `Wakeup` that hears NOTIFY on `channel`, connecting again whenever the connection is lost.

    The server is asked every `ping_s` whether it is there, and has `answer_s` to say so.
    """
    wakeup = Wakeup()
    task = asyncio.create_task(_listen_forever(partial(_listen, dsn, channel, wakeup, ping_s, answer_s)))
    try:
        yield wakeup
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def _listen_forever(hear: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            await hear()
        except _GONE as error:
            log.warning("no wake-ups: cannot listen to the database", error=repr(error))
            await asyncio.sleep(RECONNECT_S)


async def _listen(dsn: str, channel: str, wakeup: Wakeup, ping_s: float, answer_s: float) -> None:
    """Listen until the connection is lost, or silent: nobody else would notice that its other end is gone."""
    connection = await asyncpg.connect(dsn, timeout=answer_s, command_timeout=answer_s)
    lost = asyncio.Event()
    try:
        connection.add_termination_listener(lambda _connection: lost.set())
        await connection.add_listener(channel, lambda *_: wakeup.set())
        wakeup.set()  # what was sent before we listened
        while not lost.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(lost.wait(), ping_s)
                return
            await connection.execute("SELECT 1")
    finally:
        connection.terminate()
