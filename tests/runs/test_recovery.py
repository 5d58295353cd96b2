"""Recovery, which is nothing but executing from whatever a dead executor has left."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from adlatus.settings import Settings
from adlatus.store import leases
from adlatus.store.db import Database
from adlatus.wire.runs import RunStatus as S
from tests.conftest import Loop, serving
from tests.runs.functions import ENDED, OUTPUTS, QUEUED_AGAIN, TOOLS, WAITS
from tests.runs.stored import add_run, ask_client, calling, claim_and_die, expire_lease, put
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Conversation,
    Event,
    asked,
    client_of,
    parse,
    read,
    requests,
    speaking,
    transcript,
    unique,
    words,
)
from tests.runs.transcripts import calling as told_calls

Json = dict[str, Any]


@contextmanager
def run_after_deaths(
    loop: Loop, database: Database, *deaths: tuple[str | Json, ...], text: str = "[[say: The whole answer.]]"
) -> Iterator[tuple[list[Event], Conversation]]:
    """The stream, read at a server without an executor, of a run whose first executors died; then one lives."""
    settings = Settings(database_url=database.dsn)
    with serving(loop, settings, executor=False) as front, client_of(front) as http:

        async def prepare() -> Any:
            run, _ = await add_run(database, text=text, tools=TOOLS)
            for pieces in deaths:
                await claim_and_die(database, *pieces)
            return run

        async def read(run_id: str) -> bytes:
            return b"".join([frames async for frames in front.resources.events.follow(run_id)])

        run = loop.run(prepare())
        talk = Conversation(http, run.assistant_id, run.thread_id)
        with serving(loop, settings):
            events = list(parse(loop.run(read(run.id)).decode().split("\n")))
            assert talk.run(run.id) == events[-2].payload
            check_nothing_is_left_half_done(talk, run.id)
            yield events, talk


def check_nothing_is_left_half_done(talk: Conversation, run_id: str) -> None:
    waits = talk.run(run_id)["status"] == "requires_action"
    assert [step["status"] for step in talk.steps(run_id)].count("in_progress") == waits
    assert all(message["status"] != "in_progress" for message in talk.messages())


def test_a_half_written_message_of_a_dead_executor_is_taken_back_and_asked_for_again(
    loop: Loop, database: Database
) -> None:
    with run_after_deaths(loop, database, ("The wh", "ole")) as (events, talk):
        assert transcript(events) == [
            "thread.created",
            *OPENING,
            *speaking("The whole"),
            "thread.message.incomplete incomplete",
            "thread.run.step.cancelled cancelled",
            *speaking("The whole answer."),
            "thread.message.completed completed",
            "thread.run.step.completed completed",
            "thread.run.completed completed",
            DONE,
        ]
        first, second = (event.payload["id"] for event in events if event.name == "thread.message.created")
        assert first != second
        taken_back = next(event.payload for event in events if event.name == "thread.message.incomplete")
        assert (taken_back["id"], taken_back["incomplete_details"]) == (first, {"reason": "run_failed"})
        _, answer = talk.messages()
        assert answer["id"] == second
        assert len(talk.steps(answer["run_id"])) == 1
        assert [event.number >> 32 for event in events if event.name == "thread.message.created"] == [1, 2]


def test_a_run_whose_executor_died_before_the_first_token_is_just_executed(loop: Loop, database: Database) -> None:
    with run_after_deaths(loop, database, ()) as (events, talk):
        assert transcript(events) == [
            "thread.created",
            *OPENING,
            *speaking("The whole answer."),
            "thread.message.completed completed",
            "thread.run.step.completed completed",
            "thread.run.completed completed",
            DONE,
        ]
        assert talk.answer() == "The whole answer."


def test_the_third_executor_may_still_complete_a_run(loop: Loop, database: Database) -> None:
    with run_after_deaths(loop, database, ("The",), ("The wh",)) as (events, talk):
        assert transcript(events)[-2:] == ["thread.run.completed completed", DONE]
        assert [message["role"] for message in talk.messages()] == ["user", "assistant"]
        assert talk.answer() == "The whole answer."


def test_a_run_that_three_executors_died_of_fails(loop: Loop, database: Database) -> None:
    with run_after_deaths(loop, database, ("The",), ("The wh",), ("The whole",)) as (events, talk):
        assert transcript(events)[-4:] == [
            "thread.message.incomplete incomplete",
            "thread.run.step.cancelled cancelled",
            "thread.run.failed failed",
            DONE,
        ]
        assert events[-2].payload["last_error"] == {"code": "server_error", "message": "Sorry, something went wrong."}
        assert [message["role"] for message in talk.messages()] == ["user"]
        assert talk.steps(events[-2].payload["id"]) == []


def test_a_run_that_was_handed_back_often_is_still_executed(loop: Loop, database: Database) -> None:
    async def hand_back() -> None:
        [lease] = await leases.RUNS.claim(database, "the polite", 1)
        await leases.RUNS.release_if_held(database, lease)

    async def prepare() -> Any:
        run, _ = await add_run(database, text="[[say: The whole answer.]]")
        for _ in range(5):
            await hand_back()
        return run

    run = loop.run(prepare())
    with serving(loop, Settings(database_url=database.dsn)) as server, client_of(server) as http:
        assert Conversation(http, run.assistant_id, run.thread_id).ended(run.id)["status"] == "completed"


def test_a_run_whose_cancel_an_executor_did_not_live_to_see_is_cancelled(loop: Loop, database: Database) -> None:
    settings = Settings(database_url=database.dsn)
    with serving(loop, settings, executor=False) as front, client_of(front) as http:

        async def prepare() -> Any:
            run, _ = await add_run(database)
            await claim_and_die(database, "Half")
            await put(database, run.id, S.CANCELLING)
            return run

        run = loop.run(prepare())
        talk = Conversation(http, run.assistant_id, run.thread_id)
        with serving(loop, settings):
            assert talk.ended(run.id)["status"] == "cancelled"
            check_nothing_is_left_half_done(talk, run.id)


def test_cancelling_a_run_whose_executor_is_dead_ends_it_at_once(loop: Loop, database: Database) -> None:
    """Nobody renewed its lease, so the request itself completes the cancel."""
    with serving(loop, Settings(database_url=database.dsn), executor=False) as front, client_of(front) as http:

        async def prepare() -> Any:
            run, _ = await add_run(database)
            await claim_and_die(database, "Half")
            return run

        run = loop.run(prepare())
        talk = Conversation(http, run.assistant_id, run.thread_id)
        assert talk.cancel(run.id).json()["status"] == "cancelling"
        assert talk.run(run.id)["status"] == "cancelled"
        [step] = talk.steps(run.id)
        assert step["status"] == "cancelled"
        _, message = talk.messages()
        assert (message["status"], message["incomplete_details"]) == ("incomplete", {"reason": "run_cancelled"})


# --- With calls


@pytest.mark.parametrize("said", [(), ("Let me",)], ids=["calls", "text and calls"])
def test_calls_that_a_dead_executor_left_half_written_are_taken_back(
    loop: Loop, database: Database, said: tuple[str, ...]
) -> None:
    half = calling("add", '{"a": '), calling("multiply", "", index=1)
    text = '[[say: Let me see.]] [[call: add {"a": 3}]]'
    with run_after_deaths(loop, database, (*said, *half), text=text) as (events, talk):
        assert transcript(events) == [
            "thread.created",
            *OPENING,
            *([*speaking("Let me"), *ENDED[:2]] if said else []),
            *told_calls('add {"a": ', "multiply "),
            "thread.run.step.cancelled cancelled",
            *speaking("Let me see."),
            *ENDED[:2],
            *told_calls('add {"a": 3}'),
            *WAITS,
        ]
        run = events[-2].payload
        kinds = ["message_creation", "tool_calls"]
        assert [step["type"] for step in talk.steps(run["id"])] == kinds[:1] * len(said) + kinds
        rest = talk.submitting(run["id"], asked(OUTPUTS, run))
        assert rest[-2].name == "thread.run.completed"
        assert rest[-2].payload == talk.run(run["id"])
        assert [words(message["content"]) for message in talk.messages()[1:]] == [*said, "Let me see.", "Let me see."]


def test_what_a_dead_executor_has_committed_and_not_told_is_told_by_the_next(loop: Loop, database: Database) -> None:
    settings = Settings(database_url=database.dsn)
    with serving(loop, settings, executor=False) as front, client_of(front) as http:

        async def prepare() -> Any:
            run, _ = await add_run(database, text="[[say: The whole answer.]]", tools=TOOLS)
            await claim_and_die(database, "Let me", calling("add", '{"a": '), writes=False)
            return run

        run = loop.run(prepare())
        talk = Conversation(http, run.assistant_id, run.thread_id)
        with serving(loop, settings), http.stream("GET", f"{talk.path}/runs/{run.id}/events") as response:
            events = list(read(response))
        assert transcript(events) == [
            "thread.created",
            *OPENING,
            *ENDED[:2],
            "thread.run.step.cancelled cancelled",
            *speaking("The whole answer."),
            *ENDED,
        ]
        wrote, said = talk.messages()[1:]
        assert [event.payload for event in events if event.name == "thread.message.completed"] == [wrote, said]


DEATHS: dict[str, tuple[str, ...] | None] = {
    "before the second turn": None,
    "before its first token": (),
    "in its text": ("Half",),
}


@pytest.mark.parametrize("death", DEATHS.values(), ids=DEATHS)
def test_calls_that_have_outputs_are_not_asked_for_again(
    loop: Loop, database: Database, death: tuple[str, ...] | None
) -> None:
    settings = Settings(database_url=database.dsn)
    prompt = unique("[[call: multiply]] [[say: Seven.]]")
    with serving(loop, settings, executor=False) as front, client_of(front) as http:

        async def begin() -> Any:
            run, lease = await add_run(database, text=prompt, tools=TOOLS, leased=True)
            assert lease
            await ask_client(database, lease)
            return run

        async def die(run_id: str) -> None:
            if death is None:
                assert await leases.RUNS.claim(database, "the dead", 1)
                await expire_lease(database, run_id)
            else:
                await claim_and_die(database, *death)

        run = loop.run(begin())
        talk = Conversation(http, run.assistant_id, run.thread_id)
        outputs = [{"tool_call_id": "call_one", "output": "7"}]
        with talk.submitting_to(run.id, outputs) as stream:
            loop.run(die(run.id))
            with serving(loop, settings) as back:
                events = list(stream)
                asking = requests(back, prompt)
        taken_back = ["thread.message.incomplete incomplete", "thread.run.step.cancelled cancelled"]
        assert transcript(events) == [
            *QUEUED_AGAIN,
            *((*speaking("Half"), *taken_back) if death else ()),
            *speaking("Seven."),
            *ENDED,
        ]
        [request] = asking
        assert request["messages"][-1] == {"role": "tool", "tool_call_id": "call_one", "content": "7"}
        called, wrote = talk.steps(run.id)
        assert (called["type"], called["status"], wrote["type"]) == ("tool_calls", "completed", "message_creation")
        assert called["step_details"]["tool_calls"][0]["function"]["output"] == "7"
