"""The event log of runs: memory first, table behind. Knows frames and numbers, not what the events mean.

The executing process numbers a run's events (`attempt · 2^32 + n`; attempt 0 is the creation) and hands them to its
local readers at once. Every 100 ms it writes what is new of all its runs in one statement. `follow` hides where the
events come from: memory, the table, or, where events are missing, the run as it is now.
"""

import asyncio
import time
from bisect import bisect_right
from collections.abc import AsyncIterator, Iterable
from contextlib import suppress

import structlog
from sqlalchemy import ARRAY, BigInteger, ClauseElement, LargeBinary, Text, delete, func, select, text
from sqlalchemy.dialects.postgresql import insert

from adlatus.errors import Unavailable, body, not_found
from adlatus.store.db import Connection, Row, param
from adlatus.store.tables import ENDED, run_events, runs
from adlatus.wire import events as wire
from adlatus.wire.runs import Run, RunStatus

log = structlog.get_logger(__name__)

FLUSH_S = 0.1
PRUNE_S = 3600.0
OUTAGE_S = 1.0
SILENCE_S = 1.0
"""How long an ended run may be silent before its readers get its current object in place of missing events."""

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
    .limit(64)
)
_RUN = select(runs).where(runs.c.id == param("run_id", Text()))
_PRUNE = delete(run_events).where(run_events.c.written_at < func.now() - text("interval '24 hours'"))


class _Channel:
    """One run's events in this process, all those above number `base`, for as long as it executes here."""

    def __init__(self, base: int) -> None:
        self.base = base
        self.numbers: list[int] = []
        self.frames: list[bytes] = []
        self.written = 0
        self.live = False
        self.changed = asyncio.Event()

    def append(self, attempt: int, frames: Iterable[bytes]) -> None:
        number = max(attempt << 32, self.numbers[-1] if self.numbers else 0)
        for frame in frames:
            number += 1
            self.numbers.append(number)
            self.frames.append(wire.numbered(number, frame))
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def since(self, after: int) -> tuple[bytes, int]:
        """The frames after a number, up to the first end of a stream, and the number of the last of them."""
        start = stop = bisect_right(self.numbers, after)
        while stop < len(self.frames):
            stop += 1
            if self.frames[stop - 1].endswith(wire.DONE):
                break
        return b"".join(self.frames[start:stop]), self.numbers[stop - 1] if stop > start else after


class EventLog:
    """The events of the runs of one process, and the way to anybody else's."""

    def __init__(self, database: Connection) -> None:
        self._database = database
        self._channels: dict[str, _Channel] = {}
        self._dirty: dict[str, _Channel] = {}
        self._stopped = False
        self._writing = asyncio.Lock()

    def append(self, run_id: str, attempt: int, frames: Iterable[bytes]) -> None:
        """Number frames and hand them to local readers; never waits."""
        channel = self._channels.setdefault(run_id, _Channel(attempt << 32))
        channel.base = min(channel.base, attempt << 32)  # it may execute here before its creation is told
        channel.append(attempt, frames)
        self._dirty[run_id] = channel

    def execute(self, run_id: str, attempt: int) -> None:
        """This process executes the run from this attempt on: its readers here need no database."""
        self._channels.setdefault(run_id, _Channel(attempt << 32)).live = True

    def leave(self, run_id: str) -> None:
        """This process adds no more events to the run; memory is freed once they are written."""
        if channel := self._channels.get(run_id):
            channel.live = False
            self._dirty[run_id] = channel
            channel.wake()

    async def follow(self, run_id: str, after: int = 0) -> AsyncIterator[bytes]:
        """The frames of a run after a number, as they come, up to the next end of its stream.

        Ends early with an `error` event when this process stops.
        """
        quiet_since = time.monotonic()
        while True:
            channel = self._channels.get(run_id)
            changed = channel.changed if channel else None
            here = channel is not None and after >= channel.base
            frames, last = channel.since(after) if channel and here else (b"", after)
            if not frames and not (channel and here and channel.live):
                frames, last = await self._stored(run_id, after)
            if frames:
                after, quiet_since = last, time.monotonic()
                yield frames
            elif channel and not here:
                after = channel.base  # of what came before, nothing is kept
            elif self._stopped:
                frames = wire.frame("error", wire.compact(body(STOPPED))) + wire.DONE
                yield frames
            elif channel and channel.live and changed:
                await changed.wait()
            elif time.monotonic() - quiet_since > SILENCE_S and (frames := await self._ending(run_id)):
                yield frames
            else:
                with suppress(TimeoutError):
                    await asyncio.wait_for(changed.wait() if changed else asyncio.sleep(FLUSH_S), FLUSH_S)
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
                    await self._database.fetch(_PRUNE)
            except Unavailable:
                log.warning("events are kept in memory until the database answers again", runs=len(self._dirty))

    async def write(self) -> None:
        """Write the new events of all runs in one statement, one row per run."""
        async with self._writing:
            await self._write()

    async def _write(self) -> None:
        batch = [(run_id, channel, len(channel.frames)) for run_id, channel in self._dirty.items()]
        rows = [
            (run_id, c.numbers[c.written], c.numbers[end - 1], b"".join(c.frames[c.written : end]))
            for run_id, c, end in batch
            if end > c.written
        ]
        if rows:
            run_ids, firsts, lasts, frames = map(list, zip(*rows, strict=True))
            await self._database.fetch(_WRITE, run_ids=run_ids, firsts=firsts, lasts=lasts, frames=frames)
        for run_id, channel, end in batch:
            channel.written = end
            if end == len(channel.frames):
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
            await self.write()

    async def _stored(self, run_id: str, after: int) -> tuple[bytes, int]:
        frames = b""
        for row in await self._fetch_patiently(_READ, run_id=run_id, after=after):
            part = row["frames"] if row["first_number"] > after else _after(row["frames"], after)
            frames, after = frames + part, row["last_number"]
            if (end := frames.find(wire.DONE)) >= 0:
                return frames[: end + len(wire.DONE)], after
        return frames, after

    async def _fetch_patiently(self, statement: ClauseElement, **params: object) -> list[Row]:
        """The rows of a statement; while the database does not answer, a reader waits for it."""
        while True:
            try:
                return await self._database.fetch(statement, **params)
            except Unavailable:
                await asyncio.sleep(OUTAGE_S)

    async def _ending(self, run_id: str) -> bytes:
        """The current object of a run that has ended or waits for its client, and the end of the stream."""
        rows = await self._fetch_patiently(_RUN, run_id=run_id)
        if not rows:
            gone = not_found("run", run_id)
            return wire.frame("error", wire.compact(body(gone))) + wire.DONE
        run = Run.of(rows[0])
        if run.status not in (*ENDED, RunStatus.REQUIRES_ACTION):
            return b""
        return wire.frame(f"thread.run.{run.status}", run.json_bytes()) + wire.DONE


def _after(frames: bytes, after: int) -> bytes:
    """The frames of a row whose numbers are above `after`."""
    kept = [frame for frame in frames.split(b"\n\n") if frame and int(frame[4 : frame.index(b"\n")]) > after]
    return b"".join(frame + b"\n\n" for frame in kept)
