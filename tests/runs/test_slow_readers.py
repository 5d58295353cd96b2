"""Readers that fall behind cost a bounded amount of memory, and miss nothing."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from adlatus.store import events as log
from adlatus.store.channel import KEPT_BYTES
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.wire import events as wire
from tests.conftest import Loop
from tests.runs.stored import add_leased

FRAME = wire.frame("thread.message.delta", b'{"delta":"' + b"x" * 3000 + b'"}')
FRAMES = 4000
"""12 MB of them."""


async def read(frames: AsyncIterator[bytes]) -> list[int]:
    """The numbers of the events up to the end of the stream."""
    received = b"".join([piece async for piece in frames])
    return [int(frame[4 : frame.index(b"\n")]) for frame in received.split(b"\n\n") if frame.startswith(b"id: ")]


def test_what_is_written_of_a_run_leaves_memory_while_it_goes_on(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        lease = await add_leased(database)
        events = EventLog(database)
        events.append(lease.run_id, 0, [FRAME])
        events.execute(lease.run_id, 1)
        slow = events.follow(lease.run_id)
        first = await anext(slow)
        held = []
        for _ in range(FRAMES // 100):
            events.append(lease.run_id, 1, [FRAME] * 100)
            await events.write()
            [channel] = events._channels.values()
            held.append(sum(map(len, channel.frames)))
        assert max(held) <= KEPT_BYTES
        late = asyncio.create_task(read(events.follow(lease.run_id)))
        events.append(lease.run_id, 1, [FRAME, wire.DONE])
        pieces = [first, *[piece async for piece in slow]]
        assert max(map(len, pieces)) < 3 * 2**20
        whole = [(0 << 32) + 1, *((1 << 32) + n for n in range(1, FRAMES + 3))]
        assert await read(again(pieces)) == whole
        assert await late == whole
        await events.write()

    loop.run(scenario())


async def again(pieces: list[bytes]) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


def test_events_that_an_outage_has_kept_are_written_in_pieces(
    loop: Loop, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log, "_WRITE_BYTES", 2**20)

    async def scenario() -> None:
        leases = [await add_leased(database) for _ in range(2)]
        events = EventLog(database)
        for lease in leases:
            events.execute(lease.run_id, 1)
            events.append(lease.run_id, 1, [FRAME] * 1000)
            events.append(lease.run_id, 1, [wire.DONE])
        writes = 0
        while events._dirty:
            await events.write()
            writes += 1
        assert writes >= 6
        elsewhere = EventLog(database)
        for lease in leases:
            numbers = await read(elsewhere.follow(lease.run_id, 1 << 32))
            assert numbers == [(1 << 32) + n for n in range(1, 1002)]

    loop.run(scenario())
