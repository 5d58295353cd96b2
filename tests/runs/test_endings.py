"""How runs end: each scenario as the transcript of its stream and the objects that REST shows afterwards."""

import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.transcripts import (
    CANCELLED,
    DONE,
    FINAL,
    NOTHING_USED,
    OPENING,
    Conversation,
    check_ended,
    client_of,
    converse,
    counted,
    eventually,
    read,
    requests,
    sent,
    speaking,
    text_of,
    transcript,
    unique,
    usage,
)
from tests.runs.upstream import HEAD, chunk, upstream

Json = dict[str, Any]


@pytest.fixture
def idle_http(loop: Loop, database_url: str) -> Iterator[httpx.Client]:
    """A client of a server that executes no runs, on a database that no other server has."""
    with serving(loop, Settings(database_url=database_url), executor=False) as server, client_of(server) as client:
        yield client


# --- Completed


def test_an_answer_completes_the_run(http: httpx.Client) -> None:
    talk = converse(http, "[[say: Hello, Jane!]] [[usage: 19 4]]", instructions="Be kind.")
    events = talk.stream()
    assert transcript(events) == [
        *OPENING,
        *speaking("Hello, Jane!"),
        "thread.message.completed completed",
        "thread.run.step.completed completed",
        "thread.run.completed completed",
        DONE,
    ]
    run, [message], [step] = check_ended(talk, events)
    used = usage(19, 4)
    assert (run["usage"], step["usage"]) == (used, used)
    assert run["created_at"] <= run["started_at"] <= run["completed_at"]
    assert (run["last_error"], run["failed_at"], run["cancelled_at"], run["incomplete_details"]) == (None,) * 4
    assert message["content"] == [{"type": "text", "text": {"value": "Hello, Jane!", "annotations": []}}]
    assert message["assistant_id"] == run["assistant_id"]
    assert step["step_details"] == {
        "type": "message_creation",
        "message_creation": {"message_id": message["id"]},
    }


def test_the_first_delta_alone_carries_annotations_and_none_carries_a_role(http: httpx.Client) -> None:
    deltas = [e.payload for e in converse(http, "[[tokens: 3]]").stream() if e.name == "thread.message.delta"]
    assert [delta["delta"]["content"] for delta in deltas] == [
        [{"index": 0, "type": "text", "text": {"value": "word1", "annotations": []}}],
        [{"index": 0, "type": "text", "text": {"value": " word2"}}],
        [{"index": 0, "type": "text", "text": {"value": " word3"}}],
    ]
    assert {tuple(delta) for delta in deltas} == {("id", "object", "delta")}
    assert {tuple(delta["delta"]) for delta in deltas} == {("content",)}


def test_an_empty_answer_is_an_empty_message(http: httpx.Client) -> None:
    talk = converse(http, "[[say:]]")
    events = talk.stream()
    assert transcript(events) == [
        *OPENING,
        *speaking("")[:-1],
        "thread.message.completed completed",
        "thread.run.step.completed completed",
        "thread.run.completed completed",
        DONE,
    ]
    _, [message], _ = check_ended(talk, events)
    assert text_of(message) == ""


def test_a_run_that_is_polled_ends_like_one_that_is_streamed(http: httpx.Client) -> None:
    talk = converse(http, "[[say: Hello!]]")
    started = talk.start()
    assert started["status"] == "queued"
    assert (started["started_at"], started["usage"]) == (None, None)
    assert started["expires_at"] == started["created_at"] + 600
    assert talk.ended(started["id"])["status"] == "completed"
    assert talk.answer() == "Hello!"


def test_create_thread_and_run_tells_of_the_thread_first(http: httpx.Client) -> None:
    assistant = sent(http.post("/assistants", json={"model": "gpt-4o"}))
    thread = {"messages": [{"role": "user", "content": "[[say: Hi.]]"}], "metadata": {"of": "Jane"}}
    body = {"assistant_id": assistant["id"], "thread": thread, "stream": True}
    with http.stream("POST", "/threads/runs", json=body) as response:
        events = list(read(response))
    assert transcript(events)[:2] == ["thread.created", "thread.run.created queued"]
    assert transcript(events)[-2:] == ["thread.run.completed completed", DONE]
    created = events[0].payload
    assert created["metadata"] == {"of": "Jane"}
    check_ended(Conversation(http, assistant["id"], created["id"]), events)


