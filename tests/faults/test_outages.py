"""Databases that refuse, hang, are cut off or die under servers that are in the middle of runs."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import select, text

from adlatus.backends.wakeup import listen
from adlatus.errors import DatabaseUnavailable
from adlatus.store import leases
from adlatus.store.db import Database, open_database
from adlatus.store.leases import WAKE_CHANNEL
from adlatus.store.tables import projects
from tests.conftest import Loop
from tests.faults.processes import Process, data_folder, kill_tree, postmasters, serve
from tests.faults.proxy import Proxy, database_behind_proxy
from tests.runs.functions import OUTPUTS, TOOLS
from tests.runs.transcripts import (
    COMPLETED,
    DONE,
    OPENING,
    Conversation,
    asked,
    converse,
    eventually,
    speaking,
    transcript,
    words,
)

pytestmark = pytest.mark.slow

KEPT = "what was done is kept until the database answers again"
ANEW = "the run begins anew once the database answers"


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        yield folder


def some_words(count: int) -> str:
    return " ".join(f"word{n}" for n in range(1, count + 1))


def refused(response: httpx.Response) -> None:
    """As clients that try again want it."""
    assert (response.status_code, response.headers["retry-after"]) == (503, "1"), response.text
    assert response.json()["error"]["type"] == "server_error"
    assert "database" in response.json()["error"]["message"]


# --- Away while runs are executed


@dataclass
class Behind:
    """A server whose database is behind a proxy."""

    proxy: Proxy
    server: Process
    http: httpx.Client
    heard: int = 0

    def says(self, told: str) -> bool:
        """Whether its log says this since the test has begun."""
        return told in self.server.log[self.heard :]

    def goes_on(self) -> None:
        """It does what it did before, and no fault of its own was in the way."""
        assert converse(self.http, "[[say: Hello!]]").completed() == "Hello!"
        assert not self.says("a fault")
        assert not self.says("failed")


@pytest.fixture(scope="module")
def served(new_database: Callable[[], str]) -> Iterator[Behind]:
    with (
        data_folder() as folder,
        database_behind_proxy(new_database()) as (proxy, dsn),
        serve(folder, database_url=dsn) as server,
        server.client() as http,
    ):
        yield Behind(proxy, server, http)
        assert server.stop() == 0


@pytest.fixture
def behind(served: Behind) -> Iterator[Behind]:
    served.heard = len(served.server.log)
    yield served
    served.proxy.pass_on()


@pytest.mark.parametrize("goes", [Proxy.refuse, Proxy.hang], ids=["refuses", "hangs"])
def test_an_answer_that_ends_while_the_database_is_away_is_kept_and_told(
    behind: Behind, goes: Callable[[Proxy], None]
) -> None:
    http, url = behind.http, behind.server.url
    talk = converse(http, "[[tokens: 10]] [[pace: 0.1]]")
    with talk.streaming() as stream:
        events = [next(stream) for _ in range(len(OPENING) + 5)]
        goes(behind.proxy)
        refused(http.get(talk.path))
        refused(http.post("/threads", json={}))
        assert httpx.get(f"{url}/readyz").status_code == 503
        assert httpx.get(f"{url}/healthz").status_code == 200
        eventually(lambda: behind.says(KEPT))
        behind.proxy.pass_on()
        events += stream
    assert transcript(events) == [*OPENING, *speaking(some_words(10)), *COMPLETED, DONE]
    run = events[-2].payload
    eventually(lambda: answers_again(talk))
    assert talk.run(run["id"]) == run
    assert [words(message["content"]) for message in talk.messages()[1:]] == [some_words(10)]
    assert [step["status"] for step in talk.steps(run["id"])] == ["completed"]
    assert not behind.says(ANEW)
    behind.goes_on()


def test_calls_that_the_database_hears_of_late_are_asked_for(behind: Behind) -> None:
    talk = converse(behind.http, '[[say: See.]] [[call: add {"a": 3}]] [[pace: 0.3]]', tools=TOOLS)
    with talk.streaming() as stream:
        events = [next(stream)]
        while events[-1].name != "thread.run.step.delta":
            events.append(next(stream))
        behind.proxy.refuse()
        eventually(lambda: behind.says(KEPT))
        behind.proxy.pass_on()
        events += stream
    waiting = events[-2].payload
    assert waiting["status"] == "requires_action"
    rest = talk.submitting(waiting["id"], asked(OUTPUTS, waiting))
    assert transcript(rest)[-2:] == ["thread.run.completed completed", DONE]
    assert not behind.says(ANEW)
    behind.goes_on()


def test_a_run_whose_answer_begins_while_the_database_is_away_begins_anew(behind: Behind) -> None:
    talk = converse(behind.http, "[[say: Late.]] [[delay: 0.5]]")
    with talk.streaming() as stream:
        events = [next(stream) for _ in OPENING]
        behind.proxy.refuse()
        eventually(lambda: behind.says(ANEW))
        behind.proxy.pass_on()
        events += stream
    assert transcript(events) == [*OPENING, *speaking("Late."), *COMPLETED, DONE]
    assert events[-1].number >> 32 == 1, "nobody else had to take it over"
    assert [words(message["content"]) for message in talk.messages()[1:]] == ["Late."]
    behind.goes_on()


@pytest.mark.nightly
@pytest.mark.parametrize("goes", [Proxy.refuse, Proxy.hang], ids=["refuses", "hangs"])
def test_runs_in_every_state_live_through_half_a_minute_without_a_database(
    behind: Behind, goes: Callable[[Proxy], None]
) -> None:
    """Longer than a lease: nobody else can have taken them over."""
    prompts = [f"[[say: Run {n}.]] [[delay: {n * 0.2:.1f}]] [[tokens: 5]] [[pace: 0.2]]" for n in range(20)]
    talks = [converse(behind.http, prompt) for prompt in prompts]
    runs = [talk.start()["id"] for talk in talks]
    eventually(lambda: talks[5].run(runs[5])["status"] == "completed")
    goes(behind.proxy)
    time.sleep(30)  # what is to be shown
    behind.proxy.pass_on()
    eventually(lambda: answers_again(talks[0]))
    for number, (talk, run_id) in enumerate(zip(talks, runs, strict=True)):
        assert talk.ended(run_id, within_s=60)["status"] == "completed"
        [answer] = talk.messages()[1:]
        assert words(answer["content"]).startswith(f"Run {number}.")
    behind.goes_on()


# --- Connections


def test_connections_whose_other_end_is_gone_are_replaced_all_at_once(loop: Loop, database_url: str) -> None:

    async def scenario(proxy: Proxy, dsn: str) -> None:
        async with open_database(dsn, max_connections=3, answer_s=0.5) as database:

            async def use_all() -> None:
                async with database.transaction() as a, database.transaction() as b, database.transaction() as c:
                    for each in (a, b, c):
                        await each.fetch(select(projects))

            await use_all()
            proxy.lose()
            with pytest.raises(DatabaseUnavailable):
                await database.fetch(select(projects))
            await use_all()

    with database_behind_proxy(database_url) as (proxy, dsn):
        loop.run(scenario(proxy, dsn))


def test_who_waits_too_long_for_a_connection_is_told(loop: Loop, database_url: str) -> None:

    async def scenario() -> None:
        async with open_database(database_url, max_connections=1, wait_s=0.2) as database:
            async with database.transaction():
                with pytest.raises(DatabaseUnavailable):
                    await database.fetch(select(projects))
            await database.fetch(select(projects))

    loop.run(scenario())


def test_a_transaction_that_hangs_is_cut_off_and_changes_nothing(loop: Loop, database_url: str) -> None:
    add = text("INSERT INTO projects (id) VALUES ('half')")

    async def scenario(proxy: Proxy, dsn: str) -> None:
        async def hang_in_the_middle(database: Database) -> None:
            async with database.transaction() as tx:
                await tx.fetch(add)
                proxy.hang()
                await tx.fetch(select(projects))

        async with open_database(dsn, max_connections=1, answer_s=0.5) as database:
            with pytest.raises(DatabaseUnavailable):
                await hang_in_the_middle(database)
            proxy.pass_on()
            assert "half" not in [row["id"] for row in await database.fetch(select(projects))]

    with database_behind_proxy(database_url) as (proxy, dsn):
        loop.run(scenario(proxy, dsn))


@pytest.mark.parametrize("how", [Proxy.cut, Proxy.lose], ids=["cut", "lost"])
def test_wake_ups_are_heard_again_after_the_connection_has_gone(
    loop: Loop, database_url: str, how: Callable[[Proxy], None]
) -> None:

    async def scenario(proxy: Proxy, dsn: str) -> None:
        listening = listen(dsn, WAKE_CHANNEL, ping_s=0.2, answer_s=0.5)
        async with open_database(database_url) as database, listening as wakeup:
            assert await wakeup.wait(20)  # it listens
            how(proxy)
            assert await wakeup.wait(20)  # it listens again
            await leases.wake(database)
            assert await wakeup.wait(20)

    with database_behind_proxy(database_url) as (proxy, dsn):
        loop.run(scenario(proxy, dsn))


# --- The embedded one


def test_an_embedded_database_that_is_killed_is_started_again_and_runs_go_on(folder: Path) -> None:
    with serve(folder) as server, server.client() as http:
        talks = [converse(http, f"[[say: Run {n}: ]] [[tokens: 20]] [[pace: 0.1]]") for n in range(4)]
        runs = [talk.start()["id"] for talk in talks]
        eventually(lambda: all(len(talk.messages()) == 2 for talk in talks))
        [postmaster] = postmasters(folder)
        kill_tree(postmaster)
        eventually(lambda: answers_again(talks[0]))
        for number, (talk, run_id) in enumerate(zip(talks, runs, strict=True)):
            run = talk.ended(run_id, within_s=60)
            assert run["status"] == "completed", run["last_error"]
            assert [words(message["content"]) for message in talk.messages()[1:]] == [f"Run {number}: {some_words(20)}"]
        [another] = postmasters(folder)
        assert another.pid != postmaster.pid
        assert server.stop() == 0
        assert postmasters(folder) == []


def answers_again(talk: Conversation) -> bool:
    """Until then requests are refused, as they should be."""
    response = talk.http.get(talk.path)
    if response.status_code == 503:
        refused(response)
    return response.status_code == 200
