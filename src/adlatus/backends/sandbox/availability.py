"""Whether this process has sandboxes. They are looked for in the background, again and again: an engine that is started
or prepared later is found without a restart, one that is gone is told of.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog

from adlatus.backends.sandbox import instance
from adlatus.backends.sandbox.engine import SandboxUnavailableError
from adlatus.backends.sandbox.picking import OFF, open_sandboxes
from adlatus.backends.sandbox.pool import Sandboxes
from adlatus.errors import StartupError
from adlatus.settings import Settings

log = structlog.get_logger(__name__)

LOOK_S = 30.0
"""How often to look whether sandboxes can be had."""

NOT_YET = "Sandboxes are still being looked for; try again in a moment."


class Availability:
    """The sandboxes of this process, or the problem with them: what to install or to do, for people.

    `sandboxes` stay while there is a problem with their engine. `changed` is set with each change, for one waiter.
    """

    def __init__(self, sandboxes: Sandboxes | None = None, problem: str = "") -> None:
        self.sandboxes = sandboxes
        self.problem = problem
        self.changed = asyncio.Event()

    @property
    def engine(self) -> str | None:
        """The engine that sandboxes can be had of now."""
        return self.sandboxes.engine if self.sandboxes and not self.problem else None

    def tell(self, sandboxes: Sandboxes | None, problem: str = "") -> None:
        """This is how it is by now."""
        if (sandboxes, problem) == (self.sandboxes, self.problem):
            return
        if problem:
            log.warning("no code is executed by this process", reason=problem)
        elif self.sandboxes is sandboxes:
            log.info("sandboxes can be had again")
        self.sandboxes, self.problem = sandboxes, problem
        self.changed.set()


@asynccontextmanager
async def looking(settings: Settings, every_s: float = LOOK_S) -> AsyncIterator[Availability]:
    """Look for the sandboxes that the settings ask for until the block is left; it is entered at once."""
    if settings.sandbox == "off":
        yield Availability(problem=OFF)
        return
    with instance.hold(settings.data_dir) as name:
        availability = Availability(problem=NOT_YET)
        task = asyncio.create_task(_look_forever(availability, settings, name, every_s))
        try:
            yield availability
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def _look_forever(availability: Availability, settings: Settings, name: str, every_s: float) -> None:
    while True:
        try:
            async with open_sandboxes(settings, name) as sandboxes:
                availability.tell(sandboxes)
                await _watch_forever(availability, sandboxes, every_s)
        except (SandboxUnavailableError, StartupError) as error:
            availability.tell(None, str(error))
        except Exception:
            log.exception("looking for sandboxes failed; this is a fault")
            availability.tell(None, "Sandboxes cannot be opened; the log of the server says why.")
        await asyncio.sleep(every_s)


async def _watch_forever(availability: Availability, sandboxes: Sandboxes, every_s: float) -> None:
    while True:
        await asyncio.sleep(every_s)
        try:
            await sandboxes.check()
            availability.tell(sandboxes)
        except SandboxUnavailableError as error:
            availability.tell(sandboxes, str(error))
