"""Claims work, keeps its leases alive, hands it to whoever does it. Knows leases, not what a run or a file is."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection
from contextlib import suppress
from typing import Generic

import structlog

from adlatus.backends.wakeup import Wakeup
from adlatus.errors import Unavailable
from adlatus.store import leases
from adlatus.store.db import Database
from adlatus.store.executors import Ability
from adlatus.store.leases import LEASE_S, AnyLease, Claim, Interruption, Leases
from adlatus.telemetry import log_context
from adlatus.wire.runs import RunStatus

log = structlog.get_logger(__name__)

POLL_S = 1.0
"""How often to look without a wake-up; also the pace of heartbeats."""
GRACE_S = 5.0
"""How long work may go on after a stop before it is handed back."""


class Worker(Generic[AnyLease]):
    """The executor of one process for one kind of work: up to `concurrency` pieces at a time, each under a lease.

    `run` claims until it is cancelled or `stop` is called. Work may also come in by `offer` and `start`, claimed by
    the transaction that created it. `abilities` says what can be done at the moment; `busy` is told how many pieces
    are in work.
    """

    def __init__(
        self,
        database: Database,
        wakeup: Wakeup,
        leases: Leases[AnyLease],
        handler: Callable[[AnyLease], Awaitable[None]],
        *,
        name: str,
        concurrency: int,
        abilities: Callable[[], Collection[Ability]] = tuple,
        busy: Callable[[float], None] = lambda _: None,
    ) -> None:
        self.name = name
        self._database = database
        self._wakeup = wakeup
        self._leases = leases
        self._handler = handler
        self._concurrency = concurrency
        self._abilities = abilities
        self._busy = busy
        self._running: dict[str, tuple[AnyLease, asyncio.Task[None]]] = {}
        self._stopping = False
        self._renewed_at = time.monotonic()

    def is_alive(self) -> bool:
        """Whether heartbeats get through."""
        return not self._stopping and time.monotonic() - self._renewed_at < LEASE_S

    def offer(self) -> Claim | None:
        """A claim to insert new work with, if there is room for it here."""
        per_project = self._leases.per_project
        return leases.new_claim(self.name, self._abilities(), per_project) if self._room() > 0 else None

    def start(self, lease: AnyLease) -> None:
        """Do a piece of work that is leased to this worker."""
        task = asyncio.create_task(self._handle(lease), name=lease.token)
        self._running[lease.token] = (lease, task)
        self._busy(len(self._running))

    async def run(self) -> None:
        """Claim and renew until stopped. An outage of the database is waited out."""
        while not self._stopping:
            try:
                await self._renew()
                await self._claim()
                self._renewed_at = time.monotonic()
            except Unavailable:
                log.warning("no heartbeats: the database does not answer", in_work=len(self._running))
            except Exception:
                log.exception("the worker is at fault; it goes on, and /readyz tells if this does not pass")
            await self._wakeup.wait(POLL_S)

    async def stop(self) -> None:
        """Claim nothing more, give what runs a grace period, hand back what is left."""
        self._stopping = True
        self._wakeup.set()
        tasks = [task for _, task in self._running.values()]
        if tasks:
            log.info("waiting for what is in work", in_work=len(tasks), at_most_s=GRACE_S)
            await asyncio.wait(tasks, timeout=GRACE_S)
        for lease, task in list(self._running.values()):
            self._interrupt(lease, task, Interruption.STOP)
        await asyncio.gather(*(task for _, task in self._running.values()), return_exceptions=True)

    def _room(self) -> int:
        return 0 if self._stopping else self._concurrency - len(self._running)

    async def _claim(self) -> None:
        if (room := self._room()) > 0:
            claimed = await self._leases.claim(self._database, self.name, room, self._abilities())
            for lease in claimed:
                self.start(lease)

    async def _renew(self) -> None:
        held = list(self._running.values())
        if not held:
            return
        statuses = await self._leases.heartbeat(self._database, [lease.token for lease, _ in held])
        for lease, task in held:
            status = statuses.get(lease.token)
            if status == RunStatus.CANCELLING:
                self._interrupt(lease, task, Interruption.CANCEL)
            elif status is None and not task.done():
                self._interrupt(lease, task, Interruption.LOST)

    def _interrupt(self, lease: AnyLease, task: asyncio.Task[None], reason: Interruption) -> None:
        if lease.interruption is None or reason is Interruption.STOP:
            lease.interruption = reason
            task.cancel(reason.value)

    async def _handle(self, lease: AnyLease) -> None:
        try:
            if self._stopping:  # claimed before the stop, committed after it
                await self._hand_back(lease)
                return
            with log_context(**lease.told):
                await self._handler(lease)
        except asyncio.CancelledError:
            if lease.interruption is not Interruption.LOST:
                await self._hand_back(lease)
        except Exception:
            log.exception("executor failed", **lease.told)
            await self._hand_back(lease, failed=True)
        finally:
            if self._room() == 0 or self._leases.per_project is not None:
                self._wakeup.set()  # something may wait for this place
            self._running.pop(lease.token, None)
            self._busy(len(self._running))

    async def _hand_back(self, lease: AnyLease, *, failed: bool = False) -> None:
        release = self._leases.abandon_if_held if failed else self._leases.release_if_held
        with suppress(Unavailable):
            await release(self._database, lease)
            await leases.wake(self._database)
            log.info("work handed back", **lease.told)
