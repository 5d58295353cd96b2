"""The sandboxes of a server process: which thread has which, warm ones in reserve, the end of those nobody uses.

A sandbox belongs to one thread from its first use to its end and never to another. One call at a time per thread.
"""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import structlog

from adlatus.backends.sandbox.engine import Engine, SandboxUnavailableError
from adlatus.backends.sandbox.session import Sandbox

log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Limits:
    """How many sandboxes, and for how long. `warm` ones wait beyond the `sessions` in use."""

    warm: int = 2
    sessions: int = 40
    idle_s: float = 3600
    wait_s: float = 60
    """How long a thread waits for a place while all are executing."""
    turn_s: float = 30
    """How often sandboxes are looked for that nobody has used for too long."""


@dataclass
class _Slot:
    """What one thread has."""

    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    sandbox: Sandbox | None = None
    has_place: bool = False
    """Whether it counts as one of the sessions: from before its sandbox is opened."""
    last_used: float = 0.0
    wanted_by: int = 0
    has_lost: bool = False

    @property
    def is_idle(self) -> bool:
        return self.sandbox is not None and not self.wanted_by

    def drop(self, *, has_lost: bool) -> Sandbox | None:
        """The sandbox, which is the slot's no more."""
        sandbox, self.sandbox, self.has_place, self.has_lost = self.sandbox, None, False, has_lost
        return sandbox


class Sandboxes:
    """Hands out sandboxes; `run` keeps them, and ends with all of them closed."""

    def __init__(self, engine: Engine, limits: Limits | None = None) -> None:
        self._engine = engine
        self._limits = limits or Limits()
        self._slots: dict[str, _Slot] = {}
        self._warm: list[Sandbox] = []
        self._needs_warm = asyncio.Event()
        self._freed = asyncio.Event()

    @property
    def engine(self) -> str:
        """`docker` or `bubblewrap`."""
        return self._engine.name

    @property
    def lacks(self) -> tuple[str, ...]:
        """What sandboxes of this engine do not protect from, in sentences for people."""
        return self._engine.lacks

    @property
    def threads(self) -> frozenset[str]:
        """The threads that have a sandbox."""
        return frozenset(thread for thread, slot in self._slots.items() if slot.sandbox)

    @property
    def warm(self) -> int:
        """How many sandboxes wait for a thread."""
        return len(self._warm)

    @property
    def busy(self) -> int:
        """How many sandboxes somebody uses or waits for."""
        return sum(slot.sandbox is not None and slot.wanted_by > 0 for slot in self._slots.values())

    @property
    def idle(self) -> int:
        """How many sandboxes wait for the next call of their threads."""
        return sum(slot.is_idle for slot in self._slots.values())

    async def check(self) -> None:
        """Raise `SandboxUnavailableError` if sandboxes cannot be had now."""
        await self._engine.check()

    @asynccontextmanager
    async def use(self, thread_id: str) -> AsyncIterator[Sandbox]:
        """The sandbox of a thread, for one call at a time. Raises `SandboxUnavailableError`.

        A new one has no files: `names` tells what was put. It says by `replaces_lost` that the thread had one before.
        """
        slot = self._slots.setdefault(thread_id, _Slot())
        slot.wanted_by += 1
        try:
            async with slot.lock:
                try:
                    yield await self._ready(slot)
                finally:
                    if slot.sandbox and slot.sandbox.is_lost:
                        slot.drop(has_lost=True)
        finally:
            slot.wanted_by -= 1
            slot.last_used = time.monotonic()
            self._forget(thread_id, slot)
            self._freed.set()

    async def discard(self, thread_id: str) -> None:
        """Destroy the sandbox of a thread, if it has one, once nobody uses it."""
        slot = self._slots.get(thread_id)
        if slot is None:
            return
        async with slot.lock:
            sandbox = slot.drop(has_lost=False)
        self._forget(thread_id, slot)
        self._freed.set()
        if sandbox:
            await sandbox.close()

    def _forget(self, thread_id: str, slot: _Slot) -> None:
        """Let go of a slot that says nothing any more."""
        if self._slots.get(thread_id) is slot and not (slot.wanted_by or slot.sandbox or slot.has_lost):
            del self._slots[thread_id]

    async def _ready(self, slot: _Slot) -> Sandbox:
        """The living sandbox of a slot whose lock is held."""
        if slot.sandbox and await slot.sandbox.is_alive():
            return slot.sandbox
        if slot.sandbox:
            slot.drop(has_lost=True)
        await self._take_place(slot)
        try:
            slot.sandbox = await self._take()
        except BaseException:
            slot.has_place = False
            raise
        slot.sandbox.replaces_lost, slot.has_lost = slot.has_lost, False
        return slot.sandbox

    async def _take(self) -> Sandbox:
        while self._warm:
            sandbox = self._warm.pop(0)
            self._needs_warm.set()
            if await sandbox.is_alive():
                return sandbox
        return await Sandbox(self._engine).start()

    async def _take_place(self, slot: _Slot) -> None:
        """Wait until another sandbox may be made: the one that was not used for the longest time goes."""
        give_up_at = asyncio.get_running_loop().time() + self._limits.wait_s
        while sum(other.has_place for other in self._slots.values()) >= self._limits.sessions:
            if idle := [other for other in self._slots.values() if other.is_idle]:
                evicted = min(idle, key=lambda other: other.last_used).drop(has_lost=True)
                assert evicted
                await evicted.close()
                continue
            self._freed.clear()
            try:
                async with asyncio.timeout_at(give_up_at):
                    await self._freed.wait()
            except TimeoutError:
                raise SandboxUnavailableError(
                    f"All {self._limits.sessions} sandboxes of this server are executing; try again later."
                ) from None
        slot.has_place = True

    # --- Keeping

    async def run(self) -> None:
        """Keep warm sandboxes in reserve and end idle ones, until cancelled."""
        while True:
            try:
                await self._expire()
                await self._fill()
            except SandboxUnavailableError as error:
                log.warning("no sandbox can be kept warm", reason=str(error))
                self._needs_warm.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._limits.turn_s):
                    await self._needs_warm.wait()

    async def _fill(self) -> None:
        self._needs_warm.clear()
        while len(self._warm) < self._limits.warm:
            self._warm.append(await Sandbox(self._engine).start())

    async def _expire(self) -> None:
        latest = time.monotonic() - self._limits.idle_s
        for thread in [
            thread for thread, slot in self._slots.items() if not slot.wanted_by and slot.last_used < latest
        ]:
            await self.discard(thread)

    async def close(self) -> None:
        """Destroy all sandboxes. Nobody uses one any more."""
        sandboxes = [slot.sandbox for slot in self._slots.values() if slot.sandbox] + self._warm
        self._slots, self._warm = {}, []
        await asyncio.gather(*(sandbox.close() for sandbox in sandboxes))
        await self._engine.close()


@asynccontextmanager
async def keep(engine: Engine, limits: Limits | None = None) -> AsyncIterator[Sandboxes]:
    """Sandboxes of an engine, from the removal of what an earlier process left to the end of all of them."""
    sandboxes = Sandboxes(engine, limits)
    try:
        await engine.check()
        if left := await engine.clean():
            log.info("sandboxes of an earlier process are removed", sandboxes=left)
        keeping = asyncio.create_task(sandboxes.run())
        try:
            yield sandboxes
        finally:
            keeping.cancel()
            with suppress(asyncio.CancelledError):
                await keeping
    finally:
        await sandboxes.close()
