"""Readers of runs: who leaves, who is slow, who comes back, who sits at another process, and two hundred at once."""

import asyncio
import socket
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from adlatus.store.db import Database
from adlatus.store.events import EventLog, unpacked
from adlatus.wire import events as wire
from tests.conftest import BETA, Loop, Server, serving
from tests.runs.stored import add_run, execute
from tests.runs.transcripts import (
    CANCELLED,
    COMPLETED,
    DONE,
    OPENING,
    Conversation,
    Event,
    client_of,
    converse,
    eventually,
    parse,
    sent,
    speaking,
    transcript,
)


def follow(server: Server, run_id: str, after: int = 0) -> list[Event]:
    """What a reader of this process hears of a run after an event's number."""

    async def read() -> bytes:
        return b"".join([frames async for frames in server.resources.events.follow(run_id, after)])

    return list(parse(server.loop.run(read()).decode().split("\n")))


def stored(server: Server, run_id: str) -> int:
    """How many rows of events the database has, once the end of the stream is among them."""

    async def look() -> list[Any]:
        return await execute(
            server.resources.database, "SELECT frames FROM run_events WHERE run_id = $1 ORDER BY first_number", run_id
        )

    rows = eventually(
        lambda: (found := server.loop.run(look())) and unpacked(found[-1]["frames"]).endswith(wire.DONE) and found
    )
    return len(rows or [])


# --- Who leaves


@pytest.mark.parametrize("heard", [1, 3, 9], ids=["at once", "before the first token", "in the middle"])
def test_a_client_that_disconnects_finds_its_run_completed(http: httpx.Client, heard: int) -> None:
    talk = converse(http, "[[tokens: 8]] [[pace: 0.02]]")
    with talk.streaming() as events:
        first, *_ = [next(events) for _ in range(heard)]
        run_id = first.payload["id"]
    assert talk.ended(run_id)["status"] == "completed"
    assert talk.answer() == " ".join(f"word{n}" for n in range(1, 9))
    assert [step["status"] for step in talk.steps(run_id)] == ["completed"]


def test_a_reader_that_reads_nothing_does_not_stop_the_run(server: Server, http: httpx.Client, api_key: str) -> None:
    """Its megabytes of events wait for it, and are whole when it reads at last."""
    words = 30_000
    talk = converse(http, f"[[tokens: {words}]]")
    at = httpx.URL(server.base_url)
    body = httpx.Response(200, json={"assistant_id": talk.assistant_id, "stream": True}).content
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((at.host, at.port))
        connection.sendall(
            f"POST /v1{talk.path}/runs HTTP/1.1\r\nhost: {at.host}\r\nauthorization: Bearer {api_key}\r\n"
            f"openai-beta: assistants=v2\r\ncontent-type: application/json\r\nconnection: close\r\n"
            f"content-length: {len(body)}\r\n\r\n".encode()
            + body
        )
        [run] = eventually(lambda: sent(http.get(f"{talk.path}/runs"))["data"])
        assert talk.ended(run["id"])["status"] == "completed"
        received = b""
        while piece := connection.recv(65536):
            received += piece
    head, _, chunked = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200")
    assert len(chunked) > 4_000_000
    assert transcript(parse(_unchunked(chunked).decode().split("\n"))) == [
        *OPENING,
        *speaking(" ".join(f"word{n}" for n in range(1, words + 1))),
        *COMPLETED,
        DONE,
    ]


def _unchunked(chunked: bytes) -> bytes:
    pieces, at = [], 0
    while size := int(chunked[at : (end := chunked.index(b"\r\n", at))], 16):
        pieces.append(chunked[end + 2 : end + 2 + size])
        at = end + 2 + size + 2
    return b"".join(pieces)


# --- Who comes back, beside what `test_coming_back.py` says


def test_a_reader_of_a_run_that_does_not_exist_is_sent_away(server: Server) -> None:
    error, done = follow(server, "run_none")
    assert error.payload["error"]["message"] == "No run found with id 'run_none'."
    assert done == Event("done", "[DONE]")


