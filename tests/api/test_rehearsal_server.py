"""The rehearsal model over real HTTP: what httpx and the official SDK see of each script."""

import asyncio
import logging
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

import httpx
import openai
import orjson
import pytest
import uvloop
from openai.types.chat import ChatCompletionMessageParam

from adlatus.rehearsal.memory import KEPT_REQUESTS
from adlatus.rehearsal.server import running


@pytest.fixture(scope="module")
def base_url() -> Iterator[str]:
    """A rehearsal model in a thread with an event loop of its own."""
    address: Future[tuple[str, asyncio.AbstractEventLoop, asyncio.Event]] = Future()

    async def main() -> None:
        stop = asyncio.Event()
        async with running() as url:
            address.set_result((url, asyncio.get_running_loop(), stop))
            await stop.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    url, loop, stop = address.result(10)
    yield url
    loop.call_soon_threadsafe(stop.set)
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture(scope="module")
def http(base_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=base_url, trust_env=False, timeout=10) as client:
        yield client


@pytest.fixture(scope="module")
def sdk(base_url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=0, timeout=10) as client:
        yield client


def ask(text: str, **rest: Any) -> dict[str, Any]:
    return {"model": "any-name", "messages": [{"role": "user", "content": text}], **rest}


def user(text: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": text}]


def events(body: str) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in body.split("\n\n") if line]
    assert lines[-1] == "[DONE]"
    return [orjson.loads(line) for line in lines[:-1]]


def content(chunks: list[Any]) -> str:
    return "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks if chunk["choices"])


def test_a_whole_answer_has_the_shape_of_openai(http: httpx.Client) -> None:
    answer = http.post("chat/completions", json=ask('[[say: He said "hi"\n]]'))
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert body.pop("id").startswith("chatcmpl-")
    assert abs(body.pop("created") - time.time()) < 60
    assert body == {
        "object": "chat.completion",
        "model": "any-name",
        "system_fingerprint": "fp_rehearsal",
        "choices": [
            {
                "index": 0,
                "message": {"role": "assistant", "refusal": None, "content": 'He said "hi"\n'},
                "logprobs": None,
                "finish_reason": "stop",
            }
        ],
        "usage": {
            "prompt_tokens": 5,
            "completion_tokens": 4,
            "total_tokens": 9,
            "prompt_tokens_details": {"cached_tokens": 0},
            "completion_tokens_details": {"reasoning_tokens": 0},
        },
    }


def test_a_streamed_answer_has_the_shape_of_openai(http: httpx.Client) -> None:
    answer = http.post("chat/completions", json=ask("[[say: one two]]", stream=True))
    assert answer.headers["content-type"].startswith("text/event-stream")
    chunks = events(answer.text)
    assert [chunk["choices"][0]["delta"] for chunk in chunks] == [
        {"role": "assistant", "content": ""},
        {"content": "one"},
        {"content": " two"},
        {},
    ]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks] == [None, None, None, "stop"]
    assert len({chunk["id"] for chunk in chunks}) == 1
    first = chunks[0]
    assert first.pop("id").startswith("chatcmpl-")
    assert isinstance(first.pop("created"), int)
    assert first == {
        "object": "chat.completion.chunk",
        "model": "any-name",
        "system_fingerprint": "fp_rehearsal",
        "choices": [
            {"index": 0, "delta": {"role": "assistant", "content": ""}, "logprobs": None, "finish_reason": None}
        ],
    }


def test_usage_comes_in_a_last_chunk_if_it_was_asked_for(http: httpx.Client) -> None:
    body = ask("[[usage: 12 34]]", stream=True, stream_options={"include_usage": True})
    *chunks, last = events(http.post("chat/completions", json=body).text)
    assert all(chunk["usage"] is None for chunk in chunks)
    assert last["choices"] == []
    assert last["usage"]["prompt_tokens"] == 12
    assert last["usage"]["completion_tokens"] == 34
    assert last["usage"]["total_tokens"] == 46


def test_usage_is_left_out_when_the_script_says_none(http: httpx.Client) -> None:
    assert "usage" not in http.post("chat/completions", json=ask("[[usage: none]]")).json()
    body = ask("[[usage: none]]", stream=True, stream_options={"include_usage": True})
    assert events(http.post("chat/completions", json=body).text)[-1]["choices"][0]["finish_reason"] == "stop"


