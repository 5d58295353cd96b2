"""The embedded index: Qdrant Edge in a folder that one server owns, run by a process of its own (`edge_engine`).

Questions are answered one after the other. Should the engine's process die, what was asked of it fails, and the next
question starts it again.
"""

import asyncio
import os
import pickle
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from itertools import count
from pathlib import Path
from secrets import token_hex
from typing import Any

import structlog

from adlatus.backends.vectors import points
from adlatus.backends.vectors.edge_engine import HEADER
from adlatus.backends.vectors.filters import Scalar
from adlatus.backends.vectors.protocol import FORMAT, Chunk, Hit, Search, Space
from adlatus.errors import StartupError, Unavailable

log = structlog.get_logger(__name__)

_CLOSE_S = 10
_DIED = "the engine's process has died"
_FAILED = "The vector index of this server does not answer; its log has the details."


@asynccontextmanager
async def open_edge(folder: Path, *, when_needed: bool = False) -> AsyncIterator["EdgeIndex"]:
    """Own the index of a folder, which is made unless it is there; `when_needed`: only once something is asked.

    Raises `StartupError` with advice where another process owns it, or where it cannot be read.
    """
    index = EdgeIndex(folder)
    if not when_needed:
        await index.start()
    try:
        yield index
    finally:
        await index.close()


def identity(folder: Path) -> str:
    """What the index of a folder is known by in this format, made with it. Raises `StartupError` with advice."""
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        path = folder / f"id-{FORMAT}"
        with suppress(FileExistsError), path.open("x", encoding="ascii") as file:
            file.write(token_hex(16))
        return path.read_text("ascii")
    except (OSError, UnicodeDecodeError) as error:
        raise StartupError(f"The folder {folder} of the vector index cannot be used: {error}.") from error