def test_events_are_numbered_once_even_if_a_write_is_interrupted_or_doubled(loop: Loop, new_database: Any) -> None:
    """An interrupted write may have been committed; the next one then begins with the same number."""
    with serving(loop, Settings(database_url=new_database()), executor=False) as server:
        database = server.resources.database
        frames = [wire.frame("thread.test", b"%d" % n) for n in range(4)]

        async def write() -> bytes:
            interrupted, log = EventLog(database), EventLog(database)
            interrupted.append("run_x", 1, frames[:2])
            await interrupted.write()
            log.execute("run_x", 1)
            log.append("run_x", 1, frames[:3])
            await asyncio.gather(log.write(), log.write())
            log.append("run_x", 1, [frames[3], wire.DONE])
            log.leave("run_x", 1)
            await asyncio.gather(log.write(), log.write(), log.stop())
            return b"".join([part async for part in EventLog(database).follow("run_x", 1 << 32)])

        heard = list(parse(loop.run(write()).decode().split("\n")))
        assert [event.payload for event in heard] == [0, 1, 2, 3, "[DONE]"]
        assert [event.number - (1 << 32) for event in heard] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("written", [False, True])
def test_what_others_tell_between_two_attempts_of_a_process_is_heard_between_them(
    loop: Loop, database: Database, *, written: bool
) -> None:
    """One process creates a run, another executes it for a moment and hands it back, the first cancels it."""
    here, there = EventLog(database), EventLog(database)
    frames = [wire.frame("thread.test", b"%d" % n) for n in range(4)]

    async def heard(log: EventLog, after: int) -> list[object]:
        content = b"".join([part async for part in log.follow("run_x", after)])
        return [event.payload for event in parse(content.decode().split("\n"))]

    async def scenario() -> None:
        here.append("run_x", 0, frames[:2])
        there.execute("run_x", 1)
        there.append("run_x", 1, frames[2:3])
        there.leave("run_x", 1)
        await there.write()
        here.append("run_x", 3, [frames[3], wire.DONE])
        if not written:
            assert await heard(here, 2) == [2, 3, "[DONE]"]
        await here.write()
        for log in (here, there, EventLog(database)):
            assert await heard(log, 0) == [0, 1, 2, 3, "[DONE]"]
            assert await heard(log, 2) == [2, 3, "[DONE]"]

    loop.run(scenario())


def test_an_executor_that_leaves_late_does_not_silence_the_next_one_here(loop: Loop, new_database: Any) -> None:
    """A run that is lost, or that got its outputs at once, may be executed here again before its executor is done."""
    with serving(loop, Settings(database_url=new_database()), executor=False) as server:
        frames = [wire.frame("thread.test", b"%d" % n) for n in range(3)]

        async def overlap() -> bytes:
            log = EventLog(server.resources.database)
            log.execute("run_x", 1)
            log.append("run_x", 1, frames[:1])
            log.execute("run_x", 2)
            log.leave("run_x", 1)
            await log.write()
            log.append("run_x", 2, [*frames[1:], wire.DONE])
            heard = [part async for part in log.follow("run_x", 1 << 32)]
            log.leave("run_x", 2)
            await log.write()
            assert not log._channels
            return b"".join(heard)

        heard = list(parse(loop.run(overlap()).decode().split("\n")))
        assert [event.payload for event in heard] == [0, 1, 2, "[DONE]"]


# --- Who sits at another process


def test_a_run_that_another_process_executes_streams_in_full_and_in_order(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database())
    with (
        serving(loop, settings, executor=False) as front,
        serving(loop, settings) as back,
        client_of(front) as http,
        client_of(back) as other,
    ):
        for prompt in ("[[tokens: 40]] [[pace: 0.02]]", "[[tokens: 3000]]", "[[say: Hello, Jane!]]"):
            talk = converse(http, prompt)
            events = talk.stream()
            said = talk.answer()
            assert transcript(events) == [*OPENING, *speaking(said), *COMPLETED, DONE]
            run_id = events[0].payload["id"]
            assert events[-2].payload == Conversation(other, talk.assistant_id, talk.thread_id).run(run_id)
            stored(front, run_id)
            assert follow(front, run_id) == events
            assert follow(back, run_id) == events


def test_a_run_is_cancelled_through_a_process_that_does_not_execute_it(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings, executor=False) as front, serving(loop, settings), client_of(front) as http:
        talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
        with talk.streaming() as stream:
            events = []
            for event in stream:
                events.append(event)
                if event.name == "thread.message.delta" and " word3" in str(event.payload):
                    assert sent(talk.cancel(events[0].payload["id"]))["status"] == "cancelling"
        assert transcript(events) == [
            *OPENING,
            *speaking("word1 word2 word3"),
            *CANCELLED,
            DONE,
        ]


def test_a_reader_elsewhere_is_told_when_its_own_process_stops(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings, executor=False) as front, client_of(front) as http:
        talk = converse(http, "Nobody will answer.")
        with talk.streaming() as stream:
            events = [next(stream), next(stream)]
            loop.run(front.resources.events.stop())
            events += stream
        assert [event.name for event in events[2:]] == ["error", "done"]
        assert events[2].payload["error"]["type"] == "server_error"
        assert talk.run(events[0].payload["id"])["status"] == "queued"


