"""File search inside runs: each scenario as the transcript of its stream, what REST shows, and what the model saw."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from openai import AssistantEventHandler, OpenAI

from tests.conftest import Loop, Server
from tests.retrieval.qdrant_server import qdrant_server
from tests.runs.functions import ENDED, QUEUED_AGAIN, WAITS, calls_of, function
from tests.runs.searching import (
    CONTENT,
    FOODS,
    SEARCH,
    call,
    exchange,
    forget,
    including,
    named,
    played,
    researcher,
    scripted,
    searches,
    store_of,
    upload,
)
from tests.runs.stored import execute
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Conversation,
    Event,
    asked,
    check_ended,
    client_of,
    eventually,
    read,
    sent,
    speaking,
    transcript,
)

Json = dict[str, Any]

QUESTION = "Using the files you have available, what's Filip's favorite food?"
ANSWER = "Filip's favorite food is cake【4:0†favorite_foods.txt】."
SCRIPT = [
    exchange(QUESTION, {"tool_calls": [call("Filip Carola favorite food")]}),
    exchange(QUESTION, {"text": ANSWER}, results="【4:0†favorite_foods.txt】 favorite_foods.txt\nThe favorite"),
    exchange("Any?", {"tool_calls": [call("Filip Carola favorite food")]}),
    exchange("Any?", {"text": "Yes."}, results=""),
    exchange("And again?", {"tool_calls": [call("Filip Carola favorite food")]}),
    exchange(
        "And again?", {"text": "Cake【6:0†favorite_foods.txt】, as I said【4:0†favorite_foods.txt】."}, results="【6:0†"
    ),
    exchange("What about Rome?", {"tool_calls": [call("zzyzx")]}),
    exchange("What about Rome?", {"text": "Nothing 【4:0†x】 is known."}, results="No passages were found"),
    exchange("Malformed?", {"tool_calls": [{"name": "file_search", "arguments": "{"}]}),
    exchange("Malformed?", {"text": "Sorry."}, results="Nothing was searched: the arguments are not JSON"),
    exchange("Two?", {"tool_calls": [call("Filip Carola"), call("Tekakwitha Effie", "pizza")]}),
    exchange("Two?", {"text": "【注意】 Cake [4:0†a] and pizza 【5:0】 【9:9†b】."}, results=""),
    exchange("Both?", {"tool_calls": [call("Filip"), {"name": "add", "arguments": "{}"}, call("Effie")]}),
    exchange("Both?", {"text": "Done【6:0】."}, tool_results={"add": "7"}),
    exchange("Own?", {"tool_calls": [call("Filip", name="file_search_2")]}, tools=["file_search", "file_search_2"]),
    exchange("Own?", {"text": "Cake【4:0】"}, results="", tools=["file_search_2"]),
    exchange("For ever?", {"tool_calls": [call("Filip")]}, tools=["file_search"]),
    exchange("For ever?", {"tool_calls": [call("Filip")]}, tools=["file_search"], results=""),
    exchange("For ever?", {"text": "Enough."}, results=""),
    exchange("Late?", {"tool_calls": [call("Filip")], "delay_s": 0.5}),
    exchange("Slow?", {"tool_calls": [call("Filip")]}),
    exchange("Slow?", {"text": "It is the cake【4:0†favorite_foods.txt】.", "pace_s": 0.5}, results=""),
    exchange("Long?", {"tool_calls": [call("Filip")]}),
    exchange("Long?", {"text": "Cake[4:0†x] and " + "more " * 100, "pace_s": 0.1}, results=""),
    exchange("Unknown?", {"tool_calls": [{"name": "msearch"}]}),
    exchange("Unknown?", {"text": "I see."}, tool_results={"msearch": {"contains": "You may call: file_search."}}),
]
SEARCHING = [
    "thread.run.step.created in_progress",
    "thread.run.step.in_progress in_progress",
    "thread.run.step.delta file_search",
    "thread.run.step.completed completed",
]


@pytest.fixture(scope="module")
def librarian(loop: Loop, new_database: Callable[[], str], tmp_path_factory: Any) -> Iterator[Server]:
    with scripted(loop, new_database(), tmp_path_factory.mktemp("script"), SCRIPT) as server:
        yield server


@pytest.fixture
def http(librarian: Server) -> Iterator[httpx.Client]:
    forget(librarian)
    with client_of(librarian) as client:
        yield client


@pytest.fixture(scope="module")
def foods(librarian: Server) -> tuple[str, str]:
    """A file and a store with it."""
    with client_of(librarian) as client:
        file_id = upload(client, FOODS)
        return file_id, store_of(client, file_id)


def test_a_search_is_told_and_kept_as_the_original_did(
    librarian: Server, http: httpx.Client, foods: tuple[str, str], reference: Any
) -> None:
    file_id, store_id = foods
    talk = researcher(http, QUESTION, store_id)
    events = including(talk)
    assert transcript(events) == [*OPENING, *SEARCHING, *speaking(ANSWER), *ENDED]

    [delta] = named(events, "thread.run.step.delta")
    options = {"ranker": "default_2024_08_21", "score_threshold": 0.0}
    [told] = delta["delta"]["step_details"]["tool_calls"]
    search = {"ranking_options": options, "results": []}
    assert told == {"index": 0, "id": told["id"], "type": "file_search", "file_search": search}

    searched, wrote = named(events, "thread.run.step.completed")
    [kept] = searched["step_details"]["tool_calls"]
    [result] = kept["file_search"]["results"]
    assert list(kept) == ["id", "type", "file_search"]
    assert list(result) == ["file_id", "file_name", "score", "attributes", "content"]
    assert (result["file_id"], result["file_name"], result["attributes"]) == (file_id, "favorite_foods.txt", {})
    assert result["content"] == [{"type": "text", "text": FOODS}]
    assert 0 <= result["score"] <= 1

    [message] = named(events, "thread.message.completed")
    marker = "【4:0†favorite_foods.txt】"
    citation = {"file_id": file_id, "quote": "- Filip Carola: cake"}
    annotation = {
        "type": "file_citation",
        "text": marker,
        "start_index": 29,
        "end_index": 53,
        "file_citation": citation,
    }
    assert message["content"] == [{"type": "text", "text": {"value": ANSWER, "annotations": [annotation]}}]
    texts = [event["delta"]["content"][0]["text"] for event in named(events, "thread.message.delta")]
    assert texts[0]["annotations"] == []
    assert [text for text in texts[1:] if "annotations" in text] == [
        {"value": marker, "annotations": [{"index": 0, **annotation}]}
    ]

    ended = events[-2].payload
    assert ended["tool_resources"] == {}
    for name in ("prompt_tokens", "completion_tokens", "total_tokens"):
        assert ended["usage"][name] == searched["usage"][name] + wrote["usage"][name] > 0
    recorded = _recorded(reference)
    assert [event.name for event in events if event.name not in _DELTAS] == [
        name for name in recorded if name not in _DELTAS
    ]


_DELTAS = ("thread.message.delta",)


def _recorded(reference: Any) -> list[str]:
    """The names of the events of the recorded stream."""
    recording = json.loads((reference / "recordings/AssistantsTests/FileSearchStreamingWorks.json").read_text())
    body = recording["Entries"][3]["ResponseBody"]
    lines = (body if isinstance(body, str) else "".join(body)).splitlines()
    return [line.removeprefix("event: ") for line in lines if line.startswith("event: ")]


def test_contents_are_shown_only_where_they_are_asked_for(http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, QUESTION, foods[1])
    events = talk.stream()
    run, _, [step, _] = check_ended(talk, events)
    [search] = searches(step)
    assert [list(result) for result in search["results"]] == [["file_id", "file_name", "score", "attributes"]]
    path = f"{talk.path}/runs/{run['id']}/steps"
    for name in ("include[]", "include%5B%5D"):
        listed = sent(http.get(f"{path}?{name}={CONTENT}&order=asc"))["data"]
        alone = sent(http.get(f"{path}/{step['id']}?{name}={CONTENT}"))
        assert listed[0] == alone
        assert [result["content"] for [search] in [searches(alone)] for result in search["results"]] == [
            [{"type": "text", "text": FOODS}]
        ]
    assert events == _follow(talk, run["id"])


def _follow(talk: Conversation, run_id: str) -> list[Event]:
    with talk.http.stream("GET", f"{talk.path}/runs/{run_id}/events") as response:
        return list(read(response))


@contextmanager
def _held_up(librarian: Server) -> Iterator[None]:
    """No search comes to an end until the block is left: the database keeps it from noting that stores are used."""
    pool = librarian.resources.database.pool

    async def hold() -> Any:
        connection = await pool.borrow()
        await connection.execute("BEGIN; LOCK TABLE vector_stores IN SHARE MODE")
        return connection

    async def give_back(connection: Any) -> None:
        await connection.execute("ROLLBACK")
        pool.give_back(connection)

    connection = librarian.loop.run(hold())
    try:
        yield
    finally:
        librarian.loop.run(give_back(connection))


def _told(events: Iterator[Event], name: str) -> Event:
    return next(event for event in events if event.name == name)


def test_who_comes_back_to_a_stream_hears_the_contents_that_its_creator_wanted(
    http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, QUESTION, foods[1])
    events = including(talk)
    assert events == _follow(talk, events[0].payload["id"])


def test_the_model_is_offered_the_search_and_shown_what_it_found(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, QUESTION, foods[1], instructions="Be brief.")
    assert talk.completed(tool_choice={"type": "file_search"}) == ANSWER
    first, second = played(librarian)
    [offered] = first["tools"]
    assert offered["function"]["name"] == "file_search"
    assert offered["function"]["parameters"]["properties"]["queries"]["maxItems"] == 5
    assert first["tool_choice"] == {"type": "function", "function": {"name": "file_search"}}
    assert "tool_choice" not in second
    *_, asked_for, found = second["messages"]
    assert json.loads(asked_for["tool_calls"][0]["function"]["arguments"]) == {
        "queries": ["Filip Carola favorite food"]
    }
    assert found["role"] == "tool"
    assert found["content"].endswith(f"\n\n【4:0†favorite_foods.txt】 favorite_foods.txt\n{FOODS}")


def test_of_earlier_runs_only_the_messages_are_shown(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, QUESTION, foods[1])
    talk.completed()
    talk.say("And again?")
    assert talk.completed() == "Cake【6:0†favorite_foods.txt】, as I said."
    last = played(librarian)[-1]
    assert [message["role"] for message in last["messages"]] == ["user", "assistant", "user", "assistant", "tool"]


def test_both_the_assistants_and_the_threads_store_are_searched(http: httpx.Client, foods: tuple[str, str]) -> None:
    other = store_of(http, upload(http, "Filip Carola likes his favorite food cold.", "more.txt"))
    talk = researcher(http, "Any?", foods[1], other)
    _, _, [step, _] = check_ended(talk, talk.stream())
    [search] = searches(step)
    assert {result["file_name"] for result in search["results"]} == {"favorite_foods.txt", "more.txt"}


def test_a_tool_has_its_limit(http: httpx.Client, foods: tuple[str, str]) -> None:
    options = {"max_num_results": 1, "ranking_options": {"score_threshold": 0.0}}
    talk = researcher(http, QUESTION, foods[1], store_of(http, foods[0]), tools=[{**SEARCH, "file_search": options}])
    _, _, [step, _] = check_ended(talk, talk.stream())
    assert [len(search["results"]) for search in searches(step)] == [1]


@pytest.mark.parametrize("stores", [0, 1])
def test_that_nothing_was_found_is_said_plainly(http: httpx.Client, foods: tuple[str, str], stores: int) -> None:
    talk = researcher(http, "What about Rome?", foods[1] if stores else None)
    events = talk.stream()
    assert transcript(events) == [*OPENING, *SEARCHING, *speaking("Nothing is known."), *ENDED]
    _, _, [step, _] = check_ended(talk, events)
    assert [search["results"] for search in searches(step)] == [[]]


def test_a_malformed_call_is_answered_with_what_is_wrong(http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Malformed?", foods[1])
    events = talk.stream()
    assert transcript(events) == [*OPENING, *SEARCHING, *speaking("Sorry."), *ENDED]


def test_searches_of_one_turn_are_one_step_and_markers_are_made_right(
    http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, "Two?", foods[1])
    events = talk.stream()
    both = [*SEARCHING[:2], "thread.run.step.delta file_search; file_search", SEARCHING[3]]
    said = "【注意】 Cake 【4:0†favorite_foods.txt】 and pizza 【5:0†favorite_foods.txt】."
    assert transcript(events) == [*OPENING, *both, *speaking(said), *ENDED]
    _, [message], [step, _] = check_ended(talk, events)
    assert len(searches(step)) == 2
    [part] = message["content"]
    annotations = part["text"]["annotations"]
    assert [said[each["start_index"] : each["end_index"]] for each in annotations] == [
        each["text"] for each in annotations
    ]
    assert len(annotations) == 2


def test_functions_wait_for_the_client_while_searches_are_done(http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Both?", foods[1], tools=[SEARCH, function("add")])
    first = including(talk)
    told = "thread.run.step.delta file_search; add {}; file_search"
    assert transcript(first) == [*OPENING, *SEARCHING[:2], told, *WAITS]
    run = first[-2].payload
    assert [each["function"]["name"] for each in calls_of(run)] == ["add"]
    [step] = talk.steps(run["id"])
    assert (step["status"], [len(search["results"]) for search in searches(step)]) == ("in_progress", [1, 1])
    second = talk.submitting(run["id"], asked({"add": "7"}, run))
    said = "Done【6:0†favorite_foods.txt】."
    assert transcript(second) == [*QUEUED_AGAIN, *speaking(said), *ENDED]
    [completed, *_] = named(second, "thread.run.step.completed")
    kinds = [each["type"] for each in completed["step_details"]["tool_calls"]]
    assert kinds == ["file_search", "function", "file_search"]
    assert completed["step_details"]["tool_calls"][1]["function"]["output"] == "7"
    assert all("content" in result for search in searches(completed) for result in search["results"])


def test_a_clients_function_keeps_its_name(http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Own?", foods[1], tools=[function("file_search"), SEARCH])
    assert talk.completed() == "Cake【4:0†favorite_foods.txt】"


def test_a_model_that_searches_for_ever_is_offered_no_tools_in_the_end(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, "For ever?", foods[1])
    events = talk.stream()
    assert transcript(events) == [*OPENING, *SEARCHING * 16, *speaking("Enough."), *ENDED]
    assert len(talk.steps(events[0].payload["id"])) == 17
    requests = played(librarian)
    assert ["tools" in request for request in requests] == [True] * 16 + [False]
    positions = [message["content"] for message in requests[-1]["messages"] if message["role"] == "tool"]
    assert [f"【{4 + 2 * turn}:0†" in content for turn, content in enumerate(positions)] == [True] * 16


def test_a_tool_that_nobody_offered_is_refused_here(http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Unknown?", foods[1])
    assert talk.completed() == "I see."


@pytest.mark.parametrize(
    ("sql", "code", "message"),
    [
        (
            "UPDATE vector_stores SET last_active_at = 1 WHERE id = $1",
            "invalid_prompt",
            "Vector store '{}' has expired.",
        ),
        (
            "DELETE FROM vector_stores WHERE id = $1",
            "server_error",
            "The files could not be searched: No vector store found with id '{}'.",
        ),
    ],
    ids=["expired", "gone"],
)
def test_a_store_that_goes_while_the_model_thinks_fails_the_run(
    librarian: Server, http: httpx.Client, sql: str, code: str, message: str
) -> None:
    expiry = {"expires_after": {"anchor": "last_active_at", "days": 1}}
    store_id = sent(http.post("/vector_stores", json=expiry))["id"]
    talk = researcher(http, "Late?", store_id)
    run_id = talk.start()["id"]
    _execute(librarian, sql, store_id)
    run = talk.ended(run_id)
    assert (run["status"], run["last_error"]["code"]) == ("failed", code)
    assert run["last_error"]["message"].startswith(message.format(store_id))
    [step] = talk.steps(run["id"])
    assert (step["status"], [search["results"] for search in searches(step)]) == ("failed", [[]])


# --- Other ends


def test_a_cancel_ends_a_search_at_once(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, QUESTION, foods[1])
    with _held_up(librarian), talk.streaming() as events:
        run_id = next(events).payload["id"]
        _told(events, "thread.run.step.delta")
        talk.cancel(run_id)
        started = time.monotonic()
        rest = list(events)
        assert time.monotonic() - started < 10, "0.1 s on a machine that is idle"
    assert transcript(rest) == [
        "thread.run.cancelling cancelling",
        "thread.run.step.cancelled cancelled",
        "thread.run.cancelled cancelled",
        DONE,
    ]
    [step] = talk.steps(run_id)
    assert (step["status"], [search["results"] for search in searches(step)]) == ("cancelled", [[]])
    assert rest[-2].payload["usage"] == step["usage"]
    assert step["usage"]["total_tokens"] > 0


UNSETTLE = """
UPDATE vector_store_files SET status = 'in_progress', retry_at = now() + interval '1 hour', embedding_model = NULL,
embedding_dimensions = NULL, late_interaction = NULL, chunks = NULL WHERE vector_store_id = $1
"""
SETTLE = "UPDATE vector_store_files SET retry_at = now() WHERE vector_store_id = $1"
LOSE = "UPDATE runs SET lease_token = 'lost', lease_expires_at = now() - interval '1 second' WHERE id = $1"


def _execute(librarian: Server, sql: str, *values: str) -> None:
    librarian.loop.run(execute(librarian.resources.database, sql, *values))


def test_a_run_waits_for_the_files_of_its_thread(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    own = store_of(http, upload(http, FOODS))
    _execute(librarian, UNSETTLE, own)
    talk = researcher(http, QUESTION, None, own)
    with talk.streaming() as events:
        _told(events, "thread.run.in_progress")
        assert played(librarian) == []
        _execute(librarian, SETTLE, own)
        assert transcript(events) == [*SEARCHING, *speaking(ANSWER), *ENDED]


def test_a_run_that_waits_for_files_can_be_cancelled(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    own = store_of(http, upload(http, FOODS))
    _execute(librarian, UNSETTLE, own)
    talk = researcher(http, QUESTION, foods[1], own)
    with talk.streaming() as events:
        run = _told(events, "thread.run.in_progress").payload
        talk.cancel(run["id"])
        assert transcript(events) == ["thread.run.cancelling cancelling", "thread.run.cancelled cancelled", DONE]
    assert played(librarian) == []


def test_a_run_does_not_wait_for_the_files_of_its_assistant(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    own = store_of(http, foods[0], upload(http, "Nothing."))
    _execute(librarian, f"{UNSETTLE} AND id <> '{foods[0]}'", own)
    assert researcher(http, QUESTION, own).completed() == ANSWER


def test_a_search_that_an_executor_did_not_live_to_finish_is_made_again(
    librarian: Server, http: httpx.Client, foods: tuple[str, str]
) -> None:
    talk = researcher(http, QUESTION, foods[1])
    with talk.streaming() as events:
        with _held_up(librarian):
            run_id = next(events).payload["id"]
            _told(events, "thread.run.step.delta")
            _execute(librarian, LOSE, run_id)
            taken_back = _told(events, "thread.run.step.cancelled")
            again = _told(events, "thread.run.step.delta")
        assert transcript(events) == [SEARCHING[3], *speaking(ANSWER), *ENDED]
    searched, wrote = talk.steps(run_id)
    assert (searched["id"], wrote["type"]) == (again.payload["id"], "message_creation")
    assert again.payload["id"] != taken_back.payload["id"]


def test_a_search_that_is_done_is_not_made_again(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Slow?", foods[1])
    with talk.streaming() as events:
        run_id = next(events).payload["id"]
        _told(events, "thread.run.step.completed")
        _told(events, "thread.message.delta")
        _execute(librarian, LOSE, run_id)
        rest = list(events)
    taken_back = ["thread.message.incomplete incomplete", "thread.run.step.cancelled cancelled"]
    words = transcript(rest)
    start = words.index(taken_back[0])
    assert words[start:] == [*taken_back, *speaking("It is the cake【4:0†favorite_foods.txt】."), *ENDED]
    assert [step["type"] for step in talk.steps(run_id)] == ["tool_calls", "message_creation"]


def test_a_cancelled_answer_keeps_its_citations(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    talk = researcher(http, "Long?", foods[1])
    with talk.streaming() as events:
        run_id = next(events).payload["id"]
        _told(events, "thread.message.created")
        deltas = (event.payload["delta"]["content"][0]["text"] for event in events if event.name.endswith("delta"))
        next(text for text in deltas if text.get("annotations"))
        talk.cancel(run_id)
        [message] = named(list(events), "thread.message.incomplete")
    [part] = message["content"]
    assert [each["text"] for each in part["text"]["annotations"]] == ["【4:0†favorite_foods.txt】"]
    assert part["text"]["value"].startswith("Cake【4:0†favorite_foods.txt】")
    assert talk.messages()[-1]["content"] == message["content"]


def test_what_can_be_shown_depends_on_the_budget(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    text = "\n\n".join(f"Filip Carola ate cake number {number} with a fork." for number in range(3000))
    talk = researcher(http, "Any?", store_of(http, upload(http, text, "cakes.txt")))
    _, _, [step, _] = check_ended(talk, talk.stream())
    [search] = searches(step)
    assert len(search["results"]) > 5
    talk = researcher(http, "Any?", store_of(http, upload(http, text, "cakes.txt")))
    _, _, [step, _] = check_ended(talk, talk.stream(max_prompt_tokens=3000))
    [search] = searches(step)
    assert 1 <= len(search["results"]) < 3


def test_an_index_that_does_not_answer_fails_the_run(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    database_url = new_database()
    with scripted(loop, database_url, tmp_path, SCRIPT) as server, client_of(server) as client:
        store_id = store_of(client, upload(client, FOODS))
    dead = socket.create_server(("127.0.0.1", 0))
    url = f"http://127.0.0.1:{dead.getsockname()[1]}"
    dead.close()
    with scripted(loop, database_url, tmp_path, SCRIPT, qdrant_url=url) as server, client_of(server) as client:
        talk = researcher(client, QUESTION, store_id)
        started = time.monotonic()
        events = talk.stream()
        assert time.monotonic() - started > 2, "it is tried again"
        step_failed = ["thread.run.step.failed failed", "thread.run.failed failed", DONE]
        assert transcript(events) == [*OPENING, *SEARCHING[:3], *step_failed]
        ended, _, [step] = check_ended(talk, events)
        assert ended["last_error"] == step["last_error"]
        assert ended["last_error"]["code"] == "server_error"
        assert ended["last_error"]["message"].startswith("The files could not be searched: ")
        assert ended["usage"] == step["usage"]


def test_an_index_that_comes_back_is_all_that_a_run_waits_for(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    with (
        qdrant_server() as qdrant,
        scripted(loop, new_database(), tmp_path, SCRIPT, **qdrant.settings) as server,
        client_of(server) as client,
    ):
        talk = researcher(client, QUESTION, store_of(client, upload(client, FOODS)))
        qdrant.down = True
        run = talk.start()
        eventually(lambda: qdrant.refused)
        qdrant.down = False
        assert talk.ended(run["id"])["status"] == "completed"


# --- The SDK


class Listener(AssistantEventHandler):
    """Keeps what the SDK has accumulated."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[Any] = []

    def on_run_step_done(self, run_step: Any) -> None:
        self.steps.append(run_step)


def test_the_sdk_accumulates_citations(librarian: Server, http: httpx.Client, foods: tuple[str, str]) -> None:
    talk, listener = researcher(http, "Two?", foods[1]), Listener()
    with OpenAI(base_url=librarian.base_url, api_key="any") as sdk:
        run: Any = {"thread_id": talk.thread_id, "assistant_id": talk.assistant_id, "include": [CONTENT]}
        with sdk.beta.threads.runs.stream(**run, event_handler=listener) as stream:
            stream.until_done()
            accumulated = listener.current_message_snapshot
            [final] = stream.get_final_messages()
    assert accumulated
    [part], [kept] = accumulated.content, final.content
    assert part.type == kept.type == "text"
    assert part.text.value == kept.text.value
    told = [annotation.model_dump(exclude={"index"}) for annotation in part.text.annotations]
    assert told == [annotation.model_dump() for annotation in kept.text.annotations]
    assert len(told) == 2
    assert all(call.file_search.results for call in listener.steps[0].step_details.tool_calls)