class EdgeIndex:
    """A `VectorIndex` in a folder; made by `open_edge`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._starting = asyncio.Lock()
        self._engine: _Engine | None = None
        self._closed = False

    async def start(self) -> None:
        """Start the engine. Raises `StartupError` with its advice."""
        self._engine = await _start(self._folder)

    async def close(self) -> None:
        """Let the engine finish what it was asked for."""
        async with self._starting:
            self._closed = True
            if self._engine is not None:
                await self._engine.close()

    @property
    def engine_pid(self) -> int | None:
        """The process that runs the engine."""
        return self._engine.process.pid if self._engine else None

    async def _ask(self, method: str, *arguments: object) -> Any:
        engine = self._engine
        if engine is None or engine.gone:
            engine = await self._restarted()
        return await engine.ask(method, *arguments)

    async def _restarted(self) -> "_Engine":
        async with self._starting:
            if self._closed:
                raise Unavailable("The vector index of this server is closed.")
            if self._engine is None or self._engine.gone:
                if self._engine is not None:
                    log.warning("vector engine starts again")
                    await self._engine.close()  # only then its lock is free
                try:
                    await self.start()
                except StartupError as error:
                    log.error("vector engine does not start", error=str(error))
                    raise Unavailable(_FAILED) from error
            assert self._engine is not None, "it has just been started"
            return self._engine

    async def ping(self) -> None:
        """Return if the engine answers, or has not been needed yet."""
        if self._engine is not None:
            await self._ask("ping")

    async def ensure(self, space: Space) -> None:
        """Make the collection of a space unless it is there."""
        await self._ask("ensure", space)

    async def upsert(self, space: Space, chunks: Sequence[Chunk]) -> None:
        """Add or replace chunks, in portions between which searches are answered."""
        points.check(space, chunks)
        for batch in points.batches(chunks):
            await self._ask("upsert", space, batch)
        await self._ask("flush", space)

    async def delete(self, vector_store_id: str, file_id: str | None = None) -> None:
        """Remove what a store holds of a file, or all of it."""
        await self._ask("delete", vector_store_id, file_id)

    async def set_attributes(self, vector_store_id: str, file_id: str, attributes: Mapping[str, Scalar]) -> None:
        """Replace the attributes of a file in a store."""
        await self._ask("set_attributes", vector_store_id, file_id, dict(attributes))

    async def count(self, space: Space, vector_store_id: str, file_id: str | None = None) -> int:
        """How many chunks there are."""
        found: int = await self._ask("count", space, vector_store_id, file_id)
        return found

    async def chunks(self, space: Space, vector_store_id: str, file_id: str, start: int, limit: int) -> list[Chunk]:
        """The chunks of a file, in order."""
        ids = [points.point_id(vector_store_id, file_id, index) for index in range(start, start + limit)]
        found: list[Chunk] = await self._ask("chunks", space, ids)
        return sorted(found, key=lambda chunk: chunk.index)

    async def languages(self, space: Space, vector_store_ids: Sequence[str]) -> frozenset[str]:
        """The languages of the chunks of some stores."""
        languages: frozenset[str] = await self._ask("languages", space, list(vector_store_ids))
        return languages

    async def search(self, space: Space, search: Search) -> list[Hit]:
        """The best hits, best first."""
        points.check_search(space, search)
        hits: list[Hit] = await self._ask("search", space, search)
        return hits

    async def optimize(self) -> None:
        """Merge segments and build graphs. Searches wait until it is done."""
        await self._ask("optimize")


class _Engine:
    """A running process of `edge_engine` and the questions that it has not answered yet."""

    def __init__(self, process: Process) -> None:
        self.process = process
        self.gone = False
        self.ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._numbers = count(1)
        self._asked: dict[int, asyncio.Future[Any]] = {0: self.ready}
        self._reading = asyncio.create_task(self._read())

    async def ask(self, method: str, *arguments: object) -> Any:
        """The answer of the engine. Raises `Unavailable` where it fails, or dies before it answers."""
        if self.gone:
            raise Unavailable(_FAILED)
        number = next(self._numbers)
        answer = self._asked[number] = asyncio.get_running_loop().create_future()
        pickled = pickle.dumps((number, method, arguments), pickle.HIGHEST_PROTOCOL)
        assert self.process.stdin is not None, "a pipe"
        with suppress(ConnectionError):  # then its end is read too
            self.process.stdin.write(HEADER.pack(len(pickled)) + pickled)
            await self.process.stdin.drain()
        value, fault = await answer
        if fault is not None:
            log.error("vector engine fails", method=method, error=fault)
            raise Unavailable(_FAILED)
        return value

    async def _read(self) -> None:
        stdout = self.process.stdout
        assert stdout is not None, "a pipe"
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                size = HEADER.unpack(await stdout.readexactly(HEADER.size))[0]
                number, value, fault = pickle.loads(await stdout.readexactly(size))  # noqa: S301 - of our own process
                answer = self._asked.pop(number)
                if not answer.done():  # nobody may be waiting any longer
                    answer.set_result((value, fault))
        self.gone = True
        for answer in self._asked.values():
            if not answer.done():
                answer.set_result((None, _DIED))

    async def close(self) -> None:
        """End the process, by force where it is in the middle of something long: its log brings all back."""
        assert self.process.stdin is not None, "a pipe"
        self.process.stdin.close()
        try:
            async with asyncio.timeout(_CLOSE_S):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()
        await self._reading


async def _start(folder: Path) -> _Engine:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ADLATUS_")}
    command = (sys.executable, "-P", "-m", "adlatus.backends.vectors.edge_engine", str(folder), str(os.getpid()))
    process = await asyncio.create_subprocess_exec(*command, stdin=PIPE, stdout=PIPE, env=environment)
    engine = _Engine(process)
    try:
        _, fault = await engine.ready
        if fault is not None:
            raise StartupError(fault)
    except BaseException:
        await asyncio.shield(engine.close())
        raise
    return engine