# --- Two hundred at once


@pytest.mark.slow
def test_two_hundred_streamed_runs_at_once_complete_with_their_own_texts(server: Server, api_key: str) -> None:
    headers = {"Authorization": f"Bearer {api_key}", **BETA}
    words = " ".join(f"word{n}" for n in range(1, 31))

    async def run(client: httpx.AsyncClient, assistant_id: str, number: int) -> list[Event]:
        prompt = f"[[say: {number}: ]] [[tokens: 30]] [[pace: 0.02]]"
        thread = {"messages": [{"role": "user", "content": prompt}]}
        body = {"assistant_id": assistant_id, "thread": thread, "stream": True}
        async with client.stream("POST", "/threads/runs", json=body) as response:
            return list(parse([line async for line in response.aiter_lines()]))

    async def run_all() -> list[list[Event]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(base_url=server.base_url, headers=headers, timeout=60, limits=limits) as client:
            assistant = (await client.post("/assistants", json={"model": "gpt-4o"})).json()
            work: list[Coroutine[Any, Any, list[Event]]] = [run(client, assistant["id"], n) for n in range(200)]
            return await asyncio.gather(*work)

    for number, events in enumerate(asyncio.run(run_all())):
        assert transcript(events) == [
            "thread.created",
            *OPENING,
            *speaking(f"{number}: {words}"),
            *COMPLETED,
            DONE,
        ]


def test_more_runs_than_places_are_executed_one_after_the_other(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), run_concurrency=2)
    with serving(loop, settings) as server, client_of(server) as http:
        talks = [converse(http, f"[[say: {number}]] [[delay: 0.05]]") for number in range(8)]
        runs = [talk.start() for talk in talks]
        assert [talk.ended(run["id"])["status"] for talk, run in zip(talks, runs, strict=True)] == ["completed"] * 8
        assert [talk.answer() for talk in talks] == [str(number) for number in range(8)]


def test_runs_that_nobody_executed_are_taken_up_by_the_next_server(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings, executor=False) as front, client_of(front) as http:

        async def add() -> list[str]:
            return [(await add_run(front.resources.database, text=f"[[say: {n}]]"))[0].id for n in range(3)]

        run_ids = loop.run(add())
        with serving(loop, settings):
            for run_id in run_ids:
                [row] = loop.run(execute(front.resources.database, "SELECT * FROM runs WHERE id = $1", run_id))
                assert Conversation(http, "", row["thread_id"]).ended(run_id)["status"] == "completed"


def test_a_run_that_executes_here_before_its_creation_is_told_streams_in_full(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    """Its executor may be woken before the request that created it goes on."""
    with serving(loop, Settings(database_url=new_database()), executor=False) as server:
        created, begun = (wire.frame("thread.test", b"%d" % number) for number in range(2))

        async def read() -> bytes:
            log = EventLog(server.resources.database)
            log.execute("run_x", 1)
            log.append("run_x", 0, [created])
            stream = log.follow("run_x")
            heard = await anext(stream)
            await log.write()
            log.append("run_x", 1, [begun, wire.DONE])
            return b"".join([heard, *[part async for part in stream]])

        assert [event.payload for event in parse(loop.run(read()).decode().split("\n"))] == [0, 1, "[DONE]"]


async def speak_together(base_url: str, streams: int) -> int:
    """How many runs that fall silent after their first token have spoken while none of them has ended."""
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=base_url, headers=BETA, timeout=60, limits=limits) as http:
        assistant = (await http.post("/assistants", json={"model": "gpt-4o"})).json()["id"]
        spoken = set[int]()

        async def listen(number: int) -> None:
            thread = {"messages": [{"role": "user", "content": f"[[say: {number} and on]] [[stall: 1]]"}]}
            body = {"assistant_id": assistant, "thread": thread, "stream": True}
            async with http.stream("POST", "/threads/runs", json=body) as stream:
                async for line in stream.aiter_lines():
                    if "thread.message.delta" in line:
                        spoken.add(number)
                        return

        async with asyncio.timeout(50), asyncio.TaskGroup() as group:
            for number in range(streams):
                group.create_task(listen(number))
        return len(spoken)


@pytest.mark.slow
def test_more_runs_than_an_http_client_usually_connects_speak_at_the_same_time(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    with serving(loop, Settings(database_url=new_database())) as server:
        assert asyncio.run(speak_together(server.base_url, 130)) == 130