def test_streamed_and_whole_answers_say_the_same(http: httpx.Client) -> None:
    for text in ("Hello", '[[say: ä "quoted" \\ 🙂\n\ttab ]]', "[[tokens: 5000]]", "[[say: ]]", "[[echo: messages]]"):
        whole = http.post("chat/completions", json=ask(text)).json()["choices"][0]["message"]["content"]
        assert content(events(http.post("chat/completions", json=ask(text, stream=True)).text)) == whole


def test_the_sdk_reads_a_whole_answer(sdk: openai.OpenAI) -> None:
    answer = sdk.chat.completions.create(model="gpt-4o", messages=user("Hello there"))
    assert answer.model == "gpt-4o"
    assert (answer.choices[0].message.content or "").endswith("“Hello there”")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 2


def test_the_sdk_reads_a_streamed_answer(sdk: openai.OpenAI) -> None:
    with sdk.chat.completions.create(
        model="gpt-4o",
        messages=user("[[tokens: 50]] [[finish: length]]"),
        stream=True,
        stream_options={"include_usage": True},
    ) as stream:
        chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text.split() == [f"word{number}" for number in range(1, 51)]
    assert [chunk.choices[0].finish_reason for chunk in chunks if chunk.choices][-1] == "length"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.completion_tokens == 50


def test_the_sdk_lists_and_retrieves_models(sdk: openai.OpenAI) -> None:
    assert [model.id for model in sdk.models.list()] == ["rehearsal", "rehearsal-embedding"]
    assert sdk.models.retrieve("anything/at-all").id == "anything/at-all"


@pytest.mark.parametrize(
    ("marker", "status", "kind", "code"),
    [
        ("[[error: 401]]", 401, "invalid_request_error", None),
        ("[[error: 429 retry_after=1]]", 429, "requests", "rate_limit_exceeded"),
        ("[[error: 429 code=insufficient_quota]]", 429, "requests", "insufficient_quota"),
        ("[[error: 500]]", 500, "server_error", None),
        ("[[error: 599]]", 599, "server_error", None),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_an_error_is_told_in_the_shape_of_openai(
    http: httpx.Client, marker: str, status: int, kind: str, code: str | None, stream: bool
) -> None:
    answer = http.post("chat/completions", json=ask(marker, stream=stream))
    assert answer.status_code == status
    assert answer.headers.get("retry-after") == ("1" if "retry_after" in marker else None)
    error = answer.json()["error"]
    assert str(status) in error.pop("message")
    assert error == {"type": kind, "param": None, "code": code}


def test_failures_with_times_happen_one_after_the_other_and_then_it_answers(http: httpx.Client) -> None:
    body = ask("[[error: 503 times=2]] [[error: 429 times=1]] [[say: at last]]")
    assert [http.post("chat/completions", json=body).status_code for _ in range(5)] == [503, 503, 429, 200, 200]
    other = {**body, "messages": [{"role": "system", "content": "x"}, *body["messages"]]}
    assert http.post("chat/completions", json=other).status_code == 503


def test_the_sdk_gets_its_answer_by_retrying(base_url: str) -> None:
    with openai.OpenAI(base_url=base_url, api_key="any", max_retries=2, timeout=10) as client:
        text = "[[error: 429 retry_after=0.01 times=1]] [[error: disconnect times=1]] [[say: at last]]"
        answer = client.chat.completions.create(model="m", messages=user(text))
    assert answer.choices[0].message.content == "at last"


@pytest.mark.parametrize("stream", [False, True])
def test_a_disconnect_closes_the_connection_without_a_byte(http: httpx.Client, stream: bool) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
        http.post("chat/completions", json=ask("[[error: disconnect]]", stream=stream))


def test_a_cut_breaks_the_stream_off_after_so_many_chunks(http: httpx.Client) -> None:
    seen: list[str] = []
    body = ask("[[cut: 3]] [[tokens: 10]]", stream=True)

    def drain(answer: httpx.Response) -> None:
        seen.extend(line for line in answer.iter_lines() if line)

    with (
        http.stream("POST", "chat/completions", json=body) as answer,
        pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"),
    ):
        drain(answer)
    assert content([orjson.loads(line.removeprefix("data: ")) for line in seen]) == "word1 word2 word3"


def test_a_cut_breaks_a_whole_answer_off(http: httpx.Client) -> None:
    with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
        http.post("chat/completions", json=ask("[[cut: 3]] [[tokens: 10]]"))


def test_a_garbled_line_stands_in_the_stream_which_goes_on(http: httpx.Client) -> None:
    body = http.post("chat/completions", json=ask("[[garble: 3]] [[tokens: 5]]", stream=True)).text
    lines = body.split("\n\n")
    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(lines.pop(4).removeprefix("data: "))
    assert content(events("\n\n".join(lines))) == "word1 word2 word3 word4 word5"


def test_a_garbled_whole_answer_is_no_json(http: httpx.Client) -> None:
    answer = http.post("chat/completions", json=ask("[[garble: 3]] [[tokens: 5]]"))
    assert answer.status_code == 200
    with pytest.raises(ValueError):
        answer.json()


def test_the_sdk_sees_an_error_in_the_stream(sdk: openai.OpenAI) -> None:
    stream = sdk.chat.completions.create(
        model="m", messages=user("[[stream_error: 3 The GPU burns]] [[tokens: 9]]"), stream=True
    )
    assert [next(stream).choices[0].delta.content for _ in range(4)] == ["", "word1", " word2", " word3"]
    with stream, pytest.raises(openai.APIError, match="The GPU burns"):
        next(stream)


def test_an_error_in_a_whole_answer_is_its_status(http: httpx.Client) -> None:
    answer = http.post("chat/completions", json=ask("[[stream_error: 3 The GPU burns]]"))
    assert answer.status_code == 500
    assert answer.json()["error"]["message"] == "The GPU burns"


def test_a_stalled_stream_is_silent_after_so_many_chunks(http: httpx.Client) -> None:
    seen: list[str] = []
    body = ask("[[stall: 2]] [[tokens: 9]]", stream=True)
    with (
        http.stream("POST", "chat/completions", json=body, timeout=0.3) as answer,
        pytest.raises(httpx.ReadTimeout),
    ):
        seen.extend(line for line in answer.iter_lines() if line)
    assert content([orjson.loads(line.removeprefix("data: ")) for line in seen]) == "word1 word2"
    with pytest.raises(httpx.ReadTimeout):
        http.post("chat/completions", json=ask("[[stall: 2]] [[tokens: 9]]"), timeout=0.3)


@pytest.mark.parametrize("stream", [False, True])
def test_delay_and_pace_take_their_time(http: httpx.Client, stream: bool) -> None:
    started = time.monotonic()
    body = ask("[[delay: 0.15]] [[pace: 0.05]] [[say: a b c]]", stream=stream)
    with http.stream("POST", "chat/completions", json=body) as answer:
        head_s = time.monotonic() - started
        answer.read()
    assert head_s >= 0.15
    assert time.monotonic() - started >= 0.25


def test_an_unknown_marker_is_answered_with_the_known_ones(sdk: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"Unknown marker '\[\[dealy: 1\]\]'.*\[\[delay: SECONDS\]\]"):
        sdk.chat.completions.create(model="m", messages=user("[[dealy: 1]]"))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'{"model": "m"}', b'{"model": "m", "messages": [1]}', b"[" * 9_999])
