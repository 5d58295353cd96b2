"""Two who want something else of a run at the same moment: it ends once, and everybody is told the same of it."""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle, islice
from typing import Any

import httpx

from adlatus.errors import InvalidRequest
from adlatus.runs import commands
from adlatus.runs.expiry import expire
from adlatus.settings import Settings
from adlatus.store.db import Database
from adlatus.store.events import EventLog
from adlatus.wire.runs import ToolOutput
from tests.conftest import Loop, serving
from tests.runs.functions import OUTPUTS, calculator, message_of
from tests.runs.stored import PROJECT, add_calling, execute
from tests.runs.transcripts import (
    DONE,
    Conversation,
    Event,
    asked,
    check_ended,
    client_of,
    converse,
    sent,
    transcript,
    words,
)
from tests.runs.upstream import HEAD, chunk, upstream

Json = dict[str, Any]
TOO_LATE = 'Runs in status "expired" do not accept tool outputs.'


def at_once(*acts: Callable[[], httpx.Response]) -> list[httpx.Response]:
    """What comes of requests that are sent at the same moment."""
    gate = threading.Barrier(len(acts))

    def act(which: Callable[[], httpx.Response]) -> httpx.Response:
        gate.wait(10)
        return which()

    with ThreadPoolExecutor(len(acts)) as pool:
        return list(pool.map(act, acts))


def cancelled_after(talk: Conversation, count: int) -> tuple[list[Event], httpx.Response]:
    """A new run's stream, in the middle of which the run is cancelled; and what came of that."""
    events: list[Event] = []
    answer = httpx.Response(0)
    with talk.streaming() as stream:
        for event in stream:
            events.append(event)
            if len(events) == count:
                answer = talk.cancel(events[0].payload["id"])
    return events, answer


def test_a_cancel_races_with_the_finish(http: httpx.Client) -> None:
    """The stream of each has 14 events; the model pauses for about as long as a cancel takes, or not at all."""
    outcomes = set()
    for count, pace_ms in islice(zip(cycle(range(1, 14)), cycle(range(6)), strict=False), 78):
        events, answer = cancelled_after(converse(http, f"[[tokens: 4]] [[pace: {pace_ms / 1000}]]"), count)
        talk = Conversation(http, "", events[0].payload["thread_id"])
        run, messages, steps = check_ended(talk, events)
        outcomes.add((answer.status_code, run["status"]))
        assert run["status"] in ("cancelled", "completed")
        assert run["status"] == "completed" or answer.status_code == 200
        assert [step["status"] for step in steps] == [run["status"]] * len(steps)
        assert all(message["status"] != "in_progress" for message in messages)
        assert [line for line in transcript(events) if line == DONE] == [DONE]
        if answer.status_code == 400:
            assert message_of(answer) == "Cannot cancel run with status 'completed'."
    assert {(200, "cancelled"), (400, "completed")} <= outcomes


def test_a_cancel_races_with_the_calls_becoming_known(http: httpx.Client) -> None:
    """Such a run is cancelled in any case: while its calls are written, or while they wait."""
    last = set()
    for count, pace_ms in islice(zip(cycle(range(3, 14)), cycle(range(6)), strict=False), 44):
        talk = calculator(http, f'[[call: add {{"a": 3}}]] [[call: multiply]] [[pace: {pace_ms / 1000}]]')
        events, answer = cancelled_after(talk, count)
        run_id = events[0].payload["id"]
        if not events[-2].payload["required_action"]:
            check_ended(talk, events)
        if answer.status_code == 0:  # there were fewer events
            answer = talk.cancel(run_id)
        assert sent(answer)["status"] == "cancelling"
        run = talk.ended(run_id)
        assert (run["status"], run["required_action"]) == ("cancelled", None)
        for step in talk.steps(run_id):
            assert step["status"] == "cancelled"
            assert all(call["function"]["output"] is None for call in step["step_details"]["tool_calls"])
        last.add(events[-2].name)
    assert last == {"thread.run.cancelled", "thread.run.requires_action"}


def test_of_two_cancels_at_once_one_is_refused(http: httpx.Client) -> None:
    for _ in range(10):
        talk = converse(http, "[[stall]]")
        run = talk.start()
        answers = at_once(*[lambda talk=talk, run=run: talk.cancel(run["id"])] * 3)
        assert sorted(answer.status_code for answer in answers) == [200, 400, 400]
        refusals = {message_of(answer) for answer in answers if answer.status_code == 400}
        assert refusals <= {f"Cannot cancel run with status '{status}'." for status in ("cancelling", "cancelled")}
        assert talk.ended(run["id"])["status"] == "cancelled"


