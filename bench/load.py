"""The load: clients in a process of their own. Every function here is one job, handed over by `site.Site.load`.

Instants are `time.perf_counter`, which counts alike in all processes of a machine.
"""

import asyncio
import re
import time
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

import orjson
import uvloop

from bench import client
from bench.client import OK, Connection, connect

DELTA: Final = b"event: thread.message.delta\n"
"""What begins every delta of the server and of the relay floor."""
CHUNK: Final = b'"delta":{"content":'
"""What every chunk of the model has that brings text."""
_NUMBER = re.compile(rb"id: ([0-9]+)\n")
_LONGEST_NUMBER = len(b"id: \n") + 20
_RUN = re.compile(rb'"id":"(run_[0-9A-Za-z]+)"')


@dataclass(frozen=True)
class Latencies:
    """The seconds of each request, and of all of them together."""

    seconds: list[float]
    elapsed_s: float

    @property
    def per_s(self) -> float:
        """Requests per second."""
        return len(self.seconds) / self.elapsed_s


@dataclass(frozen=True)
class Streams:
    """When deltas arrived, stream by stream: pairs of an instant and how many came with that read."""

    arrivals: list[list[tuple[float, int]]]
    elapsed_s: float

    @property
    def deltas(self) -> int:
        """All deltas of all streams."""
        return sum(count for stream in self.arrivals for _, count in stream)

    def between(self, start: float, end: float) -> int:
        """The deltas that arrived in a span of time."""
        return sum(count for stream in self.arrivals for at, count in stream if start <= at < end)

    def gaps(self) -> list[float]:
        """Seconds between neighbouring deltas of a stream, 0 between those of one read, while all streams run.

        Raises `RuntimeError` where they never do.
        """
        begin = max(stream[0][0] for stream in self.arrivals)
        end = min(stream[-1][0] for stream in self.arrivals)
        if end <= begin:
            begun = sum(stream[0][0] < end for stream in self.arrivals)
            raise RuntimeError(
                f"{len(self.arrivals)} streams never ran at once, the first ended when {begun} had begun"
            )
        found: list[float] = []
        for stream in self.arrivals:
            for (before, _), (at, count) in pairwise(stream):
                if begin <= before and at <= end:
                    found += [at - before, *[0.0] * (count - 1)]
        return found


def hammer(port: int, requests: Sequence[bytes], seconds: float, pause_s: float = 0.0) -> Latencies:
    """One connection per request of `requests`, which it repeats for so long, one after the other."""
    return uvloop.run(_hammer(port, requests, seconds, pause_s))


def create(port: int, requests: Sequence[bytes], connections: int = 16) -> list[str]:
    """Send each request once; the ids of the objects that they made, in order."""
    return uvloop.run(_create(port, requests, connections))


def stream(port: int, requests: Sequence[bytes], clients: int, deltas: int) -> Streams:
    """`clients` connections share the requests, each of which has to bring so many deltas.

    Raises `ConnectionError` where one does not.
    """
    return uvloop.run(_stream(port, requests, clients, deltas))


def first_deltas(targets: Sequence[tuple[int, bytes, Sequence[bytes]]]) -> list[list[float]]:
    """Seconds from a request to its first delta, one client, the targets (port, mark, requests) taking turns."""
    return uvloop.run(_first_deltas(targets))


def lags(port: int, requests: Sequence[bytes], other_port: int) -> list[float]:
    """Seconds by which each event of streams, all at once, arrives later at a reader at another server."""
    return uvloop.run(_lags(port, requests, other_port))


async def _hammer(port: int, requests: Sequence[bytes], seconds: float, pause_s: float) -> Latencies:
    taken: list[float] = []
    async with _connected([port] * len(requests)) as connections:
        begun = time.perf_counter()

        async def repeat(connection: Connection, request: bytes) -> None:
            while (sent := time.perf_counter()) < begun + seconds:
                await connection.whole(request)
                taken.append(time.perf_counter() - sent)
                if pause_s:
                    await asyncio.sleep(pause_s)

        await _together(repeat(*pair) for pair in zip(connections, requests, strict=True))
        return Latencies(taken, time.perf_counter() - begun)


