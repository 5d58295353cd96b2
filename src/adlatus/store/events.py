"""The event log of runs: memory first, table behind. Knows frames and numbers, not what the events mean.

The executing process numbers a run's events (`attempt · 2^32 + n`; attempt 0 is the creation) and hands them to its
local readers at once. Every 100 ms it writes what is new of all its runs in one statement. `follow` hides where the
events come from: memory, the table, or, where events are missing, the run's objects as they are now.
"""

import asyncio
import time
import zlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import structlog
from sqlalchemy import ARRAY, BigInteger, LargeBinary, Text, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from adlatus.errors import ApiError, Unavailable, body, not_found
from adlatus.store import snapshot
from adlatus.store.channel import Channel, Push
from adlatus.store.db import Connection, Transaction, param
from adlatus.store.tables import run_events
from adlatus.wire import events as wire

log = structlog.get_logger(__name__)
Result = TypeVar("Result")

FLUSH_S = 0.1
AWAIT_S, LOOK_S = 0.075, 0.04
"""How long a reader of the table waits once it has read something, and once it has not: all in all, what an executor
says is heard in another process within 150 ms."""
PACKED_BYTES = 2**13
PRUNE_S = 3600.0
OUTAGE_S = 1.0
SILENCE_S = 1.0
"""How long a reader hears nothing before it looks at the run, and a stopped run is silent before events are missing."""

_WRITE_BYTES = 2**23
"""How much is written at a time: after an outage there may be more than a statement has time for."""

STOPPED = Unavailable("The server is stopping; the run goes on elsewhere or after the restart. Retrieve it to see.")

_new_rows = func.unnest(
    param("run_ids", ARRAY(Text)),
    param("firsts", ARRAY(BigInteger)),
    param("lasts", ARRAY(BigInteger)),
    param("frames", ARRAY(LargeBinary)),
).table_valued("run_id", "first_number", "last_number", "frames", name="new_rows")
_insertion = insert(run_events).from_select(
    ["run_id", "first_number", "last_number", "frames"], select(*_new_rows.render_derived().c)
)
# A row is there already if its write was interrupted after the commit; what is written now has all of it and more
_WRITE = _insertion.on_conflict_do_update(
    constraint=run_events.primary_key,
    set_={"last_number": _insertion.excluded.last_number, "frames": _insertion.excluded.frames},
)
_READ = (
    select(run_events.c.first_number, run_events.c.last_number, run_events.c.frames)
    .where(run_events.c.run_id == param("run_id", Text()), run_events.c.last_number > param("after", BigInteger()))
    .order_by(run_events.c.first_number)
    .limit(16)
)
_READ_ALL = (
    select(run_events.c.frames)
    .where(run_events.c.run_id == param("run_id", Text()))
    .order_by(run_events.c.first_number)
)
_TOLD_WHEN_IT_ENDS = tuple(
    b"event: thread.%b\n" % what for what in (b"message.in_progress", b"run.step.in_progress", b"run.cancelling")
)
_a_day_ago = func.now() - text("interval '24 hours'")
_later = run_events.alias("later")
# All rows of a run go together, or its readers would find the middle of a stream
_silent_for_a_day = (
    select(run_events.c.run_id)
    .where(
        run_events.c.written_at < _a_day_ago,
        ~select(_later.c.run_id)
        .where(_later.c.run_id == run_events.c.run_id, _later.c.written_at >= _a_day_ago)
        .exists(),
    )
    .limit(1000)
)
_PRUNE = delete(run_events).where(run_events.c.run_id.in_(_silent_for_a_day)).returning(run_events.c.run_id)


@dataclass
class _Reader:
    """Where a reader of a run is. `stopped` is the attempt in which it saw the run stopped, and when it did first."""

    run_id: str
    after: int
    look_at: float = 0.0
    waited: bool = False
    stopped: tuple[int, float] | None = None

    def heard(self, last: int) -> None:
        self.after, self.look_at = last, time.monotonic() + SILENCE_S
        self.waited, self.stopped = False, None

    def silent_since(self, state: snapshot.State) -> float:
        """Since when the run has been stopped, as far as this reader knows, without a word more."""
        if self.stopped is None or self.stopped[0] != state.attempt:
            self.stopped = state.attempt, time.monotonic()
        return self.stopped[1]


