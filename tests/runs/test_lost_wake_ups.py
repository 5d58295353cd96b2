"""Wake-ups are a matter of speed only: where none gets through, everything is found by looking."""

from collections.abc import Callable, Iterator

import httpx
import pytest

from adlatus.backends.wakeup import listen
from adlatus.settings import Settings
from adlatus.store import leases
from adlatus.store.db import open_database
from tests.conftest import Loop, Server, deafen, serving
from tests.runs.functions import OUTPUTS, calculator
from tests.runs.searching import FOODS, store_of, upload
from tests.runs.transcripts import asked, check_ended, client_of, converse, eventually, sent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def deaf_url(loop: Loop, new_database: Callable[[], str], pytestconfig: pytest.Config) -> str:
    """The DSN of a database that loses all wake-ups."""
    dsn = new_database()
    if not pytestconfig.getoption("--deaf"):
        deafen(loop, dsn)
    return dsn


@pytest.fixture(scope="module")
def behind(loop: Loop, deaf_url: str) -> Iterator[Server]:
    """A process that executes and makes files searchable."""
    with serving(loop, Settings(database_url=deaf_url)) as server:
        yield server


@pytest.fixture(scope="module")
def front(loop: Loop, behind: Server) -> Iterator[httpx.Client]:
    """A client of a process that executes nothing."""
    settings = Settings(database_url=behind.resources.database.dsn)
    with serving(loop, settings, executor=False) as server, client_of(server) as http:
        yield http


def test_such_a_database_does_lose_wake_ups(loop: Loop, deaf_url: str) -> None:
    async def scenario() -> None:
        async with listen(deaf_url, leases.WAKE_CHANNEL) as wakeup, open_database(deaf_url) as database:
            assert await wakeup.wait(10)  # it listens
            await leases.wake(database)
            assert not await wakeup.wait(0.2)

    loop.run(scenario())


def test_a_run_of_another_process_is_executed_and_followed(front: httpx.Client) -> None:
    talk = converse(front, "Hello?")
    run, [_], [_] = check_ended(talk, talk.stream())
    assert run["status"] == "completed"


def test_a_run_of_another_process_is_cancelled(front: httpx.Client) -> None:
    talk = converse(front, "[[stall]]")
    run = talk.start()
    eventually(lambda: talk.run(run["id"])["status"] == "in_progress")
    assert sent(talk.cancel(run["id"]))["status"] == "cancelling"
    assert talk.ended(run["id"])["status"] == "cancelled"


def test_a_run_goes_on_with_its_outputs(front: httpx.Client) -> None:
    talk = calculator(front, "[[call: add]]")
    run = talk.waiting()
    events = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert events[-2].name == "thread.run.completed"


def test_a_file_becomes_searchable(behind: Server) -> None:
    with client_of(behind) as http:
        store_id = store_of(http, upload(http, FOODS))
        assert sent(http.get(f"/vector_stores/{store_id}"))["file_counts"]["completed"] == 1