async def _create(port: int, requests: Sequence[bytes], connections: int) -> list[str]:
    ids = [""] * len(requests)
    left = iter(enumerate(requests))

    async def work(connection: Connection) -> None:
        for position, request in left:
            ids[position] = orjson.loads(await connection.whole(request))["id"]

    async with _connected([port] * connections) as opened:
        await _together(work(connection) for connection in opened)
    return ids


async def _stream(port: int, requests: Sequence[bytes], clients: int, deltas: int) -> Streams:
    arrivals: list[list[tuple[float, int]]] = []
    left = iter(requests)

    async def work(connection: Connection) -> None:
        for request in left:
            arrived = await _arrivals(connection, request, DELTA)
            if (count := sum(count for _, count in arrived)) != deltas:
                raise ConnectionError(f"a stream of {deltas} deltas brought {count}")
            arrivals.append(arrived)

    async with _connected([port] * clients) as connections:
        begun = time.perf_counter()
        await _together(work(connection) for connection in connections)
        return Streams(arrivals, time.perf_counter() - begun)


async def _first_deltas(targets: Sequence[tuple[int, bytes, Sequence[bytes]]]) -> list[list[float]]:
    taken: list[list[float]] = [[] for _ in targets]
    async with _connected([port for port, _, _ in targets]) as connections:
        for turn in zip(*(requests for _, _, requests in targets), strict=True):
            for connection, request, (_, mark, _), seconds in zip(connections, turn, targets, taken, strict=True):
                sent = time.perf_counter()
                arrived = await _arrivals(connection, request, mark)
                seconds.append(arrived[0][0] - sent)
                await asyncio.sleep(0.005)  # what the server does after the end of a stream is not the next one's
    return taken


async def _lags(port: int, requests: Sequence[bytes], other_port: int) -> list[float]:
    count = len(requests)
    found: list[float] = []
    async with _connected([port] * count) as here, _connected([other_port] * count) as there:

        async def work(connection: Connection, other: Connection, sent: bytes) -> None:
            connection.send(sent)
            begun = b""
            while not (run := _RUN.search(begun)):
                begun += await connection.read()
            other.send(client.request(other_port, "GET", f"{sent.split()[1].decode()}/{run[1].decode()}/events"))
            asked = time.perf_counter()
            first, later = await asyncio.gather(_instants(connection), _instants(other))
            found.extend(later[number] - at for number, at in first.items() if at > asked)

        await _together(work(*each) for each in zip(here, there, requests, strict=True))
    return found


async def _instants(connection: Connection) -> dict[int, float]:
    """When each event of a stream arrived, by its number."""
    arrived: dict[int, float] = {}
    rest = b""
    while piece := await connection.read():
        now, rest = time.perf_counter(), rest + piece
        for number in _NUMBER.finditer(rest):
            arrived.setdefault(int(number[1]), now)
        rest = rest[-_LONGEST_NUMBER:]
    return arrived


async def _arrivals(connection: Connection, request: bytes, mark: bytes) -> list[tuple[float, int]]:
    """Read one answer to its end: when `mark` arrived, and how often."""
    arrived: list[tuple[float, int]] = []
    overlap = len(mark) - 1
    rest = b""
    connection.send(request)
    while piece := await connection.read():
        rest += piece
        if count := rest.count(mark):
            arrived.append((time.perf_counter(), count))
        rest = rest[-overlap:]
    if connection.status != OK or not arrived:
        raise ConnectionError(f"status {connection.status}, {len(arrived)} deltas, at the end: {rest!r}")
    return arrived


@asynccontextmanager
async def _connected(ports: Sequence[int]) -> AsyncIterator[list[Connection]]:
    """A connection to each port."""
    connections = [await connect(port) for port in ports]
    try:
        yield connections
    finally:
        for connection in connections:
            connection.close()


async def _together(work: Iterable[Coroutine[Any, Any, None]]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in work:
            group.create_task(coroutine)
