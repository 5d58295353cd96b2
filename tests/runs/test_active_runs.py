"""What may be done to a thread, to its messages and to an assistant while a run is active, and how one is replaced."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.functions import OUTPUTS, calculator, message_of
from tests.runs.transcripts import (
    CANCELLED,
    DONE,
    OPENING,
    Conversation,
    Event,
    asked,
    check_ended,
    client_of,
    converse,
    eventually,
    parse,
    sent,
    speaking,
    transcript,
    words,
)

Json = dict[str, Any]
REPLACE = {"adlatus-on-active-run": "replace"}


def speaks(talk: Conversation) -> Json:
    """A new run of a model that speaks for ever, once it has spoken."""
    run = talk.start()
    eventually(lambda: len(talk.messages()) > 1)
    return run


def replacing(talk: Conversation, **body: Any) -> httpx.Response:
    """A new run in the place of the active one."""
    return talk.http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id, **body}, headers=REPLACE)


def said(talk: Conversation) -> list[tuple[str, str]]:
    """What is in the thread: status and text of each message."""
    return [(message["status"], words(message["content"])) for message in talk.messages()]


# --- Messages


def test_the_message_that_is_being_written_cannot_be_deleted_and_others_can(http: httpx.Client) -> None:
    talk = converse(http, "First", "[[tokens: 6]] [[stall: 3]]")
    run = talk.start()
    eventually(lambda: len(talk.messages()) == 3)
    first, asking, writing = (message["id"] for message in talk.messages())
    refused = message_of(http.delete(f"{talk.path}/messages/{writing}"))
    assert refused == f"Can't delete {writing} while a run {run['id']} is writing it. Cancel the run first."
    for message_id in (first, asking):
        assert sent(http.delete(f"{talk.path}/messages/{message_id}"))["deleted"]
    sent(talk.cancel(run["id"]))
    talk.ended(run["id"])
    assert said(talk) == [("incomplete", "word1 word2 word3")]
    assert sent(http.delete(f"{talk.path}/messages/{writing}"))["deleted"]
    assert talk.messages() == []


def test_a_message_that_was_written_before_calls_can_be_deleted_while_they_wait(http: httpx.Client) -> None:
    talk = calculator(http, "[[say: Let me see.]] [[call: add]]")
    run = talk.waiting()
    _, written = talk.messages()
    assert sent(http.delete(f"{talk.path}/messages/{written['id']}"))["deleted"]
    assert talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])["status"] == "completed"
    assert [text for _, text in said(talk)[1:]] == ["Let me see."]


# --- What a run has copied


def modify_everything(talk: Conversation, run: Json) -> None:
    """Modify the metadata of the thread, its messages, its run and the assistant."""
    paths = ["", f"/runs/{run['id']}", *(f"/messages/{message['id']}" for message in talk.messages())]
    for path in [f"/assistants/{talk.assistant_id}", *(f"{talk.path}{path}" for path in paths)]:
        changed = sent(talk.http.post(path, json={"metadata": {"changed": "yes"}}))
        assert changed["metadata"] == {"changed": "yes"}, path


def test_metadata_may_be_modified_while_the_model_speaks(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
    events: list[Event] = []
    with talk.streaming() as stream:
        for event in stream:
            events.append(event)
            if transcript(events)[-1] == "thread.message.delta word1 word2 word3":
                run = events[0].payload
                modify_everything(talk, run)
                sent(talk.cancel(run["id"]))
    ended, [message], _ = check_ended(talk, events)
    assert ended["metadata"] == message["metadata"] == {"changed": "yes"}


def test_metadata_may_be_modified_while_calls_wait(http: httpx.Client) -> None:
    talk = calculator(http, "[[say: Let me see.]] [[call: add]]")
    run = talk.waiting()
    modify_everything(talk, run)
    assert talk.run(run["id"]) == run | {"metadata": {"changed": "yes"}}
    events = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert events[-2].payload["metadata"] == {"changed": "yes"}
    assert talk.run(run["id"])["status"] == "completed"


@pytest.mark.parametrize("change", ["deleted", "modified"])
def test_a_run_goes_on_with_its_own_copy_of_the_assistant(http: httpx.Client, change: str) -> None:
    talk = calculator(http, "[[call: add]] [[echo: request]]", instructions="Be kind.")
    run = talk.waiting()
    if change == "deleted":
        sent(http.delete(f"/assistants/{talk.assistant_id}"))
    else:
        sent(
            http.post(f"/assistants/{talk.assistant_id}", json={"model": "o3", "instructions": "Be rude.", "tools": []})
        )
    events = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert events[-2].name == "thread.run.completed"
    request = httpx.Response(200, text=talk.answer()).json()
    assert (request["model"], request["messages"][0]["content"]) == ("gpt-4o", "Be kind.")
    assert [tool["function"]["name"] for tool in request["tools"]] == ["add", "multiply"]
    assert talk.run(run["id"])["assistant_id"] == talk.assistant_id


def test_an_assistant_may_be_deleted_while_its_run_speaks(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[pace: 0.05]]")
    run = speaks(talk)
    sent(http.delete(f"/assistants/{talk.assistant_id}"))
    assert talk.ended(run["id"])["status"] == "completed"


# --- Refused while one is active, unless it is to be replaced


@pytest.mark.parametrize("header", [{}, {"adlatus-on-active-run": "wait"}, {"adlatus-on-active-run": ""}])
def test_without_the_header_a_second_run_is_refused(http: httpx.Client, header: dict[str, str]) -> None:
    talk = converse(http, "[[stall]]")
    run = talk.start()
    body = {"assistant_id": talk.assistant_id}
    refused = http.post(f"{talk.path}/runs", json=body, headers=header)
    if header:
        assert refused.status_code == 400
        error = refused.json()["error"]
        assert (error["param"], error["code"]) == ("adlatus-on-active-run", "invalid_value")
        assert "may be 'replace'" in error["message"]
    else:
        assert message_of(refused) == f"Thread {talk.thread_id} already has an active run {run['id']}."
    assert talk.run(run["id"])["status"] in ("queued", "in_progress")
    sent(talk.cancel(run["id"]))


def test_a_run_that_speaks_is_replaced_and_what_it_said_stays(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
    events: list[Event] = []
    more = [{"role": "user", "content": "[[say: Instead.]]"}]
    with talk.streaming() as stream:
        for event in stream:
            events.append(event)
            if transcript(events)[-1] == "thread.message.delta word1 word2 word3":
                second = sent(replacing(talk, additional_messages=more))
    assert transcript(events) == [
        *OPENING,
        *speaking("word1 word2 word3"),
        *CANCELLED,
        DONE,
    ]
    check_ended(talk, events)
    assert second["status"] == "queued"
    assert talk.ended(second["id"])["status"] == "completed"
    assert said(talk)[1:] == [
        ("incomplete", "word1 word2 word3"),
        ("completed", "[[say: Instead.]]"),
        ("completed", "Instead."),
    ]


def test_the_run_that_replaces_another_can_be_streamed(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
    first = speaks(talk)
    more = [{"role": "user", "content": "[[say: Instead.]]"}]
    response = replacing(talk, additional_messages=more, stream=True)
    events = list(parse(response.iter_lines()))
    assert transcript(events)[:3] == OPENING
    assert transcript(events)[-2:] == ["thread.run.completed completed", DONE]
    check_ended(talk, events)
    assert talk.run(first["id"])["status"] == "cancelled"


def test_a_run_that_waits_for_its_client_is_replaced(http: httpx.Client) -> None:
    talk = calculator(http, "[[say: Let me see.]] [[call: add]]")
    first = talk.waiting()
    more = [{"role": "user", "content": "[[say: Never mind.]]"}]
    second = sent(replacing(talk, additional_messages=more))
    ended = talk.run(first["id"])
    assert (ended["status"], ended["required_action"]) == ("cancelled", None)
    assert [step["status"] for step in talk.steps(first["id"])] == ["completed", "cancelled"]
    assert talk.ended(second["id"])["status"] == "completed"
    assert [text for _, text in said(talk)[1:]] == ["Let me see.", "[[say: Never mind.]]", "Never mind."]


@pytest.fixture
def idle(loop: Loop, database_url: str) -> Iterator[httpx.Client]:
    """A client of a server that executes no runs."""
    with serving(loop, Settings(database_url=database_url), executor=False) as server, client_of(server) as client:
        yield client


def test_a_run_that_nobody_executes_is_replaced_at_once(idle: httpx.Client) -> None:
    talk = converse(idle, "Hello?")
    first = talk.start()
    second = sent(replacing(talk))
    assert (talk.run(first["id"])["status"], talk.run(second["id"])["status"]) == ("cancelled", "queued")


def test_the_header_changes_nothing_where_no_run_is_active(http: httpx.Client) -> None:
    talk = converse(http, "[[say: Hi.]]")
    assert talk.ended(sent(replacing(talk))["id"])["status"] == "completed"


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({"assistant_id": f"asst_{'0' * 24}"}, 404),
        ({"temperature": 3}, 400),
        ({"tool_choice": "required"}, 400),
        ({"additional_messages": [{"role": "nobody", "content": "Hello?"}]}, 400),
        ({"unknown": 1}, 400),
    ],
)
def test_a_run_that_is_not_right_in_itself_replaces_none(http: httpx.Client, body: Json, status: int) -> None:
    talk = converse(http, "[[stall]]")
    run = talk.start()
    assert replacing(talk, **body).status_code == status
    assert talk.run(run["id"])["status"] in ("queued", "in_progress")
    assert len(talk.messages()) == 1
    sent(talk.cancel(run["id"]))


def test_runs_that_replace_at_once_replace_one_another(http: httpx.Client) -> None:
    for _ in range(5):
        talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
        first = talk.start()
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(lambda _, talk=talk: replacing(talk), range(4)))
        ids = {sent(answer)["id"] for answer in answers}
        assert len(ids) == 4
        statuses = sorted(talk.run(run_id)["status"] for run_id in {first["id"], *ids})
        assert statuses[:4] == ["cancelled"] * 4
        assert statuses[4] in ("in_progress", "queued")
        sent(talk.cancel(talk.active()))


def test_a_run_on_another_process_is_replaced(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings, executor=False) as front, serving(loop, settings), client_of(front) as http:
        talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
        first = speaks(talk)
        more = [{"role": "user", "content": "[[say: Instead.]]"}]
        second = sent(replacing(talk, additional_messages=more))
        assert talk.run(first["id"])["status"] == "cancelled"
        assert talk.ended(second["id"])["status"] == "completed"
        assert said(talk)[1] == ("incomplete", "word1 word2 word3")
