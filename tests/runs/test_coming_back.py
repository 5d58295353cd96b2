"""Who comes back to a stream with the number of the last event that it had, hears the rest: whatever happened since."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from adlatus.errors import Unavailable
from adlatus.runs import commands
from adlatus.settings import Settings
from adlatus.store import rows
from adlatus.store.db import Database, Row
from adlatus.store.events import EventLog, unpacked
from adlatus.store.leases import Lease
from adlatus.store.tables import runs
from adlatus.wire import events as wire
from adlatus.wire.common import Json
from adlatus.wire.runs import CreateRunRequest, CreateThreadAndRunRequest, Run, RunStatus, ToolOutput
from tests.conftest import Loop, Server, serving
from tests.runs.stored import PROJECT, ROUTING, add_assistant, add_calling, add_leased, add_run, execute, put
from tests.runs.transcripts import (
    COMPLETED,
    DONE,
    OPENING,
    Conversation,
    Event,
    client_of,
    converse,
    eventually,
    parse,
    read,
    sent,
    speaking,
    transcript,
)

SHORT = "[[say: Hello, Jane!]]"
LONG = "[[tokens: 30]] [[pace: 0.02]]"
TOO_LARGE = str(2**63)


def path(talk: Conversation, run_id: str) -> str:
    return f"{talk.path}/runs/{run_id}/events"


def back(talk: Conversation, run_id: str, after: int | None = None, header: int | None = None) -> bytes:
    """The bytes that come after an event, named by the parameter or the header."""
    headers = {} if header is None else {"Last-Event-ID": str(header)}
    response = talk.http.get(path(talk, run_id), params={} if after is None else {"after": after}, headers=headers)
    assert response.headers.get("content-type") == "text/event-stream; charset=utf-8", response.text
    return response.content


def events_of(content: bytes) -> list[Event]:
    return list(parse(content.decode().split("\n")))


def whole(talk: Conversation) -> tuple[str, bytes]:
    """A new run, and the bytes of its stream as an undisturbed reader had them."""
    response = talk.http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id, "stream": True})
    assert response.status_code == 200, response.text
    run_id: str = events_of(response.content)[0].payload["id"]
    return run_id, response.content


@contextmanager
def cut(talk: Conversation, frames: int) -> Iterator[tuple[str, bytes]]:
    """A new run, and the bytes of its first frames, after which the connection is dropped."""
    body = {"assistant_id": talk.assistant_id, "stream": True}
    with talk.http.stream("POST", f"{talk.path}/runs", json=body) as response:
        heard = b""
        for piece in response.iter_bytes():
            heard += piece
            if heard.count(b"\n\n") >= frames:
                break
    kept = b"".join(frame + b"\n\n" for frame in heard.split(b"\n\n")[:frames])
    yield events_of(kept)[0].payload["id"], kept


def split(content: bytes) -> list[bytes]:
    return [frame + b"\n\n" for frame in content.split(b"\n\n")[:-1]]


def number_of(frame: bytes) -> int:
    return events_of(frame)[0].number


def look(server: Server, sql: str, *values: object) -> list[Any]:
    return server.loop.run(execute(server.resources.database, sql, *values))


def written(server: Server, run_id: str) -> None:
    """Wait until the table has the end of a run's stream."""
    sql = "SELECT frames FROM run_events WHERE run_id = $1 ORDER BY first_number DESC LIMIT 1"
    eventually(lambda: (last := look(server, sql, run_id)) and unpacked(last[0]["frames"]).endswith(wire.DONE))


def delete(server: Server, row: Any) -> None:
    sql = "DELETE FROM run_events WHERE run_id = $1 AND first_number = $2"
    look(server, sql, row["run_id"], row["first_number"])


@pytest.fixture
def url(new_database: Callable[[], str]) -> str:
    """The DSN of a database of this test alone."""
    return new_database()


# --- Everywhere, and from anywhere


def test_at_every_cut_the_rest_of_a_stream_is_what_an_undisturbed_reader_had(http: httpx.Client) -> None:
    talk = converse(http, SHORT)
    run_id, content = whole(talk)
    frames = split(content)
    assert len(frames) > 10
    assert back(talk, run_id) == back(talk, run_id, after=0) == content
    for position, frame in enumerate(frames[:-1], start=1):
        rest, number = b"".join(frames[position:]), number_of(frame)
        assert back(talk, run_id, after=number) == rest
        assert back(talk, run_id, header=number) == rest
        assert back(talk, run_id, after=number, header=1) == rest
        assert back(talk, run_id, after=1, header=number) == rest


