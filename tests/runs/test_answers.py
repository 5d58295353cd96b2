"""How a model is to answer: what assistants and runs say of it reaches the endpoint, and nothing else does."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.transcripts import asked, client_of, converse, sent
from tests.runs.upstream import HEAD, chunk, upstream

Json = dict[str, Any]

SCHEMA = {
    "type": "object",
    "properties": {"b": {"type": "string"}, "a": {"type": ["integer", "null"]}},
    "required": ["b", "a"],
    "additionalProperties": False,
}
STRICT = {
    "type": "json_schema",
    "json_schema": {"name": "answer", "description": "An answer.", "schema": SCHEMA, "strict": True},
}
LENIENT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": {}, "strict": False}}
FORMATS: list[Json] = [{"type": "text"}, {"type": "json_object"}, STRICT, LENIENT]

ALWAYS = {"model": "gpt-4o", "stream": True, "stream_options": {"include_usage": True}}
"""What is in every request beside its messages."""


def request_of(http: httpx.Client, assistant: Json, **run: Any) -> Json:
    """The request that the model got, without what is in every one."""
    talk = converse(http, "[[echo: request]]", **assistant)
    heard: Json = json.loads(talk.completed(**run))
    assert heard.pop("messages") == [{"role": "user", "content": "[[echo: request]]"}]
    assert {name: heard.pop(name) for name in ALWAYS} == ALWAYS
    return heard


def test_what_nobody_has_asked_for_is_left_to_the_endpoint(http: httpx.Client) -> None:
    assert request_of(http, {}) == {}
    assert request_of(http, {"temperature": 1, "top_p": 1, "response_format": "auto"}) == {}
    assert request_of(http, {"temperature": 0.5, "top_p": 0.5}, temperature=1, top_p=1) == {}


@pytest.mark.parametrize("settings", [{"temperature": 0, "top_p": 0}, {"temperature": 1.7}, {"top_p": 0.25}])
def test_the_temperature_and_top_p_of_the_assistant_or_of_the_run_are_asked_for(
    http: httpx.Client, settings: Json
) -> None:
    assert request_of(http, settings) == request_of(http, {}, **settings) == settings
    others = {"temperature": 0.5, "top_p": 0.5}
    assert request_of(http, others, **settings) == others | settings
    assert request_of(http, settings, temperature=None, top_p=None) == settings


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh"])
def test_the_effort_of_reasoning_of_the_assistant_or_of_the_run_is_asked_for(http: httpx.Client, effort: str) -> None:
    wanted = {"reasoning_effort": effort}
    assert request_of(http, wanted) == request_of(http, {}, **wanted) == wanted
    assert request_of(http, {"reasoning_effort": "max"}, **wanted) == wanted


@pytest.mark.parametrize("wanted", FORMATS, ids=["text", "object", "strict schema", "schema"])
def test_the_format_of_the_assistant_or_of_the_run_is_asked_for(http: httpx.Client, wanted: Json) -> None:
    expected = {"response_format": wanted}
    assert request_of(http, expected) == request_of(http, {}, **expected) == expected
    assert request_of(http, {"response_format": {"type": "json_object"}}, **expected) == expected
    assert request_of(http, expected, response_format="auto") == {}


def test_schemas_go_with_their_properties_in_order(loop: Loop, new_database: Callable[[], str]) -> None:
    """Models answer in the order of the schema."""
    function = {"type": "function", "function": {"name": "f", "parameters": SCHEMA}}
    with (
        upstream(HEAD, chunk("Hi."), chunk(finish_reason="stop"), b"data: [DONE]\n\n") as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        assert converse(http, "Hello?", response_format=STRICT, tools=[function]).completed() == "Hi."
        heard = json.loads(model.received[0][1])
    assert json.dumps(heard["response_format"]) == json.dumps(STRICT)
    assert json.dumps(heard["tools"]) == json.dumps([function])


def test_a_thread_and_its_run_are_answered_as_is_asked(http: httpx.Client) -> None:
    settings = {"temperature": 0.25, "top_p": 0.5, "reasoning_effort": "low", "response_format": STRICT}
    assistant = sent(http.post("/assistants", json={"model": "gpt-4o"}))
    thread = {"messages": [{"role": "user", "content": "[[echo: request]]"}]}
    body = {"assistant_id": assistant["id"], "thread": thread, "max_completion_tokens": 400, "stream": True} | settings
    stream = http.post("/threads/runs", json=body).text
    completed = next(frame for frame in stream.split("\n\n") if "event: thread.message.completed" in frame)
    heard = json.loads(json.loads(completed.split("data: ", 1)[1])["content"][0]["text"]["value"])
    del heard["messages"]
    assert heard == ALWAYS | settings | {"max_completion_tokens": 400}


def test_every_turn_of_a_run_is_asked_for_in_the_same_way(http: httpx.Client) -> None:
    settings = {"temperature": 0.25, "top_p": 0.5, "reasoning_effort": "low", "response_format": STRICT}
    tools = [{"type": "function", "function": {"name": "add"}}]
    talk = converse(http, "[[call: add]] [[echo: request]]", tools=tools, **settings)
    run = talk.waiting()
    talk.ended(sent(talk.submit(run["id"], asked({"add": "7"}, run)))["id"])
    heard = json.loads(talk.answer())
    assert {name: heard[name] for name in settings} == settings
