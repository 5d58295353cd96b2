"""Keys and limits as this process knows them: those of the settings for good, those of the database as it was just now.

Knowing a key costs a look-up and no statement. Whoever comes with an unknown one makes this process look for new keys.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress

import structlog

from adlatus.errors import Unavailable
from adlatus.housekeeping import forever
from adlatus.settings import Settings, is_loopback
from adlatus.store import keys, projects
from adlatus.store.db import Database
from adlatus.store.projects import NO_LIMITS, Limits

log = structlog.get_logger(__name__)

LOOK_S = 2.0
"""Seconds between two looks at the database: so late at most a revoked key, or a limit, is noticed."""
GAP_S = 0.01
"""Seconds at least between two looks for unknown keys, all of whom wait for the same one: a flood of wrong keys is at
most as many small statements, and leaves nothing in memory."""
USES_S = 60.0
"""Seconds at least between two notes of this process that a key was used."""


class Access:
    """What this process knows of keys and limits.

    Once keys have been wanted they are until the process ends: a server that was not open to everybody does not become
    so because its last key is revoked. One that listens to other machines always wants one.
    """

    def __init__(self, database: Database, settings: Settings) -> None:
        self._database = database
        self._configured = {keys.digest(key.secret.get_secret_value()): key.project_id for key in settings.keys}
        self._stored: Mapping[bytes, str] = {}
        self._limits: Mapping[str, Limits] = {}
        self._wants_keys = bool(settings.keys) or not is_loopback(settings.host)
        self._state: tuple[object, ...] | None = None
        self._looking = asyncio.Lock()
        self._looked_at = 0.0
        self._next_look: asyncio.Task[None] | None = None
        self._used: set[bytes] = set()
        self._noted_at: dict[bytes, float] = {}

    @property
    def keyless(self) -> bool:
        """Whether any key or none opens the default project."""
        return not self._wants_keys

    @property
    def has_keys(self) -> bool:
        """Whether there is a key that opens anything."""
        return bool(self._configured or self._stored)

    @property
    def report(self) -> str:
        """What there is to say of it to an operator."""
        if self.keyless:
            return "none: any bearer or none is accepted, on loopback only"
        opened = {*self._configured.values(), *self._stored.values()}
        stored = f" and {len(self._stored)} made" if self._stored else ""
        return f"{len(self._configured)} configured{stored}, for {len(opened)} project(s)"

    def limits(self, project_id: str) -> Limits:
        """What a project may do."""
        return self._limits.get(project_id, NO_LIMITS)

    async def project_of(self, secret: str) -> str | None:
        """The project that a key opens. Raises `Unavailable` where the key may be new and the database is silent."""
        digest = keys.digest(secret)
        project_id = self._known(digest)
        if project_id is None:
            await self._look_for_new()
            project_id = self._known(digest)
        return project_id

    def _known(self, digest: bytes) -> str | None:
        if project_id := self._configured.get(digest):
            return project_id
        if project_id := self._stored.get(digest):
            self._used.add(digest)
        return project_id

    async def refresh(self) -> None:
        """Learn what has changed in the database, and tell it which keys were used."""
        async with self._looking:
            await self._look()
        self._limits = await projects.limited(self._database)
        await self.note_uses(earlier_than=time.monotonic() - USES_S)

    async def note_uses(self, *, earlier_than: float = float("inf")) -> None:
        """Write down the uses of keys whose last note is from before an instant of the monotonic clock."""
        now, never = time.monotonic(), float("-inf")
        due = [digest for digest in self._used if self._noted_at.get(digest, never) <= earlier_than]
        if due:
            await keys.note_uses(self._database, due)
            self._used.difference_update(due)
            self._noted_at.update(dict.fromkeys(due, now))

    async def close(self) -> None:
        """Look no more, and write down what keys were used."""
        if self._next_look:
            self._next_look.cancel()
        with suppress(Unavailable):
            await self.note_uses()

    async def _look_for_new(self) -> None:
        """Look at the database as it is now, together with all who wait for that."""
        if self._next_look is None:
            self._next_look = asyncio.create_task(self._look_in_time())
            self._next_look.add_done_callback(_heard)
        await asyncio.shield(self._next_look)

    async def _look_in_time(self) -> None:
        async with self._looking:
            await asyncio.sleep(max(0.0, self._looked_at + GAP_S - time.monotonic()))
            self._next_look = None  # what is made from now on may be missed by this look
            await self._look()

    async def _look(self) -> None:
        self._looked_at = time.monotonic()
        state = await keys.state(self._database)
        if state == self._state:
            return
        self._stored = await keys.unrevoked(self._database)
        self._state = state  # of before: what was made meanwhile makes another one
        self._used &= self._stored.keys()
        self._noted_at = {digest: at for digest, at in self._noted_at.items() if digest in self._stored}
        if self._stored and not self._wants_keys:
            log.info("keys are wanted from now on")
            self._wants_keys = True


def _heard(look: "asyncio.Task[None]") -> None:
    """Who waited for it may be gone."""
    if not look.cancelled():
        look.exception()


@asynccontextmanager
async def open_access(database: Database, settings: Settings) -> AsyncIterator[Access]:
    """Access that stays up to date until the block is left."""
    access = Access(database, settings)
    await access.refresh()
    task = asyncio.create_task(forever("keys and limits stay as they were", LOOK_S, access.refresh))
    try:
        yield access
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await access.close()
