"""Rehearsal scripts, function calls and embeddings over real HTTP: what httpx and the official SDK see of them."""

import asyncio
import math
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import orjson
import pytest
from openai.types.chat import ChatCompletionMessageParam, ChatCompletionToolUnionParam

from adlatus.errors import StartupError
from adlatus.rehearsal.server import running
from tests.conftest import Loop

WEATHER: ChatCompletionToolUnionParam = {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
SCRIPT = """
exchanges:
  - expect:
      user: {contains: weather}
      tools: [get_weather]
    answer:
      text: Let me see.
      tool_calls:
        - {name: get_weather, arguments: {city: Köln}}
        - {name: get_weather, arguments: '{"city": "Paris'}
  - expect:
      tool_results: {get_weather: [{contains: "22"}, {contains: "12"}]}
    answer:
      text: It is 22 in Köln and 12 in Paris.
      usage: {prompt_tokens: 100, completion_tokens: 9}
  - expect: {user: Hello}
    times: 1
    answer:
      text: Hello, Jane!
      error: {status: 429, message: Slow down, retry_after_s: 0.01, times: 1}
  - expect: {user: Quota}
    answer: {error: {status: 429, message: No more money, code: insufficient_quota}}
  - expect: {user: Break}
    answer: {text: one two three, cut_after: 2}
"""

Start = Callable[[str | None], str]


@pytest.fixture
def start(loop: Loop, tmp_path: Path) -> Iterator[Start]:
    """Starts rehearsal models that play a script and returns their base URLs."""
    with loop.stack() as stack:

        def start(script: str | None) -> str:
            file = tmp_path / "script.yaml"
            if script is not None:
                file.write_text(script)
            return loop.run(stack.enter_async_context(running(script=file if script is not None else None)))

        yield start


@pytest.fixture
def base_url(start: Start) -> str:
    return start(SCRIPT)


@pytest.fixture
def sdk(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=10) as client:
        yield client


@pytest.fixture
def http(base_url: str) -> Iterator[httpx.Client]:
    """Paths begin at the root, where the log is."""
    with httpx.Client(base_url=base_url.removesuffix("v1"), trust_env=False, timeout=10) as client:
        yield client


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def ask(http: httpx.Client, text: str, **rest: Any) -> httpx.Response:
    body = {"model": "m", "messages": [{"role": "user", "content": text}], **rest}
    return http.post("v1/chat/completions", json=body)


def events(body: str) -> list[Any]:
    return [orjson.loads(line.removeprefix("data: ")) for line in body.split("\n\n")[:-2]]


# --- Function calls


def test_a_whole_answer_with_calls_has_the_shape_of_openai(http: httpx.Client, start: Start) -> None:
    answer = httpx.post(
        f"{start(None)}/chat/completions",
        json={"model": "m", "messages": user('[[call: f {"a": "\\n"}]] [[call: g]]')},
        trust_env=False,
    )
    [choice] = answer.json()["choices"]
    first, second = choice["message"].pop("tool_calls")
    assert first.pop("id") != second.pop("id")
    assert first == {"type": "function", "function": {"name": "f", "arguments": '{"a": "\\n"}'}}
    assert second == {"type": "function", "function": {"name": "g", "arguments": "{}"}}
    assert choice == {
        "index": 0,
        "message": {"role": "assistant", "refusal": None, "content": None},
        "logprobs": None,
        "finish_reason": "tool_calls",
    }


def test_a_streamed_call_begins_with_its_name_and_goes_on_with_arguments(start: Start) -> None:
    answer = httpx.post(
        f"{start(None)}/chat/completions",
        json={"model": "m", "messages": user('[[call: f {"a":1}]]'), "stream": True},
        trust_env=False,
    )
    chunks = events(answer.text)
    [call] = chunks[1]["choices"][0]["delta"]["tool_calls"]
    assert call.pop("id").startswith("call_")
    assert call == {"index": 0, "type": "function", "function": {"name": "f", "arguments": ""}}
    assert [chunk["choices"][0]["delta"] for chunk in chunks[:1] + chunks[2:]] == [
        {"role": "assistant", "content": None},
        *({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]} for piece in ('{"', "a", '":', "1", "}")),
        {},
    ]
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


@pytest.mark.parametrize("marker", ["[[garble: 1]]", "[[garble: 0]]", "[[garble: 9]]"])
def test_a_garbled_whole_answer_with_calls_is_no_json(start: Start, marker: str) -> None:
    body = {"model": "m", "messages": user(f"{marker} [[call: f]] [[call: g]]")}
    with pytest.raises(ValueError):
        httpx.post(f"{start(None)}/chat/completions", json=body, trust_env=False).json()


def test_the_sdk_plays_a_whole_conversation_with_tools(sdk: openai.OpenAI) -> None:
    messages = user("How is the weather?")
    asked = sdk.chat.completions.create(model="m", messages=messages, tools=[WEATHER]).choices[0]
    assert asked.finish_reason == "tool_calls"
    assert asked.message.content == "Let me see."
    calls = [call for call in asked.message.tool_calls or [] if call.type == "function"]
    assert [call.function.arguments for call in calls] == ['{"city":"Köln"}', '{"city": "Paris']
    messages.append(asked.message.model_dump())  # type: ignore[arg-type]
    for call, result in zip(calls, ("22 degrees", "12 degrees"), strict=True):
        messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
    answer = sdk.chat.completions.create(model="m", messages=messages, tools=[WEATHER])
    assert answer.choices[0].message.content == "It is 22 in Köln and 12 in Paris."
    assert answer.usage is not None
    assert answer.usage.total_tokens == 109