def test_of_two_submits_at_once_one_is_taken(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]] [[delay: 0.2]]")
    run = talk.waiting()
    outputs = asked(OUTPUTS, run)
    answers = at_once(*[lambda: talk.submit(run["id"], outputs)] * 8)
    assert sorted(answer.status_code for answer in answers) == [200, *[400] * 7]
    for answer in answers:
        assert answer.status_code == 200 or "do not accept tool outputs." in message_of(answer)
    assert talk.ended(run["id"])["status"] == "completed"
    assert len(talk.steps(run["id"])) == 2


def test_of_a_submit_and_a_cancel_at_once_the_run_ends_as_one_of_them_means(http: httpx.Client) -> None:
    endings = set()
    for _ in range(10):
        talk = calculator(http, "[[call: add]] [[delay: 0.02]]")
        run = talk.waiting()
        outputs = asked(OUTPUTS, run)

        def submit(talk: Conversation = talk, run: Json = run, outputs: Any = outputs) -> httpx.Response:
            return talk.submit(run["id"], outputs)

        def cancel(talk: Conversation = talk, run: Json = run) -> httpx.Response:
            return talk.cancel(run["id"])

        submitted, cancelled = (answer.status_code for answer in at_once(submit, cancel))
        assert {submitted, cancelled} <= {200, 400}
        assert 200 in (submitted, cancelled)
        ended = talk.ended(run["id"])
        assert ended["status"] == ("cancelled" if cancelled == 200 else "completed")
        assert all(step["status"] != "in_progress" for step in talk.steps(run["id"]))
        endings.add(ended["status"])
    assert "cancelled" in endings


def test_a_submit_races_with_the_expiry(loop: Loop, database: Database) -> None:
    """Many runs expire at one moment, about which each gets its outputs, while others look for overdue ones."""

    async def submit(log: EventLog, run: Json) -> str:
        outputs = [ToolOutput(tool_call_id="call_one", output="sunny")]
        submitting = commands.submit_tool_outputs(
            database, log, PROJECT, run["thread_id"], run["id"], outputs, claim=None
        )
        try:
            return (await submitting).run.status
        except InvalidRequest as error:
            return error.message

    async def sweep(log: EventLog, done: asyncio.Event) -> None:
        while not done.is_set():
            await expire(database, log)

    async def scenario() -> list[tuple[Json, str]]:
        for _ in range(60):
            await add_calling(database)
        while not (await execute(database, "SELECT 1 WHERE extract(epoch FROM now()) % 1 > 0.9")):
            await asyncio.sleep(0)
        await execute(database, "UPDATE runs SET expires_at = floor(extract(epoch FROM now())) + 1")
        runs, log, done = await execute(database, "SELECT id, thread_id FROM runs"), EventLog(database), asyncio.Event()
        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(sweep(log, done))
            told = [(dict(run), await submit(log, dict(run))) for run in runs]
            while not await execute(database, "SELECT 1 WHERE extract(epoch FROM now()) % 1 BETWEEN 0.2 AND 0.8"):
                await asyncio.sleep(0)
            done.set()
        return told

    told = loop.run(scenario())
    for run, status in told:
        [row] = loop.run(execute(database, "SELECT status, required_action FROM runs WHERE id = $1", run["id"]))
        [step] = loop.run(execute(database, "SELECT status FROM run_steps WHERE run_id = $1", run["id"]))
        assert row["required_action"] is None
        if status == "queued":
            # It had its outputs in time, but nobody executes it: it expires as queued
            assert (row["status"], step["status"]) in {("queued", "completed"), ("expired", "completed")}
        else:
            assert (row["status"], step["status"]) == ("expired", "expired")
    assert {status for _, status in told} == {"queued", TOO_LATE}


def test_a_cancel_while_tokens_are_counted_takes_nothing_back(loop: Loop, new_database: Callable[[], str]) -> None:
    """Of an answer that was broken off the usage is counted here, which takes a while if it is long."""
    text = "".join(f"{number:x} " for number in range(400_000))
    with (
        upstream(HEAD, chunk(text)) as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = converse(http, "Hello?")
        with talk.streaming() as stream:
            events: list[Event] = []
            for event in stream:
                events.append(event)
                if event.name == "thread.message.delta":
                    sent(talk.cancel(events[0].payload["id"]))
        run, [message], [step] = check_ended(talk, events)
        assert (run["status"], step["status"]) == ("cancelled", "cancelled")
        assert words(message["content"]) == text
        assert run["usage"] == step["usage"]
        assert run["usage"]["completion_tokens"] > 400_000
        assert model.requests == 1