def test_usage_is_copied_with_its_details(loop: Loop, new_database: Callable[[], str]) -> None:
    usage = {
        "prompt_tokens": 1000,
        "completion_tokens": 20,
        "total_tokens": 1020,
        "prompt_tokens_details": {"cached_tokens": 640, "audio_tokens": 0},
        "completion_tokens_details": {"reasoning_tokens": 12, "accepted_prediction_tokens": 0},
    }
    last = b'data: {"choices":[],"usage":' + httpx.Response(200, json=usage).content + b"}\n\ndata: [DONE]\n\n"
    with (
        upstream(HEAD, chunk("Hi."), chunk(finish_reason="stop"), last) as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = converse(http, "Hello!")
        run, _, [step] = check_ended(talk, talk.stream())
        assert run["usage"] == step["usage"]
        assert run["usage"] == {
            "prompt_tokens": 1000,
            "completion_tokens": 20,
            "total_tokens": 1020,
            "prompt_token_details": {"cached_tokens": 640},
            "completion_tokens_details": {"reasoning_tokens": 12},
        }


def test_the_usage_of_a_model_that_reports_none_is_counted_here(http: httpx.Client) -> None:
    prompt = "[[say: Hi.]] [[usage: none]]"
    talk = converse(http, prompt)
    run, _, [step] = check_ended(talk, talk.stream())
    assert run["usage"] == step["usage"] == counted(prompt, "Hi.")
    assert step["usage"]["completion_tokens"] == 2


# --- Failed


def check_failed(talk: Conversation, code: str, message: str, said: str = "") -> Json:
    """A new run fails with this error; what the model has said until then stays as an incomplete message."""
    events = talk.stream()
    parts = ["thread.message.incomplete incomplete", "thread.run.step.failed failed"]
    ending = [*(parts if said else []), "thread.run.failed failed", DONE]
    assert transcript(events) == [*OPENING, *(speaking(said) if said else []), *ending]
    run, messages, steps = check_ended(talk, events)
    assert run["last_error"] == {"code": code, "message": message}
    assert run["failed_at"] >= run["started_at"]
    asked_with = talk.messages()[0]["content"][0]
    assert run["usage"] == (counted(asked_with["text"]["value"], said) if said else NOTHING_USED)
    assert run["completed_at"] is None
    for incomplete, step in zip(messages, steps, strict=True):
        assert text_of(incomplete) == said
        assert incomplete["incomplete_details"] == {"reason": "run_failed"}
        assert incomplete["incomplete_at"]
        assert not incomplete["completed_at"]
        assert step["last_error"] == run["last_error"]
        assert step["failed_at"]
    assert len(messages) == bool(said)
    return run


TOLD_TO_FAIL = "The rehearsal model was told to fail with HTTP status {}."
ENDPOINT = "The model endpoint (rehearsal)"


@pytest.mark.parametrize(
    ("status", "code", "message"),
    [
        (400, "invalid_prompt", f"{ENDPOINT} refused the request (400): {TOLD_TO_FAIL}"),
        (413, "invalid_prompt", f"{ENDPOINT} refused the request (413): {TOLD_TO_FAIL}"),
        (422, "invalid_prompt", f"{ENDPOINT} refused the request (422): {TOLD_TO_FAIL}"),
        (
            401,
            "server_error",
            f"{ENDPOINT} refused its API key (401): check ADLATUS_MODEL_API_KEY.",
        ),
        (
            403,
            "server_error",
            f"{ENDPOINT} refused its API key (403): check ADLATUS_MODEL_API_KEY.",
        ),
        (
            404,
            "server_error",
            f"{ENDPOINT} does not know the model 'gpt-4o' (404): name one that it has, or set ADLATUS_MODEL. "
            f"It said: {TOLD_TO_FAIL}",
        ),
        (418, "server_error", f"{ENDPOINT} answered with status 418: {TOLD_TO_FAIL}"),
    ],
)
def test_a_refusal_of_the_model_fails_the_run_at_once(
    server: Server, http: httpx.Client, status: int, code: str, message: str
) -> None:
    prompt = unique(f"[[error: {status}]]")
    check_failed(converse(http, prompt), code, message.format(status))
    assert len(requests(server, prompt)) == 1


def test_a_rate_limit_that_lasts_fails_the_run(server: Server, http: httpx.Client) -> None:
    prompt = unique("[[error: 429 retry_after=0]]")
    check_failed(converse(http, prompt), "rate_limit_exceeded", TOLD_TO_FAIL.format(429))
    assert len(requests(server, prompt)) == 4


def test_a_rate_limit_that_asks_for_a_long_wait_is_not_waited_for(server: Server, http: httpx.Client) -> None:
    prompt = unique("[[error: 429 retry_after=21]]")
    check_failed(converse(http, prompt), "rate_limit_exceeded", TOLD_TO_FAIL.format(429))
    assert len(requests(server, prompt)) == 1


@pytest.mark.slow
def test_what_fails_four_times_fails_the_run(server: Server, http: httpx.Client) -> None:
    broken, closed = unique("[[error: 500]]"), unique("[[error: disconnect]]")
    talks = [converse(http, prompt) for prompt in (broken, closed)]
    runs = [talk.start() for talk in talks]
    ended = [talk.ended(run["id"]) for talk, run in zip(talks, runs, strict=True)]
    assert [run["status"] for run in ended] == ["failed", "failed"]
    assert [run["last_error"] for run in ended] == [
        {"code": "server_error", "message": f"{ENDPOINT} failed (500): {TOLD_TO_FAIL.format(500)}"},
        {
            "code": "server_error",
            "message": f"{ENDPOINT} could not be reached: check that it runs, and ADLATUS_MODEL_BASE_URL.",
        },
    ]
    assert [len(requests(server, prompt)) for prompt in (broken, closed)] == [4, 4]


@pytest.mark.slow
def test_an_endpoint_where_nobody_listens_fails_the_run_but_not_the_assistant(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound, so that nobody else gets the port, but not listening
        where = f"127.0.0.1:{closed.getsockname()[1]}"
        settings = Settings(database_url=new_database(), model_base_url=f"http://{where}/v1")
        with serving(loop, settings) as server, client_of(server) as http:
            check_failed(
                converse(http, "Hello?"),
                "server_error",
                f"The model endpoint ({where}) could not be reached: check that it runs, and ADLATUS_MODEL_BASE_URL.",
            )


@pytest.mark.slow
def test_a_model_that_falls_silent_fails_the_run_and_leaves_what_it_said(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database(), model_timeout_s=0.5)
    with serving(loop, settings) as server, client_of(server) as http:
        talk = converse(http, "[[tokens: 5]] [[stall: 3]]")
        run = talk.ended(talk.start()["id"])
        assert (run["status"], run["last_error"]["code"]) == ("failed", "server_error")
        assert "did not answer in time" in run["last_error"]["message"]
        assert talk.answer() == "word1 word2 word3"


@pytest.mark.parametrize(
    ("marker", "message"),
    [
        ("[[cut: 3]]", f"{ENDPOINT} broke off in the middle of its answer."),
        ("[[garble: 3]]", "The model endpoint sent a line that is not JSON."),
        ("[[stream_error: 3 The GPU is on fire.]]", "The model endpoint reported an error: The GPU is on fire."),
    ],
)
@pytest.mark.parametrize("pace", ["", "[[pace: 0.01]]"], ids=["in one piece", "in many pieces"])
def test_an_answer_that_breaks_off_is_kept_and_not_asked_for_again(
    server: Server, http: httpx.Client, marker: str, message: str, pace: str
) -> None:
    """However the network batches the chunks, and never a second answer after the first token."""
    prompt = unique(f"[[tokens: 6]] {marker} {pace}")
    check_failed(converse(http, prompt), "server_error", message, "word1 word2 word3")
    assert len(requests(server, prompt)) == 1


def test_a_failed_run_is_forgiven_by_the_next(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[cut: 3]]")
    assert transcript(talk.stream())[-2] == "thread.run.failed failed"
    talk.say("[[echo: messages]]")
    heard = httpx.Response(200, text=talk.completed()).json()
    assert [message["role"] for message in heard] == ["user", "assistant", "user"]
    assert heard[1]["content"] == "word1 word2 word3"


# --- Tried again


def test_an_overloaded_model_is_asked_again(server: Server, http: httpx.Client) -> None:
    prompt = unique("[[error: 503 times=2]] [[say: At last.]]")
    talk = converse(http, prompt)
    assert transcript(talk.stream())[3:] == [
        *speaking("At last."),
        "thread.message.completed completed",
        "thread.run.step.completed completed",
        "thread.run.completed completed",
        DONE,
    ]
    assert len(requests(server, prompt)) == 3


def test_a_rate_limit_is_waited_for_as_long_as_it_says(server: Server, http: httpx.Client) -> None:
    prompt = unique("[[error: 429 retry_after=0.3 times=1]] [[say: Now.]]")
    talk = converse(http, prompt)
    begun = time.monotonic()
    assert talk.completed() == "Now."
    assert time.monotonic() - begun >= 0.3
    assert len(requests(server, prompt)) == 2


# --- Incomplete


@pytest.mark.parametrize(
    ("prompt", "limit", "said"),
    [
        ("[[say: Half an answer]] [[finish: length]]", None, "Half an answer"),
        ("[[tokens: 300]]", 256, " ".join(f"word{n}" for n in range(1, 257))),
    ],
    ids=["the model's limit", "the run's limit"],
)
def test_an_answer_that_is_too_long_is_kept_as_incomplete(
    http: httpx.Client, prompt: str, limit: int | None, said: str
) -> None:
    talk = converse(http, prompt)
    events = talk.stream(max_completion_tokens=limit)
    assert transcript(events) == [
        *OPENING,
        *speaking(said),
        "thread.message.incomplete incomplete",
        "thread.run.step.completed completed",
        "thread.run.incomplete incomplete",
        DONE,
    ]
    run, [message], [step] = check_ended(talk, events)
    assert run["incomplete_details"] == {"reason": "max_completion_tokens"}
    assert run["usage"]["completion_tokens"] == len(said.split()) == step["usage"]["completion_tokens"]
    assert run["completed_at"] is None
    assert message["incomplete_details"] == {"reason": "max_tokens"}
    assert text_of(message) == said


def test_a_filtered_answer_is_incomplete(http: httpx.Client) -> None:
    talk = converse(http, "[[say: I must not]] [[finish: content_filter]]")
    events = talk.stream()
    assert transcript(events)[-4:] == [
        "thread.message.incomplete incomplete",
        "thread.run.step.completed completed",
        "thread.run.incomplete incomplete",
        DONE,
    ]
    run, [message], _ = check_ended(talk, events)
    assert run["incomplete_details"] == {"reason": "content_filter"}
    assert message["incomplete_details"] == {"reason": "content_filter"}
    assert text_of(message) == "I must not"


# --- Cancelled


def test_cancelling_while_the_model_speaks(http: httpx.Client) -> None:
    talk = converse(http, "[[tokens: 6]] [[stall: 3]]")
    with talk.streaming() as stream:
        events = []
        for event in stream:
            events.append(event)
            if transcript(events)[-1] == "thread.message.delta word1 word2 word3":
                answer = sent(talk.cancel(events[0].payload["id"]))
    assert answer["status"] == "cancelling"
    assert transcript(events) == [
        *OPENING,
        *speaking("word1 word2 word3"),
        *CANCELLED,
        DONE,
    ]
    assert next(e.payload for e in events if e.name == "thread.run.cancelling") == answer
    run, [message], [step] = check_ended(talk, events)
    assert run["cancelled_at"]
    assert step["cancelled_at"]
    assert (run["last_error"], run["failed_at"], run["completed_at"]) == (None, None, None)
    assert message["incomplete_details"] == {"reason": "run_cancelled"}
    assert text_of(message) == "word1 word2 word3"


def test_cancelling_a_run_that_waits_to_try_again(http: httpx.Client) -> None:
    talk = converse(http, unique("[[error: 429 retry_after=20]]"))
    run = talk.start()
    eventually(lambda: talk.run(run["id"])["status"] == "in_progress")
    sent(talk.cancel(run["id"]))
    assert talk.ended(run["id"], within_s=5)["status"] == "cancelled"


def test_cancelling_a_run_that_nobody_executes(idle_http: httpx.Client) -> None:
    talk = converse(idle_http, "Hello?")
    with talk.streaming() as stream:
        events = [next(stream), next(stream)]
        answer = sent(talk.cancel(events[0].payload["id"]))
        assert answer["status"] == "cancelling"
        events += stream
    assert transcript(events) == [
        *OPENING[:2],
        "thread.run.cancelling cancelling",
        "thread.run.cancelled cancelled",
        DONE,
    ]
    run, messages, steps = check_ended(talk, events)
    assert (messages, steps, run["started_at"]) == ([], [], None)
    assert run["usage"] == NOTHING_USED


@pytest.mark.parametrize("status", FINAL)
def test_a_run_that_has_ended_cannot_be_cancelled(loop: Loop, database_url: str, status: str) -> None:
    prompts = {
        "completed": "[[say: Hi.]]",
        "failed": "[[error: 400]]",
        "cancelled": "[[stall]]",
        "expired": "[[stall]]",
        "incomplete": "[[say: Hi.]] [[finish: length]]",
    }
    expires_after_s = 1 if status == "expired" else 600
    settings = Settings(database_url=database_url, run_expires_after_s=expires_after_s)
    with serving(loop, settings) as server, client_of(server) as http:
        talk = converse(http, prompts[status])
        run = talk.start()
        if status == "cancelled":
            sent(talk.cancel(run["id"]))
        ended = talk.ended(run["id"])
        assert ended["status"] == status
        response = talk.cancel(run["id"])
        assert response.status_code == 400
        assert response.json() == {
            "error": {
                "message": f"Cannot cancel run with status '{status}'.",
                "type": "invalid_request_error",
                "param": None,
                "code": None,
            }
        }
        assert talk.run(run["id"]) == ended


# --- Expired


def test_runs_expire_while_the_model_is_silent_and_while_they_wait(loop: Loop, database_url: str) -> None:
    settings = Settings(database_url=database_url, run_expires_after_s=2, run_concurrency=1)
    with serving(loop, settings) as server, client_of(server) as http:
        first, second = converse(http, "[[tokens: 6]] [[stall: 3]]"), converse(http, "[[say: Too late.]]")
        with first.streaming() as stream, second.streaming() as waiting:
            events, late = list(stream), list(waiting)
        assert transcript(events) == [
            *OPENING,
            *speaking("word1 word2 word3"),
            "thread.message.incomplete incomplete",
            "thread.run.step.expired expired",
            "thread.run.expired expired",
            DONE,
        ]
        run, [message], [step] = check_ended(first, events)
        assert message["incomplete_details"] == {"reason": "run_expired"}
        assert text_of(message) == "word1 word2 word3"
        assert step["expired_at"]
        assert run["last_error"] is None
        assert transcript(late) == [*OPENING[:2], "thread.run.expired expired", DONE]
        check_ended(second, late)
        second.say("The thread is free again.")


def test_runs_that_nobody_executes_expire_too(loop: Loop, new_database: Callable[[], str]) -> None:
    """Also where the only process there is executes nothing."""
    settings = Settings(database_url=new_database(), run_expires_after_s=1)
    with serving(loop, settings, executor=False) as server, client_of(server) as http:
        talk = converse(http, "Hello?")
        events = talk.stream()
        assert transcript(events) == [
            "thread.run.created queued",
            "thread.run.queued queued",
            "thread.run.expired expired",
            DONE,
        ]
        run, messages, steps = check_ended(talk, events)
        assert (messages, steps, run["started_at"]) == ([], [], None)


# --- Deleted


def test_deleting_the_thread_of_a_run_ends_its_stream_and_its_request(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    with (
        upstream(HEAD, chunk("Half"), hold=True) as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = converse(http, "Hello?")
        with talk.streaming() as stream:
            events = []
            for event in stream:
                events.append(event)
                if event.name == "thread.message.delta":
                    sent(http.delete(talk.path))
        assert [event.name for event in events[-2:]] == ["error", "done"]
        assert transcript(events)[:-2] == [*OPENING, *speaking("Half")]
        run_id = events[0].payload["id"]
        assert events[-2].payload["error"]["message"] == f"No run found with id '{run_id}'."
        assert http.get(f"{talk.path}/runs/{run_id}").status_code == 404
        eventually(lambda: model.hung_up_at, within_s=5)


MEBIBYTE = b"a" * 2**20
ENDLESS = {
    "a line": (HEAD, MEBIBYTE, 20),
    "a JSON object": (HEAD.replace(b"text/event-stream", b"application/json") + b"{", MEBIBYTE, 20),
    "comments": (HEAD, b": " + MEBIBYTE + b"\n", 140),
}


@pytest.mark.parametrize(("head", "piece", "times"), ENDLESS.values(), ids=ENDLESS)
def test_an_answer_without_end_is_not_kept(
    loop: Loop, new_database: Callable[[], str], head: bytes, piece: bytes, times: int
) -> None:
    with (
        upstream(head, *[piece] * times, hold=True) as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = converse(http, "Hello?")
        run = talk.run(talk.stream()[-2].payload["id"])
        assert run["last_error"]["message"] == "The model endpoint sent more than an answer can be."
        assert model.requests == 1


def test_an_error_without_end_is_read_at_its_beginning(loop: Loop, new_database: Callable[[], str]) -> None:
    with (
        upstream(b"HTTP/1.1 400 No\r\nconnection: close\r\n\r\n", MEBIBYTE, hold=True) as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = converse(http, "Hello?")
        run = talk.run(talk.stream()[-2].payload["id"])
        assert run["last_error"]["message"].endswith(f"refused the request (400): {'a' * 200}")


def test_deleting_threads_at_any_moment_harms_nobody(server: Server, http: httpx.Client) -> None:
    for number in range(60):
        talk = converse(http, "[[tokens: 3]] [[pace: 0.002]]")
        with talk.streaming() as stream:
            for position, _ in enumerate(stream):
                if position == number % 12:
                    assert http.delete(talk.path).status_code == 200
                    break
    eventually(lambda: "adlatus_runs_executing 0.0" in metrics(server))
    assert converse(http, "[[say: I am well.]]").completed() == "I am well."


def metrics(server: Server) -> str:
    return server.resources.metrics.render().decode()


# --- The thread lock


def test_one_run_at_a_time_and_no_message_meanwhile(http: httpx.Client) -> None:
    talk = converse(http, "[[stall]]")
    run = talk.start()
    second = http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id})
    message = http.post(f"{talk.path}/messages", json={"role": "user", "content": "And?"})
    with_message = http.post(
        f"{talk.path}/runs",
        json={
            "assistant_id": talk.assistant_id,
            "additional_messages": [{"role": "user", "content": "And?"}],
            "stream": True,
        },
    )
    active = f"Thread {talk.thread_id} already has an active run {run['id']}."
    refused = f"Can't add messages to {talk.thread_id} while a run {run['id']} is active."
    for response, words in ((second, active), (with_message, active), (message, refused)):
        assert response.status_code == 400
        assert response.headers["content-type"] == "application/json"
        assert response.json() == {
            "error": {"message": words, "type": "invalid_request_error", "param": None, "code": None}
        }
    assert len(talk.messages()) == 1
    sent(talk.cancel(run["id"]))
    talk.ended(run["id"])
    talk.say("[[say: Go on.]]")
    assert talk.completed() == "Go on."


# --- What the model is asked


def heard(talk: Conversation, **body: Any) -> Json:
    """The request that the model received; the thread's last message is `[[echo: request]]`."""
    answer: Json = httpx.Response(200, text=talk.completed(**body)).json()
    return answer


ECHO = "[[echo: request]]"
ALWAYS = {"stream": True, "stream_options": {"include_usage": True}}


def test_a_plain_run_asks_for_nothing_special(http: httpx.Client) -> None:
    assert heard(converse(http, ECHO, instructions="Be kind.")) == ALWAYS | {
        "model": "gpt-4o",
        "messages": [{"role": "system", "content": "Be kind."}, {"role": "user", "content": ECHO}],
    }


def test_the_assistants_settings_reach_the_model(http: httpx.Client) -> None:
    chosen = {"temperature": 0.2, "top_p": 0.9, "reasoning_effort": "low", "response_format": {"type": "json_object"}}
    asked = heard(converse(http, ECHO, **chosen))
    assert asked == ALWAYS | chosen | {"model": "gpt-4o", "messages": [{"role": "user", "content": ECHO}]}


SCHEMA = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "schema": {"type": "object", "properties": {"b": {}, "a": {}}}, "strict": True},
}


@pytest.mark.parametrize(
    ("sent_with_run", "received"),
    [
        ({"model": "gpt-4o-mini"}, {"model": "gpt-4o-mini"}),
        ({"temperature": 0}, {"temperature": 0}),
        ({"temperature": 1.7}, {"temperature": 1.7}),
        ({"top_p": 0.25}, {"top_p": 0.25}),
        ({"reasoning_effort": "high"}, {"reasoning_effort": "high"}),
        ({"response_format": {"type": "json_object"}}, {"response_format": {"type": "json_object"}}),
        ({"response_format": {"type": "text"}}, {"response_format": {"type": "text"}}),
        ({"response_format": SCHEMA}, {"response_format": SCHEMA}),
        ({"response_format": "auto"}, {}),
        ({"max_completion_tokens": 4000}, {"max_completion_tokens": 4000}),
        ({"metadata": {"only": "ours"}}, {}),
    ],
)
def test_an_override_reaches_the_model(http: httpx.Client, sent_with_run: Json, received: Json) -> None:
    talk = converse(http, ECHO)
    expected = ALWAYS | {"model": "gpt-4o", "messages": [{"role": "user", "content": ECHO}]}
    assert heard(talk, **sent_with_run) == expected | received
    [run] = sent(http.get(f"{talk.path}/runs"))["data"]
    assert {name: run[name] for name in sent_with_run} == sent_with_run


@pytest.mark.parametrize(
    ("overrides", "system"),
    [
        ({}, "Be kind."),
        ({"instructions": "Be brief."}, "Be brief."),
        ({"instructions": ""}, None),
        ({"additional_instructions": "Say Jane."}, "Be kind.\nSay Jane."),
        ({"instructions": "Be brief.", "additional_instructions": "Say Jane."}, "Be brief.\nSay Jane."),
        ({"instructions": "", "additional_instructions": "Say Jane."}, "Say Jane."),
    ],
)
def test_instructions_are_the_system_message(http: httpx.Client, overrides: Json, system: str | None) -> None:
    talk = converse(http, ECHO, instructions="Be kind.")
    first = [{"role": "system", "content": system}] if system else []
    assert heard(talk, **overrides)["messages"] == [*first, {"role": "user", "content": ECHO}]
    [run] = sent(http.get(f"{talk.path}/runs"))["data"]
    assert run["instructions"] == system


def test_an_override_is_for_one_run_only(http: httpx.Client) -> None:
    talk = converse(http, ECHO, instructions="Be kind.")
    heard(talk, model="gpt-4o-mini", instructions="Be brief.", temperature=0.1)
    talk.say(ECHO)
    second = heard(talk)
    assert (second["model"], second["messages"][0]["content"]) == ("gpt-4o", "Be kind.")
    assert "temperature" not in second


def test_history_goes_to_the_model_in_order_and_with_its_roles(http: httpx.Client) -> None:
    talk = converse(http, "[[say: Hello, Jane!]]")
    talk.completed()
    talk.say("I am the assistant.", role="assistant")
    talk.say([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}])
    added = [{"role": "assistant", "content": "Yes?"}, {"role": "user", "content": ECHO}]
    assert heard(talk, additional_messages=added)["messages"] == [
        {"role": "user", "content": "[[say: Hello, Jane!]]"},
        {"role": "assistant", "content": "Hello, Jane!"},
        {"role": "assistant", "content": "I am the assistant."},
        {"role": "user", "content": "one\ntwo"},
        {"role": "assistant", "content": "Yes?"},
        {"role": "user", "content": ECHO},
    ]
    assert [text_of(m) for m in talk.messages()[4:6]] == ["Yes?", ECHO]


PIXEL = "data:image/png;base64,iVBORw0KGgo="


def picture(url: str, **detail: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url, **detail}}


