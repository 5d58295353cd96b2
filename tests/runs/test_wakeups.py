"""Wake-ups go on after whatever has happened to the connection that they come by."""

import pytest

from adlatus.backends.wakeup import Wakeup, listen
from adlatus.store.db import Database
from tests.conftest import Loop
from tests.runs.cutting import cuttable
from tests.runs.stored import execute

WITHIN_S = 20
CHANNEL = "tests_wakeups"


async def check_wakes(wakeup: Wakeup, database: Database) -> None:
    assert await wakeup.wait(WITHIN_S), "whoever listens anew looks at once"
    await execute(database, f"NOTIFY {CHANNEL}")
    assert await wakeup.wait(WITHIN_S)


@pytest.mark.parametrize("at", [b"LISTEN", b""], ids=["as it begins to listen", "as it listens"])
def test_wake_ups_come_again_after_the_connection_was_lost(
    loop: Loop, database: Database, database_url: str, at: bytes
) -> None:
    async def scenario() -> None:
        async with cuttable(database_url, at) as cut, listen(cut.dsn, CHANNEL) as wakeup:
            if not at:
                await check_wakes(wakeup, database)
                await cut.set(True)
                await cut.set(False)
            await check_wakes(wakeup, database)
            assert not cut.at

    loop.run(scenario())