def test_a_bad_request_is_a_400(http: httpx.Client, raw: bytes) -> None:
    answer = http.post("chat/completions", content=raw)
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "assistants", 404),
        ("POST", "chat/completions/", 404),
        ("GET", "models/", 200),
        ("GET", "chat/completions", 405),
        ("POST", "models", 405),
    ],
)
def test_an_unknown_route_is_told_in_the_shape_of_openai(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    answer = http.request(method, path)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["error"]["type"] == "invalid_request_error"
        assert f"{method} /v1/{path}" in answer.json()["error"]["message"]


def test_large_requests_are_read(http: httpx.Client) -> None:
    body = ask("x" * 20_000_000 + "[[say: read]]")
    assert http.post("chat/completions", json=body).json()["choices"][0]["message"]["content"] == "read"


def test_requests_are_kept_without_their_key_until_they_are_cleared(base_url: str, http: httpx.Client) -> None:
    requests = base_url.removesuffix("/v1") + "/requests"
    http.delete(requests).raise_for_status()
    assert http.get(requests).json() == {"object": "list", "data": []}
    body = ask("[[error: 500]]", temperature=0.5)
    http.post("chat/completions", json=body, headers={"authorization": "Bearer sk-secret"})
    kept = http.get(requests)
    assert "sk-secret" not in kept.text
    (entry,) = kept.json()["data"]
    assert abs(entry.pop("at") - time.time()) < 60
    assert entry == {"path": "/v1/chat/completions", "exchange": None, "status": 500, "body": body}


def test_only_the_last_requests_are_kept(base_url: str, http: httpx.Client) -> None:
    requests = base_url.removesuffix("/v1") + "/requests"
    for number in range(KEPT_REQUESTS + 5):
        http.post("chat/completions", json=ask("[[say: x]]", seed=number))
    seeds = [entry["body"]["seed"] for entry in http.get(requests).json()["data"]]
    assert seeds == list(range(5, KEPT_REQUESTS + 5))


def test_keep_alive_requests_are_answered_without_the_delay_of_nagle(http: httpx.Client) -> None:
    taken_s = []
    for _ in range(50):
        started = time.monotonic()
        http.post("chat/completions", json=ask("[[say: x]]"))
        taken_s.append(time.monotonic() - started)
    assert sorted(taken_s)[25] < 0.035, "with the delay it is 0.04 at least"


HANGING = ["[[stall: 1]]", "[[stall]] [[tokens: 9]]", "[[delay: 60]]", "[[pace: 60]] [[tokens: 9]]"]


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.01)