@pytest.mark.parametrize("frames", [1, 2, 3, 5, 8, 12, 20])
def test_a_dropped_connection_loses_nothing_of_an_answer_that_goes_on(http: httpx.Client, frames: int) -> None:
    talk = converse(http, LONG)
    with cut(talk, frames) as (run_id, heard):
        number = number_of(split(heard)[-1])
        rest = back(talk, run_id, after=number) if frames % 2 else back(talk, run_id, header=number)
    assert rest.endswith(wire.DONE)
    assert heard + rest == back(talk, run_id)
    said = " ".join(f"word{n}" for n in range(1, 31))
    assert transcript(events_of(heard + rest)) == [*OPENING, *speaking(said), *COMPLETED, DONE]


def test_a_reader_that_is_dropped_again_and_again_hears_everything_once(http: httpx.Client) -> None:
    talk = converse(http, LONG)
    with cut(talk, 1) as (run_id, first):
        heard = first
        while not heard.endswith(wire.DONE):
            number = number_of(split(heard)[-1])
            with http.stream("GET", path(talk, run_id), params={"after": number}) as response:
                heard = heard + b"".join(split(next(response.iter_bytes()))[:3])
    assert heard == back(talk, run_id)


def test_another_process_tells_the_rest_of_a_stream_while_it_goes_on_and_after(loop: Loop, url: str) -> None:
    settings = Settings(database_url=url)
    with (
        serving(loop, settings) as one,
        serving(loop, settings, executor=False) as two,
        client_of(one) as http,
        client_of(two) as other,
    ):
        talk = converse(http, LONG)
        elsewhere = Conversation(other, talk.assistant_id, talk.thread_id)
        with cut(talk, 9) as (run_id, heard):
            rest = back(elsewhere, run_id, after=number_of(split(heard)[-1]))
        content = back(talk, run_id)
        assert heard + rest == content
        frames = split(content)
        for position in range(len(frames)):
            number = number_of(frames[position - 1]) if position else 0
            assert back(elsewhere, run_id, after=number) == b"".join(frames[position:])


def test_the_rest_of_a_burst_is_found_from_the_middle_of_what_was_stored_at_once(loop: Loop, url: str) -> None:
    settings = Settings(database_url=url)
    with (
        serving(loop, settings) as one,
        serving(loop, settings, executor=False) as two,
        client_of(one) as http,
        client_of(two) as other,
    ):
        talk = converse(http, "[[tokens: 600]]")
        run_id, content = whole(talk)
        eventually(lambda: look(one, "SELECT FROM run_events WHERE get_byte(frames, 0) <> ascii('i')"))
        elsewhere = Conversation(other, talk.assistant_id, talk.thread_id)
        frames = split(content)
        for position in range(1, len(frames), 97):
            assert back(elsewhere, run_id, after=number_of(frames[position - 1])) == b"".join(frames[position:])


def test_a_third_process_misses_nothing_of_a_run_that_one_creates_and_another_executes(loop: Loop, url: str) -> None:
    settings = Settings(database_url=url)
    with (
        serving(loop, settings, executor=False) as creator,
        serving(loop, settings),
        serving(loop, settings, executor=False) as third,
        client_of(creator) as http,
        client_of(third) as other,
    ):
        for _ in range(5):
            talk = converse(http, SHORT)
            run_id = talk.start()["id"]
            heard = back(Conversation(other, talk.assistant_id, talk.thread_id), run_id)
            assert transcript(events_of(heard)) == [*OPENING, *speaking("Hello, Jane!"), *COMPLETED, DONE]


def test_the_creation_of_a_run_that_others_execute_is_written_when_it_is_answered(loop: Loop, url: str) -> None:
    with serving(loop, Settings(database_url=url), executor=False) as server, client_of(server) as http:
        talk = converse(http, SHORT)
        run = talk.start()
        [row] = look(server, "SELECT * FROM run_events WHERE run_id = $1", run["id"])
        assert transcript(events_of(row["frames"])) == OPENING[:2]


