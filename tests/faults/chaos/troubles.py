"""What is done to a deployment while clients ask it: processes are killed and stopped, the database is restarted."""

import asyncio
import random
import time
from dataclasses import dataclass, field

from adlatus.store.leases import LEASE_S
from tests.faults.chaos.deployment import Deployment, Member
from tests.faults.chaos.load import Load

PACE_S = 1.0
ANSWERS, OR_S = 6, 6.0
"""How many answers clients have between two troubles, lest all that is asked dies three times; or how long they wait.
"""
NOTHING_UP_S = 90
SHORT_S, LONG_S = (0.5, 4.0), (LEASE_S + 1.5, LEASE_S + 3.0)
"""How long processes sleep that keep their leases, and those that lose them."""


@dataclass(frozen=True)
class Troubles:
    """How many there are of each kind. A crash is a restart of PostgreSQL without a shutdown."""

    kills: int = 0
    naps: int = 0
    sleeps: int = 0
    restarts: int = 0
    crashes: int = 0

    def shuffled(self, chance: random.Random) -> list[str]:
        kinds = [name for name, count in vars(self).items() for _ in range(count)]
        chance.shuffle(kinds)
        return kinds


@dataclass
class Trouble:
    """Makes them one after the other, some answers and a second apart; the last process that is up is spared."""

    deployment: Deployment
    chance: random.Random
    done: list[str] = field(default_factory=list)
    took_s: float = 0.0

    async def make(self, troubles: Troubles, load: Load) -> None:
        """All of them; all processes are up in the end."""
        first_at = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for kind in troubles.shuffled(self.chance):
                match kind:
                    case "kills":
                        member = await self._victim()
                        member.kill()
                        member.start()
                        group.create_task(member.ready())
                    case "naps":
                        group.create_task(self._pause(await self._victim(awake=True), self.chance.uniform(*SHORT_S)))
                    case "sleeps":
                        group.create_task(self._pause(await self._victim(awake=True), self.chance.uniform(*LONG_S)))
                    case "restarts":
                        await self.deployment.postgres.stop()
                        await self._start_database()
                    case _:
                        await self.deployment.postgres.crash()
                        await self._start_database()
                self.done.append(kind)
                await self._breathe(load)
        self.took_s = time.monotonic() - first_at

    async def _breathe(self, load: Load) -> None:
        """Let clients have some answers."""
        wanted, give_up_at = load.answered + ANSWERS, time.monotonic() + OR_S
        await asyncio.sleep(PACE_S)
        while load.answered < wanted and time.monotonic() < give_up_at:
            await asyncio.sleep(0.05)

    async def _victim(self, *, awake: bool = False) -> Member:
        """A process that is up beside another one; with `awake` only once none sleeps."""
        give_up_at = time.monotonic() + NOTHING_UP_S
        while True:
            up = self.deployment.up
            if len(up) > 1 and not (awake and any(member.stopped for member in self.deployment.members)):
                return self.chance.choice(up)
            assert time.monotonic() < give_up_at, "too few processes have come up again"
            await asyncio.sleep(0.05)

    async def _pause(self, member: Member, for_s: float) -> None:
        member.pause()
        try:
            await asyncio.sleep(for_s)
        finally:
            member.go_on()

    async def _start_database(self) -> None:
        await asyncio.sleep(self.chance.uniform(0.2, 2.0))
        await self.deployment.postgres.start()
