"""A way to the database that can be cut, at a moment of the test's choice."""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest


class Cut:
    """Connections to the database that can be cut. The next that says `at` is cut before that arrives."""

    def __init__(self, target: str, at: bytes = b"") -> None:
        self.dsn = ""
        self.cut = False
        self.at = at
        self._target = target
        self._through: set[asyncio.Task[None]] = set()

    async def pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve a client until it goes or the connection is cut."""
        if not self.cut:
            task = asyncio.create_task(self._both_ways(reader, writer))
            self._through.add(task)
            await asyncio.wait([task])
            self._through.discard(task)
        writer.close()

    async def _both_ways(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._target)
        try:
            async with asyncio.TaskGroup() as group:
                copying = group.create_task(self._copy(there, writer))
                await self._copy(reader, back, watched=True)
                copying.cancel()
        finally:
            back.close()

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, watched: bool = False) -> None:
        with suppress(ConnectionError):
            while piece := await source.read(2**16):
                if watched and self.at and self.at in piece:
                    self.at = b""
                    break
                sink.write(piece)
                await sink.drain()
        sink.close()

    async def set(self, cut: bool) -> None:
        """Cut all connections and let no new ones in; or let them in again."""
        self.cut = cut
        for task in self._through if cut else ():
            task.cancel()


@asynccontextmanager
async def cuttable(database_url: str, at: bytes = b"") -> AsyncIterator[Cut]:
    """A way to this database until the block is left, with a DSN of its own."""
    before, host, after = database_url.partition("?host=")
    if not host:
        pytest.skip("the database is reached by TCP here; this wants its socket")
    with tempfile.TemporaryDirectory(prefix="adlatus-cut-", dir="/tmp") as folder:
        cut = Cut(f"{after.partition('&')[0]}/.s.PGSQL.5432", at)
        cut.dsn = f"{before}?host={folder}&port=5432"
        async with await asyncio.start_unix_server(cut.pass_on, f"{folder}/.s.PGSQL.5432"):
            try:
                yield cut
            finally:
                await cut.set(True)