class _Dead:
    """A connection to a database, of a process that has died."""

    async def fetch(self, *_: object, **__: object) -> list[Row]:
        raise Unavailable("It is dead.")

    fetch_row = fetch


def test_outputs_are_told_even_if_who_has_received_them_dies_at_once(loop: Loop, database: Database) -> None:
    """Else the next executor's events would follow upon those of the one before, and nothing would seem amiss."""

    async def scenario() -> None:
        run_id = await add_calling(database)
        [run] = await execute(database, "SELECT thread_id, attempt FROM runs")
        outputs = [ToolOutput(tool_call_id="call_one", output="22 degrees")]
        receiver = EventLog(_Dead())  # type: ignore[arg-type]
        await commands.submit_tool_outputs(database, receiver, PROJECT, run["thread_id"], run_id, outputs, claim=None)
        [row] = await execute(database, "SELECT * FROM run_events")
        assert row["first_number"] == ((run["attempt"] + 1) << 32) + 1
        told = [event.name for event in events_of(row["frames"])]
        assert told == ["thread.run.step.completed", "thread.run.queued"]

    loop.run(scenario())


def test_a_run_is_told_from_its_creation_though_whoever_created_it_is_gone(loop: Loop, database: Database) -> None:
    async def scenario() -> None:
        creator = EventLog(_Dead())  # type: ignore[arg-type]
        both = CreateThreadAndRunRequest(assistant_id=await add_assistant(database))
        how: Json = {"expires_after_s": 600, "claim": None}
        first = await commands.create_thread_and_run(database, creator, ROUTING, PROJECT, both, **how)
        await put(database, first.run.id, RunStatus.COMPLETED)
        request, thread_id = CreateRunRequest(assistant_id=first.run.assistant_id), first.run.thread_id
        second = await commands.create(database, creator, ROUTING, PROJECT, thread_id, request, **how)
        for run, told in ((first.run, ["thread.created"]), (second.run, [])):
            [row] = await execute(database, "SELECT * FROM run_events WHERE run_id = $1", run.id)
            assert row["first_number"] == 1
            names = [event.name for event in events_of(row["frames"])]
            assert names == [*told, "thread.run.created", "thread.run.queued"]

    loop.run(scenario())


# --- Who has had everything


def test_a_reader_that_has_had_everything_gets_the_run_and_the_end_at_once(server: Server, http: httpx.Client) -> None:
    talk = converse(http, SHORT)
    run_id, content = whole(talk)
    last = number_of(split(content)[-1])
    written(server, run_id)
    for number in (last, last + 1, 2**63 - 1):
        begun = time.monotonic()
        assert events_of(back(talk, run_id, after=number)) == [
            Event("thread.run.completed", talk.run(run_id)),
            Event("done", "[DONE]"),
        ]
        assert time.monotonic() - begun < 5


def test_at_the_end_of_a_stream_that_is_not_written_yet_nobody_waits_for_long(http: httpx.Client) -> None:
    talk = converse(http, SHORT)
    run_id, content = whole(talk)
    begun = time.monotonic()
    events = events_of(back(talk, run_id, header=number_of(split(content)[-1])))
    assert transcript(events) == ["thread.run.completed completed", DONE]
    assert time.monotonic() - begun < 5


def test_a_reader_that_knows_numbers_which_are_yet_to_come_waits_for_the_end(http: httpx.Client) -> None:
    talk = converse(http, LONG)
    with cut(talk, 9) as (run_id, _):
        assert transcript(events_of(back(talk, run_id, after=2**62))) == ["thread.run.completed completed", DONE]


# --- A run that waits for its client