def test_images_go_to_the_model_as_parts(http: httpx.Client) -> None:
    link = "https://example.org/cat.png"
    content = [{"type": "text", "text": ECHO}, picture(link, detail="low"), picture(PIXEL)]
    assert heard(converse(http, content))["messages"] == [
        {"role": "user", "content": [content[0], content[1], picture(PIXEL, detail="auto")]}
    ]


def test_links_to_images_are_refused_or_forwarded_as_it_is_set(
    server: Server, loop: Loop, new_database: Callable[[], str]
) -> None:
    """Data URLs hold their image themselves."""
    elsewhere = server.model_url
    database_url = new_database()
    link = [{"type": "text", "text": ECHO}, picture("https://example.org/cat.png", detail="auto")]
    settings = Settings(database_url=database_url, model_base_url=elsewhere, image_urls="refuse")
    with serving(loop, settings) as strict, client_of(strict) as http:
        check_failed(
            converse(http, link),
            "invalid_prompt",
            "The message links to an image, and links are not followed here. Send the image as a data: URL, or set "
            "ADLATUS_IMAGE_URLS.",
        )
        own = [link[0], picture(PIXEL, detail="high")]
        assert heard(converse(http, own))["messages"] == [{"role": "user", "content": own}]
    settings = Settings(database_url=database_url, model_base_url=elsewhere, image_urls="forward")
    with serving(loop, settings) as lenient, client_of(lenient) as http:
        assert heard(converse(http, link))["messages"] == [{"role": "user", "content": link}]


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"])
def test_no_link_leads_into_the_servers_own_network(server: Server, loop: Loop, database_url: str, host: str) -> None:
    """What is fetched for a client comes from public addresses only: here it would be the model's own server."""
    inside = httpx.URL(server.model_url).copy_with(raw_path=b"/v1/models")
    url = str(inside).replace("127.0.0.1", host)
    settings = Settings(database_url=database_url, model_base_url=server.model_url)
    with serving(loop, settings) as guarded, client_of(guarded) as http:
        check_failed(
            converse(http, [{"type": "text", "text": ECHO}, picture(url)]),
            "invalid_prompt",
            f"The image '{url}' could not be fetched: nothing public answers there. Send it as a data: URL.",
        )


def test_one_upstream_model_can_stand_for_every_name(
    server: Server, loop: Loop, new_database: Callable[[], str]
) -> None:
    settings = Settings(database_url=new_database(), model_base_url=server.model_url, model="qwen3:32b")
    with serving(loop, settings) as mapped, client_of(mapped) as http:
        talk = converse(http, ECHO)
        assert heard(talk)["model"] == "qwen3:32b"
        talk.say(ECHO)
        assert heard(talk, model="gpt-4.1")["model"] == "qwen3:32b"
        assert [run["model"] for run in sent(http.get(f"{talk.path}/runs"))["data"]] == ["gpt-4.1", "gpt-4o"]