def tasks_of_requests() -> list[Any]:
    return [task for task in asyncio.all_tasks() if "run_asgi" in repr(task.get_coro())]


@pytest.mark.parametrize("text", HANGING)
@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_leaves_no_task_behind(text: str, stream: bool, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with running() as url, httpx.AsyncClient(trust_env=False) as client:
            request = asyncio.create_task(client.post(f"{url}/chat/completions", json=ask(text, stream=stream)))
            await until(tasks_of_requests)
            request.cancel()
            await asyncio.wait([request])
            await until(lambda: not tasks_of_requests())

    asyncio.run(scenario())
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


@pytest.mark.parametrize("header", [{"host": "evil.example"}, {"host": ""}, {"origin": "http://evil.example"}])
def test_what_was_asked_is_not_for_web_pages(http: httpx.Client, header: dict[str, str]) -> None:
    """Nor for those whose name was made to lead to this machine."""
    for method, path in (("GET", "/requests"), ("DELETE", "/requests"), ("POST", "/v1/chat/completions")):
        response = http.request(method, str(http.base_url.copy_with(path=path)), headers=header)
        assert response.status_code == 403
        assert "for this machine only" in response.json()["error"]["message"]


@pytest.mark.parametrize("loop_factory", [asyncio.new_event_loop, uvloop.new_event_loop])
def test_it_stops_at_once_although_requests_hang(
    loop_factory: Callable[[], asyncio.AbstractEventLoop], caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> float:
        async with httpx.AsyncClient(trust_env=False) as client:
            async with running() as url:
                with pytest.raises(httpx.RemoteProtocolError, match="incomplete chunked read"):
                    await client.post(f"{url}/chat/completions", json=ask("[[cut]]", stream=True))
                hanging = [
                    asyncio.create_task(client.post(f"{url}/chat/completions", json=ask(text, stream=stream)))
                    for text in HANGING
                    for stream in (False, True)
                ]
                unfinished = socket.create_connection(("127.0.0.1", int(url.split(":")[2].removesuffix("/v1"))))
                unfinished.sendall(
                    b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\n{"
                )
                await until(lambda: len(tasks_of_requests()) == len(hanging) + 1)
                stopping = time.monotonic()
            took_s = time.monotonic() - stopping
            assert tasks_of_requests() == []
            unfinished.close()
            ends = await asyncio.gather(*hanging, return_exceptions=True)
            assert all(isinstance(end, httpx.TransportError) for end in ends), ends
        return took_s

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        assert runner.run(scenario()) < 1
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []


def test_what_happens_inside_the_block_comes_out_as_it_is() -> None:
    async def scenario() -> None:
        async with running():
            raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        asyncio.run(scenario())


def test_two_servers_keep_their_memory_apart() -> None:
    async def scenario() -> list[int]:
        body = ask("[[error: 500 times=1]]")
        async with running() as one, running() as two, httpx.AsyncClient(trust_env=False) as client:
            return [(await client.post(f"{url}/chat/completions", json=body)).status_code for url in (one, one, two)]

    assert asyncio.run(scenario()) == [500, 200, 500]


@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_a_signal(sent: signal.Signals) -> None:
    command = [sys.executable, "-m", "adlatus.cli", "rehearse", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        url = re.search(r"http://127\.0\.0\.1:\d+/v1", process.stdout.readline())
        assert url is not None
        with httpx.Client(base_url=url[0], trust_env=False) as client:
            assert client.get("models").status_code == 200
            with client.stream("POST", "chat/completions", json=ask("[[stall]]", stream=True)) as answer:
                process.send_signal(sent)
                with pytest.raises(httpx.TransportError):
                    answer.read()
        assert process.wait(30) == 0
