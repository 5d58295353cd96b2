"""One run's events in the process that executes it: numbered, kept for a while, handed to whoever listens here."""

import asyncio
from bisect import bisect_left, bisect_right
from collections.abc import Awaitable, Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate

from adlatus.wire import events as wire

KEPT_BYTES = 2**20
"""How much of a run's events that are written stays in memory; a reader that is further behind reads the table."""
_ROW_BYTES = 2**17
"""How long a row of events becomes, unless one event alone is longer: a sixteenth of what its readers hold."""

Push = Callable[[bytes], Awaitable[None] | None]
"""Sends frames to a reader at once. What it gives back has to be awaited before there may be more."""


@dataclass
class _Listener:
    """A reader that has heard all up to `after`, if not more.

    A task that is woken for each frame would cost as much as the rest.
    """

    push: Push
    after: int
    woken: asyncio.Future[None]
    rest: Awaitable[None] | None = None

    def hear(self, frames: bytes, first: int, last: int) -> None:
        if self.woken.done() or last <= self.after:  # it reads on by itself, or knows numbers that are yet to come
            return
        if first <= self.after:
            self.wake()
            return
        try:
            self.rest = self.push(frames)
        except Exception as error:  # noqa: BLE001 - the reader's fault is not the executor's
            self.woken.set_exception(error)
            return
        self.after = last
        if self.rest:
            self.wake()

    def wake(self) -> None:
        if not self.woken.done():
            self.woken.set_result(None)


class Channel:
    """One run's events in this process, all those above number `base`, for as long as it executes here.

    Those that the first of are `written` may leave memory; then the base goes up.
    """

    def __init__(self, base: int) -> None:
        self.base = base
        self._listeners: list[_Listener] = []
        self.numbers: list[int] = []
        self.frames: list[bytes] = []
        self.size_bytes = 0
        self.written = 0
        self.partial = False  # whether something before `base` may be elsewhere
        self._breaks: list[int] = []  # numbers between which and those below others' may come: no row has both
        self.live = False
        self.attempt = 0
        self._changed: asyncio.Event | None = None

    @property
    def changed(self) -> asyncio.Event:
        """What is set at the next change; made only where somebody waits."""
        if self._changed is None:
            self._changed = asyncio.Event()
        return self._changed

    def append(self, attempt: int, frames: Iterable[bytes]) -> None:
        """Number frames and hand them over, to those who listen at once.

        Where attempts were left out another process may have told of them: who has not heard that reads the table.
        """
        number = self.numbers[-1] if self.numbers else self.base
        if attempt - (number >> 32) > 1:
            self.base, self.partial = attempt << 32, True
            self._breaks.append(self.base)
            self.wake()
        number = max(attempt << 32, number)
        told = wire.numbered(number + 1, frames)
        last, whole = number + len(told), b"".join(told)
        self.numbers += range(number + 1, last + 1)
        self.frames += told
        self.size_bytes += len(whole)
        if wire.DONE in whole:
            self.wake()
            return
        for listener in self._listeners:
            listener.hear(whole, number + 1, last)
        self._wake_waiting()

    async def listen(self, after: int, push: Push) -> int:
        """Give every frame after a number, of which there are none yet, to `push` as it comes, while that goes.

        Ends where a stream ends, where this process adds no more, and where `push` has to be waited for. The number of
        the last frame that was given. Raises what `push` raises.
        """
        listener = _Listener(push, after, asyncio.get_running_loop().create_future())
        self._listeners.append(listener)
        try:
            await listener.woken
        finally:
            self._listeners.remove(listener)
        if listener.rest:
            await listener.rest
        return listener.after

    def wake(self) -> None:
        """Something has changed beyond more frames."""
        for listener in self._listeners:
            listener.wake()
        self._wake_waiting()

    def _wake_waiting(self) -> None:
        if self._changed:
            self._changed.set()
            self._changed = None

    def unwritten(self) -> Iterator[tuple[int, int, int, bytes]]:
        """What is not written yet, as rows: how much is once it is, the first and the last number, and the frames."""
        start = self.written
        ends_bytes = list(accumulate(map(len, self.frames[start:])))
        while start < len(self.frames):
            told_bytes = ends_bytes[start - self.written - 1] if start > self.written else 0
            end = min(self.written + bisect_left(ends_bytes, told_bytes + _ROW_BYTES) + 1, len(self.frames))
            breaks = (bisect_right(self.numbers, number) for number in self._breaks)
            end = min([end, *(place for place in breaks if place > start)])
            yield end, self.numbers[start], self.numbers[end - 1], b"".join(self.frames[start:end])
            start = end

    def forget(self) -> None:
        """Let go the oldest of what is written, as far as it is more than is kept."""
        gone = 0
        while self.size_bytes > KEPT_BYTES and gone < self.written:
            self.size_bytes -= len(self.frames[gone])
            gone += 1
        if gone:
            self.base = max(self.base, self.numbers[gone - 1])
            del self.numbers[:gone], self.frames[:gone]
            self.written -= gone
            self.partial = True

    def since(self, after: int) -> tuple[bytes, int]:
        """The frames after a number, up to the first end of a stream, and the number of the last of them."""
        if not self.numbers or self.numbers[-1] <= after:
            return b"", after
        start = bisect_right(self.numbers, after)
        new = self.frames[start:]
        for place, frame in enumerate(new, 1):
            if frame.endswith(wire.DONE):
                new = new[:place]
                break
        return b"".join(new), self.numbers[start + len(new) - 1]
