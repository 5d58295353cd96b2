"""Deployments of several processes that are stopped and started again, or sleep, while runs go on."""

import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from adlatus.store.db import Database
from tests.conftest import BETA, Loop
from tests.faults.processes import Process, adlatus, data_folder, serve
from tests.runs.functions import TOOLS
from tests.runs.stored import contents, execute
from tests.runs.transcripts import Conversation, Event, converse, eventually, read, words

pytestmark = pytest.mark.slow


@pytest.fixture
def folder() -> Iterator[Path]:
    with data_folder() as folder:
        folder.mkdir()
        yield folder


def worker(folder: Path, database_url: str) -> AbstractContextManager[Process]:
    return adlatus("worker", "--only", "runs", "--data-dir", str(folder), database_url=database_url)


# --- Restarted one after the other


@dataclass
class Fleet:
    """Two servers and a worker, each of which may be stopped and started again."""

    folder: Path
    database_url: str
    processes: list[Process] = field(default_factory=list)
    urls: list[str] = field(default_factory=lambda: ["", ""])
    _stack: ExitStack = field(default_factory=ExitStack)

    def start(self, place: int) -> None:
        process = self._stack.enter_context(
            worker(self.folder, self.database_url)
            if place == 2
            else serve(self.folder / f"server-{place}", database_url=self.database_url)
        )
        if place == 2:
            eventually(lambda: "executing runs" in process.log)
        else:
            self.urls[place] = f"{process.url}/v1"
        self.processes[place : place + 1] = [process]

    def restart(self, place: int) -> Process:
        stopped = self.processes[place]
        assert stopped.stop() == 0
        self.start(place)
        return stopped

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def fleet(folder: Path, database_url: str) -> Iterator[Fleet]:
    fleet = Fleet(folder, database_url)
    try:
        for place in range(3):
            fleet.start(place)
        yield fleet
    finally:
        fleet.close()


@dataclass
class Heard:
    """What the client of a run has heard, over all its streams."""

    events: list[Event] = field(default_factory=list)
    errors: int = 0


def follow(fleet: Fleet, path: str, heard: Heard, server: int) -> None:
    """Hear a run to its end, at the next server whenever a stream ends early."""
    while True:
        last = max((event.number for event in heard.events), default=0)
        with suppress(httpx.TransportError), httpx.Client(headers=BETA, timeout=30) as http:
            headers = {"last-event-id": str(last)}
            with http.stream("GET", f"{fleet.urls[server % 2]}{path}/events", headers=headers) as response:
                for event in read(response):
                    if event.name == "error":
                        heard.errors += 1
                    elif event.name != "done":
                        heard.events.append(event)
            if heard.events and heard.events[-1].name == "thread.run.completed":
                return
        server += 1


def poll(fleet: Fleet, path: str, server: int) -> None:
    """Ask one server after the other, as often as clients do, until the run has completed."""
    give_up_at = time.monotonic() + 120
    status = ""
    while status != "completed":
        assert time.monotonic() < give_up_at, status
        server += 1
        with suppress(httpx.TransportError):
            response = httpx.get(f"{fleet.urls[server % 2]}{path}", headers=BETA)
            assert response.status_code in (200, 503), response.text
            status = response.json().get("status", "")
        time.sleep(0.5)


@pytest.mark.timeout(240)
def test_a_deployment_is_restarted_process_by_process_and_no_run_notices(fleet: Fleet) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(server.client()) for server in fleet.processes[:2]]
        talks = [converse(clients[n % 2], f"[[tokens: {20 + 3 * n}]] [[pace: 0.15]]") for n in range(20)]
        runs = [talk.start()["id"] for talk in talks]
    paths = [f"{talk.path}/runs/{run_id}" for talk, run_id in zip(talks, runs, strict=True)]
    heard = [Heard() for _ in range(10)]
    with ThreadPoolExecutor(20) as pool:
        ends = [pool.submit(follow, fleet, path, heard[n], n) for n, path in enumerate(paths[:10])]
        ends += [pool.submit(poll, fleet, path, n) for n, path in enumerate(paths[10:])]
        eventually(lambda: all(each.events for each in heard))
        stopped = [fleet.restart(place) for place in (0, 2, 1)]
        for end in ends:
            end.result(120)
    assert any(each.errors for each in heard)
    assert any("work handed back" in process.log for process in stopped)
    for each in heard:
        names = [event.name for event in each.events]
        assert names.count("thread.run.completed") == 1
        assert names.count("thread.run.created") == 1
        numbers = [event.number for event in each.events if event.number]
        assert numbers == sorted(set(numbers))
    with fleet.processes[0].client() as http:
        for number, (talk, run_id) in enumerate(zip(talks, runs, strict=True)):
            again = Conversation(http, talk.assistant_id, talk.thread_id)
            [answer] = again.messages()[1:]
            assert words(answer["content"]) == " ".join(f"word{n}" for n in range(1, 21 + 3 * number))
            assert [step["status"] for step in again.steps(run_id)] == ["completed"]
    for process in (*stopped, *fleet.processes):
        assert "Traceback" not in process.log


# --- Asleep


PROMPTS = {
    "before its first token": "[[say: Well.]] [[delay: 4]]",
    "in its text": "[[tokens: 30]] [[pace: 0.15]]",
    "in its calls": '[[call: add {"first": 1, "second": 2, "third": 3, "fourth": 4}]] [[pace: 0.5]]',
}


def test_an_executor_that_slept_until_its_runs_were_taken_over_writes_nothing(
    loop: Loop, database: Database, database_url: str, folder: Path
) -> None:
    def begun() -> bool:
        [row] = loop.run(
            execute(
                database,
                "SELECT (SELECT count(*) FROM runs WHERE status = 'in_progress') AS runs, "
                "(SELECT count(*) FROM run_steps) AS steps",
            )
        )
        return (row["runs"], row["steps"]) == (3, 2)

    with serve(folder, "--no-executor", database_url=database_url) as front, front.client() as http:
        with worker(folder, database_url) as sleeper:
            eventually(lambda: "executing runs" in sleeper.log)
            talks = [converse(http, prompt, tools=TOOLS) for prompt in PROMPTS.values()]
            runs = [talk.start()["id"] for talk in talks]
            eventually(begun)
            sleeper.send(signal.SIGSTOP)
            loop.run(execute(database, "UPDATE runs SET lease_expires_at = now() - interval '1 second'"))
            with worker(folder, database_url) as other:
                ends = ("completed", "completed", "requires_action")
                for talk, run_id, end in zip(talks, runs, ends, strict=True):
                    eventually(reached(talk, run_id, end))
                before = loop.run(contents(database))
                assert [row["attempt"] for row in before["runs"]] == [2, 2, 2]
                sleeper.send(signal.SIGCONT)
                eventually(lambda: sleeper.log.count("nothing more is written") == 3)
                assert loop.run(contents(database)) == before
                assert other.stop() == 0
            assert sleeper.stop() == 0
            assert "Traceback" not in sleeper.log
        assert [len(talk.messages()) for talk in talks] == [2, 2, 1]


def reached(talk: Conversation, run_id: str, status: str) -> Callable[[], bool]:
    return lambda: talk.run(run_id)["status"] == status