class EventLog:
    """The events of the runs of one process, and the way to anybody else's."""

    def __init__(self, database: Connection) -> None:
        self._database = database
        self._channels: dict[str, Channel] = {}
        self._dirty: dict[str, Channel] = {}
        self._stopped = False
        self._writing = asyncio.Lock()

    def append(self, run_id: str, attempt: int, frames: Iterable[bytes]) -> None:
        """Number frames and hand them to local readers; never waits."""
        channel = self._channel(run_id, attempt)
        if channel.base > attempt << 32 and not channel.partial:
            channel.base = attempt << 32  # it may execute here before its creation is told
        channel.append(attempt, frames)
        self._dirty[run_id] = channel

    async def tell(self, run_id: str, attempt: int, frames: Iterable[bytes]) -> None:
        """Append all events of an attempt in which this process does not execute the run, and write them at once.

        So readers of the table find them before those of the executor, which may have begun already. While the database
        does not answer they stay in memory.
        """
        self.append(run_id, attempt, frames)
        with suppress(Unavailable, TimeoutError):
            async with asyncio.timeout(OUTAGE_S):
                await self.write()

    async def store(self, tx: Transaction, run_id: str, attempt: int, frames: Sequence[bytes]) -> None:
        """Write all events of an attempt in the transaction that they are of; they are told here after its commit.

        So nobody misses them, even if this process dies before it has told them.
        """
        first = (attempt << 32) + 1
        told = wire.numbered(first, frames)
        last, stored = first + len(told) - 1, _packed(b"".join(told))
        await tx.fetch(_WRITE, run_ids=[run_id], firsts=[first], lasts=[last], frames=[stored])

    def execute(self, run_id: str, attempt: int) -> None:
        """This process executes the run from this attempt on: its readers here need no database."""
        channel = self._channel(run_id, attempt)
        channel.live, channel.attempt = True, max(channel.attempt, attempt)

    def leave(self, run_id: str, attempt: int) -> None:
        """This process adds no more events to the run; memory is freed once they are written.

        Nothing happens if a later attempt executes here by now: its executor may be faster than the end of the one
        before it.
        """
        channel = self._channels.get(run_id)
        if channel and channel.attempt <= attempt:
            channel.live = False
            self._dirty[run_id] = channel
            channel.wake()

    async def untold(self, run_id: str) -> list[bytes]:
        """The frames of what has ended of a run and of its state, as far as no stored event tells them.

        Such are left by an executor that died between a commit and the writing of its events.
        """
        state = await snapshot.state(self._database, run_id)
        if state is None:
            return []
        told = b"".join(unpacked(row["frames"]) for row in await self._database.fetch(_READ_ALL, run_id=run_id))
        shown = state.ending() + await snapshot.parts(self._database, state)
        frames = [frame + b"\n\n" for frame in shown.split(b"\n\n")[:-1]]
        return [frame for frame in frames if frame not in told and not frame.startswith(_TOLD_WHEN_IT_ENDS)]

    async def follow(self, run_id: str, after: int = 0, push: Push | None = None) -> AsyncGenerator[bytes]:
        """The frames of a run after a number, as they come, up to the next end of its stream.

        With `push` those of a run that executes here are given to that instead, as far as that can be done without
        waiting: in their order among those that are yielded.

        Where events are missing, the run's current objects come in their place: its steps and messages, the run, and
        `done` if it has stopped; else the stream goes on after the hole. A reader that has had everything of a stopped
        run gets the run and `done`: its number is not below that of the `done` that the table ends with
        (`snapshot.State.end`). What stands in for events has no `id:` line: the reader comes back to the last that it
        had. Ends early with an `error` event when this process stops or the run is gone.
        """
        reader = _Reader(run_id, after)
        while True:
            channel = self._channels.get(run_id)
            changed = channel.changed if channel else None
            here = channel if channel and reader.after >= channel.base else None
            live = here is not None and here.live
            frames, last = here.since(reader.after) if here else (b"", reader.after)
            if not frames and not live:
                frames, last = await self._stored(run_id, reader.after)
                if channel and not here and last == reader.after:
                    last = channel.base  # whatever came before is nowhere
            if last > reader.after:
                if not frames and not _adjoins(reader.after, last + 1):
                    frames = await self._in_place_of_missing(run_id)
                reader.heard(last)
            elif self._stopped:
                frames = _error(STOPPED)
            elif live and channel and push:
                reader.heard(await channel.listen(reader.after, push))
            elif live and changed:
                await changed.wait()
            elif not (frames := await self._look(reader)):
                with suppress(TimeoutError):
                    wait_s = LOOK_S if reader.waited else AWAIT_S
                    reader.waited = True
                    await asyncio.wait_for(changed.wait() if changed else asyncio.sleep(wait_s), wait_s)
            if frames:
                yield frames
            if frames.endswith(wire.DONE):
                return

    async def write_forever(self) -> None:
        """Write what is new every 100 ms, and prune what is older than a day, until cancelled."""
        prune_at = time.monotonic() + 60
        while True:
            await asyncio.sleep(FLUSH_S)
            try:
                await self.write()
                if time.monotonic() > prune_at:
                    prune_at = time.monotonic() + PRUNE_S
                    await self.prune()
            except Unavailable:
                log.warning("events are kept in memory until the database answers again", runs=len(self._dirty))
                await asyncio.sleep(OUTAGE_S)
            except Exception:
                log.exception("events are kept in memory; this is a fault", runs=len(self._dirty))

    async def write(self) -> None:
        """Write the new events of all runs in one statement, one row per run."""
        async with self._writing:
            await self._write()

    async def prune(self) -> None:
        """Delete the events of runs of which nothing was told for a day."""
        while await self._database.fetch(_PRUNE):
            pass

    async def _write(self) -> None:
        dirty = list(self._dirty.items())
        written, rows, size_bytes = {}, [], 0
        for run_id, channel in dirty:
            for end, first, last, frames in channel.unwritten():
                if size_bytes >= _WRITE_BYTES:
                    break
                written[run_id] = end
                rows.append((run_id, first, last, _packed(frames)))
                size_bytes += len(frames)
        if rows:
            run_ids, firsts, lasts, all_frames = map(list, zip(*rows, strict=True))
            await self._database.fetch(_WRITE, run_ids=run_ids, firsts=firsts, lasts=lasts, frames=all_frames)
        for run_id, channel in dirty:
            channel.written = written.get(run_id, channel.written)
            channel.forget()
            if channel.written == len(channel.frames):
                del self._dirty[run_id]
                if not channel.live:
                    del self._channels[run_id]

    async def stop(self) -> None:
        """End the streams of all readers here and write what is left."""
        self._stopped = True
        for channel in self._channels.values():
            channel.live = False
            channel.wake()
        with suppress(Unavailable):
            while self._dirty:
                await self.write()

    def _channel(self, run_id: str, attempt: int) -> Channel:
        if (channel := self._channels.get(run_id)) is None:
            channel = self._channels[run_id] = Channel(attempt << 32)
        return channel

    async def _stored(self, run_id: str, after: int) -> tuple[bytes, int]:
        """The stored frames after a number, up to the first end or hole, and the number up to which that goes."""
        frames = b""
        for row in await _patiently(partial(self._database.fetch, _READ, run_id=run_id, after=after)):
            first = row["first_number"]
            if first > after and not _adjoins(after, first):
                return frames, after if frames else first - 1
            new = unpacked(row["frames"])
            frames += new if first > after else _after(new, after)
            after = row["last_number"]
            if (end := frames.find(wire.DONE)) >= 0:
                return frames[: end + len(wire.DONE)], after
        return frames, after

    async def _look(self, reader: _Reader) -> bytes:
        """What a reader gets that has heard nothing for a while: mostly nothing, else the end of its stream."""
        if time.monotonic() < reader.look_at:
            return b""
        state = await _patiently(partial(snapshot.state, self._database, reader.run_id))
        if state is None:
            return _error(not_found("run", reader.run_id))
        if state.end is not None and state.end <= reader.after:
            return state.ending()
        now = time.monotonic()
        reader.look_at = now + (FLUSH_S if state.stopped else SILENCE_S)
        if state.stopped and now - reader.silent_since(state) > SILENCE_S:
            return await self._in_place_of_missing(reader.run_id)
        return b""

    async def _in_place_of_missing(self, run_id: str) -> bytes:
        """The current objects of a run, the run last, and the end of its stream if the run has stopped."""
        state = await _patiently(partial(snapshot.state, self._database, run_id))
        if state is None:
            return _error(not_found("run", run_id))
        return await _patiently(partial(snapshot.parts, self._database, state)) + state.ending()