ACTION = {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": []}}


async def move(database: Any, lease: Lease, attempt: int, status: RunStatus) -> bytes:
    """Put the run into a status, under an attempt; the event that tells of it."""
    await put(database, lease.run_id, status)
    await execute(database, "UPDATE runs SET attempt = $2 WHERE id = $1", lease.run_id, attempt)
    if status is RunStatus.REQUIRES_ACTION:
        await execute(database, "UPDATE runs SET required_action = $2 WHERE id = $1", lease.run_id, ACTION)
    row = await rows.get(database, runs, "run", lease.run_id)
    return wire.frame(f"thread.run.{status}", Run.of(row).json_bytes())


async def wait_for_outputs(database: Any) -> tuple[Lease, EventLog]:
    """A run that waits, all of whose events are written; and the log of the process that gets the outputs."""
    lease = await add_leased(database)
    log = EventLog(database)
    await log.tell(lease.run_id, 0, [await move(database, lease, 0, RunStatus.QUEUED)])
    await log.tell(lease.run_id, 1, [await move(database, lease, 1, RunStatus.REQUIRES_ACTION), wire.DONE])
    return lease, log


def test_who_comes_back_to_a_run_that_waits_gets_it_at_once_and_after_the_outputs_what_follows(
    loop: Loop, url: str
) -> None:
    with serving(loop, Settings(database_url=url), executor=False) as server, client_of(server) as http:
        lease, log = loop.run(wait_for_outputs(server.resources.database))
        talk = Conversation(http, "", lease.thread_id)
        first = back(talk, lease.run_id)
        done = events_of(first)[-1]
        assert [event.name for event in events_of(first)][-2:] == ["thread.run.requires_action", "done"]
        begun = time.monotonic()
        waiting = events_of(back(talk, lease.run_id, after=done.number))
        assert time.monotonic() - begun < 5
        assert waiting == [Event("thread.run.requires_action", talk.run(lease.run_id)), Event("done", "[DONE]")]

        async def submit() -> None:
            database = server.resources.database
            await log.tell(lease.run_id, 2, [await move(database, lease, 2, RunStatus.QUEUED)])
            await log.tell(lease.run_id, 3, [await move(database, lease, 3, RunStatus.COMPLETED), wire.DONE])

        loop.run(submit())
        assert transcript(events_of(back(talk, lease.run_id, after=done.number))) == [
            "thread.run.queued queued",
            "thread.run.completed completed",
            DONE,
        ]
        assert back(talk, lease.run_id) == first, "a stream ends at its next end"


def test_an_old_end_does_not_pass_for_the_one_that_is_missing(loop: Loop, url: str) -> None:
    """The process that executed the run after the outputs died before it had written of it."""
    with serving(loop, Settings(database_url=url), executor=False) as server, client_of(server) as http:
        lease, _ = loop.run(wait_for_outputs(server.resources.database))
        talk = Conversation(http, "", lease.thread_id)
        done = events_of(back(talk, lease.run_id))[-1]
        loop.run(move(server.resources.database, lease, 3, RunStatus.COMPLETED))
        begun = time.monotonic()
        assert transcript(events_of(back(talk, lease.run_id, after=done.number))) == [COMPLETED[-1], DONE]
        assert time.monotonic() - begun > 0.9, "it might have been written any moment"


NOW = {"type": "function", "function": {"name": "now"}}
CALLING = "[[say: A moment.]] [[call: now {}]]"


def test_a_run_that_calls_functions_is_followed_over_its_pause_by_any_process(loop: Loop, url: str) -> None:
    settings = Settings(database_url=url)
    with (
        serving(loop, settings, executor=False) as front,
        serving(loop, settings) as executor,
        serving(loop, settings, executor=False) as third,
        client_of(front) as http,
        client_of(third) as other,
        client_of(executor) as own,
    ):
        talk = converse(http, CALLING, tools=[NOW])
        readers = [talk, *(Conversation(client, "", talk.thread_id) for client in (other, own))]
        run_id, first = whole(talk)
        assert transcript(events_of(first))[-2:] == ["thread.run.requires_action requires_action", DONE]
        done = number_of(split(first)[-1])
        waiting = [Event("thread.run.requires_action", talk.run(run_id)), Event("done", "[DONE]")]
        written(front, run_id)
        assert [events_of(back(reader, run_id, after=done)) for reader in readers] == [waiting] * 3
        [call] = talk.run(run_id)["required_action"]["submit_tool_outputs"]["tool_calls"]
        sent(talk.submit(run_id, [{"tool_call_id": call["id"], "output": "noon"}]))
        rests = [back(reader, run_id, after=done) for reader in readers]
        assert rests == rests[:1] * 3
        heard = transcript(events_of(rests[0]))
        assert heard[:2] == ["thread.run.step.completed completed", "thread.run.queued queued"]
        assert heard[-4:] == [*COMPLETED, DONE]
        for position, frame in enumerate(split(rests[0])[:-1], start=1):
            assert back(readers[1], run_id, after=number_of(frame)) == b"".join(split(rests[0])[position:])


def test_where_the_events_of_a_waiting_run_are_gone_its_objects_come_in_their_place(loop: Loop, url: str) -> None:
    with serving(loop, Settings(database_url=url)) as server, client_of(server) as http:
        talk = converse(http, CALLING, tools=[NOW])
        run_id, _ = whole(talk)
        written(server, run_id)
        look(server, "TRUNCATE run_events")
        assert transcript(events_of(back(talk, run_id))) == [
            "thread.message.completed completed",
            "thread.run.step.completed completed",
            "thread.run.step.in_progress in_progress",
            "thread.run.requires_action requires_action",
            DONE,
        ]


# --- Where events are missing


@contextmanager
def emptied(loop: Loop, url: str, *contents: str) -> Iterator[tuple[Server, Conversation, list[tuple[str, bytes]]]]:
    """Streams of runs of one thread, after whose end PostgreSQL crashed, which empties the table."""
    with serving(loop, Settings(database_url=url)) as server, client_of(server) as http:
        talk, streams = converse(http), []
        for content in contents:
            talk.say(content)
            streams.append(whole(talk))
            written(server, streams[-1][0])
        look(server, "TRUNCATE run_events")
        yield server, talk, streams


def test_where_the_events_of_an_ended_run_are_gone_its_objects_come_in_their_place(loop: Loop, url: str) -> None:
    with emptied(loop, url, SHORT, "[[say: Half]] [[finish: length]]") as (_, talk, streams):
        for (run_id, content), status in zip(streams, ("completed", "incomplete"), strict=True):
            [message] = [message for message in talk.messages() if message["run_id"] == run_id]
            had = {event.name: event.payload for event in events_of(content)}
            for number in (0, events_of(content)[-1].number):
                assert events_of(back(talk, run_id, after=number)) == [
                    Event(f"thread.message.{status}", message),
                    Event("thread.run.step.completed", had["thread.run.step.completed"]),
                    Event(f"thread.run.{status}", talk.run(run_id)),
                    Event("done", "[DONE]"),
                ]


def test_a_message_that_its_client_has_deleted_does_not_come_back(loop: Loop, url: str) -> None:
    with emptied(loop, url, SHORT) as (_, talk, [(run_id, _)]):
        sent(talk.http.delete(f"{talk.path}/messages/{talk.messages()[-1]['id']}"))
        assert transcript(events_of(back(talk, run_id))) == [*COMPLETED[1:], DONE]


def test_what_stands_in_for_events_has_no_number_to_come_back_to(loop: Loop, url: str) -> None:
    with emptied(loop, url, SHORT) as (_, talk, [(run_id, _)]):
        once = back(talk, run_id, after=7)
        assert b"id: " not in b"".join(line for line in once.split(b"\n") if not line.startswith(b"data"))
        assert back(talk, run_id, after=7) == once


def test_where_the_end_of_a_stream_was_not_written_the_objects_come_after_what_was(loop: Loop, url: str) -> None:
    with serving(loop, Settings(database_url=url)) as server, client_of(server) as http:
        talk = converse(http, LONG)
        run_id, content = whole(talk)
        written(server, run_id)
        stored = look(server, "SELECT * FROM run_events WHERE run_id = $1 ORDER BY first_number", run_id)
        delete(server, stored[-1])
        heard = back(talk, run_id)
        kept = b"".join(row["frames"] for row in stored[:-1])
        assert heard[: len(kept)] == kept == content[: len(kept)]
        assert transcript(events_of(heard[len(kept) :])) == [*COMPLETED, DONE]


def test_a_hole_in_a_stream_of_a_run_that_has_ended_is_filled_with_its_objects(loop: Loop, url: str) -> None:
    with serving(loop, Settings(database_url=url)) as server, client_of(server) as http:
        talk = converse(http, LONG)
        run_id, content = whole(talk)
        written(server, run_id)
        stored = look(server, "SELECT * FROM run_events WHERE run_id = $1 ORDER BY first_number", run_id)
        assert len(stored) > 3
        delete(server, stored[1])
        heard = back(talk, run_id)
        kept = stored[0]["frames"]
        assert heard[: len(kept)] == kept == content[: len(kept)]
        assert transcript(events_of(heard[len(kept) :])) == [*COMPLETED, DONE]
        assert back(talk, run_id, after=stored[1]["last_number"]) == content[len(kept + stored[1]["frames"]) :]
        delete(server, stored[0])
        assert transcript(events_of(back(talk, run_id))) == [*COMPLETED, DONE]


def test_a_hole_in_a_stream_that_goes_on_is_filled_with_the_objects_as_they_are(loop: Loop, url: str) -> None:
    """PostgreSQL crashed while the run was executed: its process goes on, and writes what comes later."""
    with serving(loop, Settings(database_url=url), executor=False) as server, client_of(server) as http:
        database = server.resources.database

        async def prepare() -> Any:
            run, _ = await add_run(database)
            log = EventLog(database)
            log.execute(run.id, 1)
            told = wire.frame("thread.run.in_progress", run.json_bytes())
            await log.tell(run.id, 1, [told] * 3)
            await execute(database, "TRUNCATE run_events")
            await log.tell(run.id, 1, [told])
            await log.tell(run.id, 1, [told, wire.DONE])
            return run

        run = loop.run(prepare())
        talk = Conversation(http, "", run.thread_id)
        for after in (0, 1, (1 << 32) + 1, (1 << 32) + 2):
            events = events_of(back(talk, run.id, after=after))
            assert [(event.name, event.number & 0xFFFFFFFF) for event in events] == [
                ("thread.run.queued", 0),
                ("thread.run.in_progress", 4),
                ("thread.run.in_progress", 5),
                ("done", 6),
            ]
        assert [event.number & 7 for event in events_of(back(talk, run.id, after=(1 << 32) + 3))] == [4, 5, 6]


def test_a_stream_whose_first_attempts_are_gone_begins_with_the_objects(loop: Loop, url: str) -> None:
    """Whether the later ones are in memory here or in the table."""
    with serving(loop, Settings(database_url=url), executor=False) as server, client_of(server) as http:
        database = server.resources.database

        async def prepare() -> tuple[Run, bytes]:
            run, _ = await add_run(database)
            await execute(database, "TRUNCATE run_events")
            log = EventLog(database)
            log.execute(run.id, 2)
            log.append(run.id, 2, [wire.frame("thread.run.in_progress", run.json_bytes()), wire.DONE])
            here = b"".join([frames async for frames in log.follow(run.id)])
            await log.write()
            return run, here

        run, here = loop.run(prepare())
        assert [event.name for event in events_of(here)] == ["thread.run.queued", "thread.run.in_progress", "done"]
        assert back(Conversation(http, "", run.thread_id), run.id) == here


def test_events_are_kept_until_the_last_of_their_run_is_a_day_old(loop: Loop, url: str) -> None:
    with serving(loop, Settings(database_url=url), executor=False) as server:
        database = server.resources.database

        async def prune() -> list[Any]:
            log = EventLog(database)
            for run_id in ("run_old", "run_long"):
                await log.tell(run_id, 0, [wire.frame("thread.test", b"0")])
                await log.tell(run_id, 1, [wire.DONE])
            old = "UPDATE run_events SET written_at = now() - interval '25 hours' WHERE run_id = 'run_old'"
            await execute(database, old)
            await execute(database, f"{old.replace('_old', '_long')} AND first_number = 1")
            await log.prune()
            return await execute(database, "SELECT run_id, first_number FROM run_events ORDER BY first_number")

        assert [tuple(row) for row in loop.run(prune())] == [("run_long", 1), ("run_long", (1 << 32) + 1)]


# --- Who may, and what is refused


def test_nobody_follows_a_run_of_another_thread_or_project_or_none(server: Server, http: httpx.Client) -> None:
    talk, other = converse(http, SHORT), converse(http, SHORT)
    run_id, _ = whole(talk)
    foreign = whole(other)[0]
    for wrong in (f"{talk.path}/runs/run_none/events", path(talk, foreign), path(other, run_id)):
        for query in ({}, {"after": "0"}):
            response = http.get(wrong, params=query)
            assert response.status_code == 404
            assert response.json()["error"]["message"].startswith("No run found with id 'run_")
    stranger = "Bearer key-3997"  # which no test before this one has got to
    assert http.get(path(talk, run_id), headers={"authorization": stranger}).status_code == 404
    assert http.get(path(talk, run_id), headers={"authorization": "Bearer wrong"}).status_code == 401
    assert http.get(path(talk, run_id), headers={"OpenAI-Beta": "assistants=v1"}).status_code == 400


@pytest.mark.parametrize("number", ["", "x", "1_0", "+1", "1.0", "0x1", "٣", " 1", "9" * 5000, "1e3", "true"])
def test_a_number_that_is_none_is_refused(http: httpx.Client, number: str) -> None:
    refused = http.get("/threads/thread_x/runs/run_x/events", params={"after": number})
    message = "Invalid type for 'after': expected an integer, but got a string instead."
    assert (refused.status_code, refused.json()["error"]["message"]) == (400, message)


@pytest.mark.parametrize(("number", "bound"), [("-1", ">= 0"), (TOO_LARGE, f"< {TOO_LARGE}"), ("9" * 30, "< ")])
def test_a_number_out_of_bounds_is_refused(http: httpx.Client, number: str, bound: str) -> None:
    refused = http.get("/threads/thread_x/runs/run_x/events", params={"after": number})
    assert refused.status_code == 400
    assert f"Expected a value {bound}" in refused.json()["error"]["message"]


@pytest.mark.parametrize("number", ["", "x", "1_0", "-1", "1.0", "1, 2", "9" * 5000, TOO_LARGE, "\xb2"])
def test_a_last_event_id_that_is_no_number_is_refused(http: httpx.Client, number: str) -> None:
    headers = {b"Last-Event-ID": number.encode("latin-1")}
    refused = http.get("/threads/thread_x/runs/run_x/events", headers=headers)
    error = refused.json()["error"]
    assert (refused.status_code, error["param"], error["code"]) == (400, "Last-Event-ID", "invalid_value")
    assert error["message"] == (
        f"Invalid 'Last-Event-ID' header: '{number[:64]}'. Expected the number of an event, as the 'id:' lines of "
        "streams have it."
    )


@pytest.mark.parametrize("number", ["0", "007", str(2**63 - 1)])
def test_any_number_below_the_bound_is_one(http: httpx.Client, number: str) -> None:
    nowhere = "/threads/thread_x/runs/run_x/events"
    assert http.get(nowhere, params={"after": number}).status_code == 404
    assert http.get(nowhere, headers={"Last-Event-ID": number}).status_code == 404


# --- Who leaves, and what goes


@pytest.mark.parametrize("elsewhere", [False, True], ids=["here", "elsewhere"])
def test_the_stream_of_a_run_that_is_deleted_ends_with_an_error(loop: Loop, url: str, elsewhere: bool) -> None:
    settings = Settings(database_url=url)
    with (
        serving(loop, settings) as one,
        serving(loop, settings, executor=False) as two,
        client_of(one) as http,
        client_of(two if elsewhere else one) as reader,
    ):
        talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
        run_id = talk.start()["id"]
        with reader.stream("GET", path(talk, run_id)) as response:
            events = []
            for event in read(response):
                events.append(event)
                if " word3" in str(event.payload) and event.name == "thread.message.delta":
                    sent(http.delete(talk.path))
        assert events[-2].payload["error"]["message"] == f"No run found with id '{run_id}'."
        assert [event.name for event in events[-2:]] == ["error", "done"]
        assert reader.get(path(talk, run_id)).status_code == 404


def test_a_follower_that_leaves_does_not_end_the_run(http: httpx.Client) -> None:
    talk = converse(http, LONG)
    run_id = talk.start()["id"]
    with http.stream("GET", path(talk, run_id)) as response:
        next(response.iter_bytes())
    assert talk.ended(run_id)["status"] == "completed"


def test_many_may_follow_one_run(http: httpx.Client) -> None:
    talk = converse(http, LONG)
    run_id = talk.start()["id"]
    with http.stream("GET", path(talk, run_id)) as one, http.stream("GET", path(talk, run_id)) as two:
        heard = [b"".join(one.iter_bytes()), b"".join(two.iter_bytes())]
    assert heard == [back(talk, run_id)] * 2