def test_the_sdk_accumulates_streamed_calls_to_what_a_whole_answer_says(sdk: openai.OpenAI) -> None:
    messages = user("How is the weather?")
    whole = sdk.chat.completions.create(model="m", messages=messages, tools=[WEATHER]).choices[0]
    with sdk.chat.completions.stream(model="m", messages=messages, tools=[WEATHER]) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == whole.finish_reason == "tool_calls"
    assert streamed.message.content == whole.message.content
    assert streamed.message.tool_calls is not None
    assert whole.message.tool_calls is not None
    for one, other in zip(streamed.message.tool_calls, whole.message.tool_calls, strict=True):
        assert other.type == "function"
        assert (one.id, one.function.name, one.function.arguments) == (
            other.id,
            other.function.name,
            other.function.arguments,
        )


# --- Errors


def test_the_sdk_gets_its_answer_by_retrying(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=1, timeout=10) as client:
        answer = client.chat.completions.create(model="m", messages=user("Hello"))
    assert answer.choices[0].message.content == "Hello, Jane!"


def test_an_error_is_told_as_the_script_says(http: httpx.Client) -> None:
    answer = ask(http, "Quota")
    assert answer.status_code == 429
    assert answer.json()["error"] == {
        "message": "No more money",
        "type": "requests",
        "param": None,
        "code": "insufficient_quota",
    }
    assert ask(http, "Hello").headers["retry-after"] == "0.01"


def test_a_cut_breaks_the_stream_off(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        ask(http, "Break", stream=True)


@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_nothing_fits_fails_loudly_and_is_not_tried_again(base_url: str, stream: bool) -> None:
    with (
        openai.OpenAI(base_url=base_url, api_key="any", timeout=10) as client,
        pytest.raises(openai.BadRequestError, match=r"“Good bye”.*Nearest is exchange 0") as refused,
    ):
        client.chat.completions.create(model="m", messages=user("Good bye"), tools=[WEATHER], stream=stream)
    assert refused.value.code == "no_exchange_fits"
    [entry] = httpx.get(f"{base_url.removesuffix('v1')}requests", trust_env=False).json()["data"]
    assert (entry["exchange"], entry["status"]) == (None, 400)


# --- The log


def test_the_log_tells_exchange_and_status_until_it_is_cleared(http: httpx.Client) -> None:
    for text in ("Hello", "Hello", "Hello", "Quota"):
        ask(http, text)
    http.post("v1/embeddings", json={"model": "e", "input": "a"})
    http.post("v1/embeddings", json={"model": "e"})
    http.post("v1/chat/completions", json={"model": "m"})
    with pytest.raises(httpx.RemoteProtocolError):
        ask(http, "Break", stream=True)
    log = http.get("requests").json()["data"]
    chat, embeddings = "/v1/chat/completions", "/v1/embeddings"
    assert [(entry["path"], entry["exchange"], entry["status"]) for entry in log] == [
        (chat, 2, 429),
        (chat, 2, 200),
        (chat, None, 400),
        (chat, 3, 429),
        (embeddings, None, 200),
        (embeddings, None, 400),
        (chat, None, 400),
        (chat, 4, 200),
    ]
    assert [one["used"] for one in http.get("script").json()["data"]] == [0, 0, 1, 1, 1]
    assert http.delete("requests").status_code == 204
    assert http.get("requests").json()["data"] == []
    assert [one["used"] for one in http.get("script").json()["data"]] == [0] * 5
    assert [ask(http, "Hello").status_code for _ in range(3)] == [429, 200, 400]


def test_the_script_can_be_read_back(http: httpx.Client) -> None:
    listed = http.get("script").json()
    assert listed["object"] == "list"
    assert listed["data"][0] == {
        "exchange": 0,
        "expect": {"user": [{"contains": "weather"}], "tools": ["get_weather"]},
        "times": None,
        "used": 0,
    }


def test_without_a_script_there_is_none_to_read(start: Start) -> None:
    answer = httpx.get(start(None).removesuffix("v1") + "script", trust_env=False)
    assert answer.status_code == 404
    assert "--script FILE" in answer.json()["error"]["message"]


def test_a_bad_script_or_a_taken_port_keeps_the_server_from_starting(start: Start) -> None:
    with pytest.raises(StartupError, match=r"exchange 0: answer\.txt is not known"):
        start("exchanges: [{answer: {txt: a}}]")

    async def twice() -> None:
        async with AsyncExitStack() as stack:
            url = await stack.enter_async_context(running())
            await stack.enter_async_context(running(int(url.split(":")[2].removesuffix("/v1"))))

    with pytest.raises(StartupError, match=r"Choose another --port\."):
        asyncio.run(twice())


# --- Embeddings


def test_the_sdk_reads_embeddings(sdk: openai.OpenAI) -> None:
    answer = sdk.embeddings.create(model="any", input=["one two", "three"])  # the SDK asks for base64
    assert answer.model == "any"
    assert [(one.index, len(one.embedding)) for one in answer.data] == [(0, 256), (1, 256)]
    assert answer.usage.prompt_tokens == 3
    for one, text in zip(answer.data, ("one two", "three"), strict=True):
        assert math.isclose(sum(value * value for value in one.embedding), 1, abs_tol=1e-6)
        alone = sdk.embeddings.create(model="any", input=text, encoding_format="float")
        assert alone.data[0].embedding == one.embedding
    assert len(sdk.embeddings.create(model="any", input=[1, 2], dimensions=8).data[0].embedding) == 8


def test_a_wrong_request_for_embeddings_is_told_in_the_shape_of_openai(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="1 to 4096") as refused:
        sdk.embeddings.create(model="any", input="a", dimensions=5_000)
    assert (refused.value.param, refused.value.type) == ("dimensions", "invalid_request_error")