async def _patiently(ask: Callable[[], Awaitable[Result]]) -> Result:
    """What the database says; while it does not answer, a reader waits for it."""
    while True:
        try:
            return await ask()
        except Unavailable:
            await asyncio.sleep(OUTAGE_S)


def _error(error: ApiError) -> bytes:
    """The end of a stream that ends early."""
    return wire.frame("error", wire.compact(body(error))) + wire.DONE


def _adjoins(after: int, number: int) -> bool:
    """Whether no event is known to be missing between two numbers; an attempt may have ended anywhere."""
    return number == after + 1 or (after > 0 and number & 0xFFFFFFFF == 1)


def _packed(frames: bytes) -> bytes:
    """Frames as a row has them: those of a burst compressed, which costs less than to store them as they are."""
    return zlib.compress(frames, 1) if len(frames) > PACKED_BYTES else frames


def unpacked(stored: bytes) -> bytes:
    """The frames of a row."""
    return stored if stored.startswith(b"id:") else zlib.decompress(stored)


def _after(frames: bytes, after: int) -> bytes:
    """The frames of a row whose numbers are above `after`."""
    kept = [frame for frame in frames.split(b"\n\n") if frame and int(frame[4 : frame.index(b"\n")]) > after]
    return b"".join(frame + b"\n\n" for frame in kept)
