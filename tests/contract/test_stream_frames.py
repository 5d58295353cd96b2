"""The bytes of a stream: frames, their order and numbers, JSON compact and in wire order."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from openai.types.beta import Assistant

from tests.contract.answers import ENDING, OPENING, each_answer

Frames = Callable[[str, dict[str, Any]], list[tuple[int, str, bytes]]]

FRAME = re.compile(rb"id: (\d+)\nevent: ([a-z_.]+)\ndata: ([^\n]+)\n\n")
TEXT_RUN = [*OPENING, "thread.message.delta", "thread.message.delta", *ENDING, "done"]


@pytest.fixture
def frames(http: httpx.Client, assistant: Assistant) -> Frames:
    """Streams a run; gives (number, event, data) of every frame, having checked that there is nothing but frames."""

    def stream(path: str, body: dict[str, Any]) -> list[tuple[int, str, bytes]]:
        response = http.post(path, json={"assistant_id": assistant.id, "stream": True, **body})
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert response.headers["transfer-encoding"] == "chunked"
        assert FRAME.sub(b"", response.content) == b""
        return [(int(number), name.decode(), data) for number, name, data in FRAME.findall(response.content)]

    return stream


def test_the_events_of_a_run_come_in_the_recorded_order(frames: Frames, thread_with: Callable[[str], str]) -> None:
    got = frames(f"threads/{thread_with('[[say: Hello Jane]]')}/runs", {})
    assert [name for _, name, _ in got] == TEXT_RUN


def test_the_events_of_a_thread_and_its_run_begin_with_the_thread(frames: Frames) -> None:
    got = frames("threads/runs", {"thread": {"messages": [{"role": "user", "content": "[[say: Hello Jane]]"}]}})
    assert [name for _, name, _ in got] == ["thread.created", *TEXT_RUN]


def test_a_stream_ends_with_done(frames: Frames) -> None:
    got = frames("threads/runs", {})
    assert got[-1][1:] == ("done", b"[DONE]")
    assert [name for _, name, _ in got].count("done") == 1


def test_the_numbers_of_events_always_rise(frames: Frames) -> None:
    numbers = [number for number, _, _ in frames("threads/runs", {})]
    assert numbers == sorted(set(numbers))


@each_answer
def test_the_json_of_events_is_compact_and_on_one_line(
    frames: Frames, thread_with: Callable[[str], str], content: str
) -> None:
    for _, _, data in frames(f"threads/{thread_with(content)}/runs", {})[:-1]:
        assert json.dumps(json.loads(data), ensure_ascii=False, separators=(",", ":")).encode() == data


def test_created_and_queued_show_the_same_run(frames: Frames) -> None:
    shown = {name: data for _, name, data in frames("threads/runs", {})}
    assert shown["thread.run.created"] == shown["thread.run.queued"]
    assert json.loads(shown["thread.run.created"])["status"] == "queued"


def test_the_objects_of_a_stream_are_byte_for_byte_those_of_rest(http: httpx.Client, frames: Frames) -> None:
    shown = {name: data for _, name, data in frames("threads/runs", {})}
    run = json.loads(shown["thread.run.completed"])
    message = json.loads(shown["thread.message.completed"])
    thread = f"threads/{run['thread_id']}"
    assert http.get(f"{thread}/runs/{run['id']}").content == shown["thread.run.completed"]
    assert http.get(f"{thread}/messages/{message['id']}").content == shown["thread.message.completed"]
    assert http.get(thread).content == shown["thread.created"]


def deltas(got: list[tuple[int, str, bytes]]) -> Iterator[bytes]:
    return (data for _, name, data in got if name == "thread.message.delta")


def test_only_the_first_delta_of_a_message_has_annotations(frames: Frames, thread_with: Callable[[str], str]) -> None:
    first, later = deltas(frames(f"threads/{thread_with('[[say: Hello Jane]]')}/runs", {}))
    head = b'{"id":"%s","object":"thread.message.delta","delta":{"content":[{"index":0,"type":"text","text":{"value":'
    named = head % json.loads(first)["id"].encode()
    assert first == named + b'"Hello","annotations":[]}}]}}'
    assert later == named + b'" Jane"}}]}}'


def test_a_client_sees_the_frames_as_they_come(http: httpx.Client, assistant: Assistant) -> None:
    """The head and the first events arrive while the model is still silent."""
    messages = [{"role": "user", "content": "[[delay: 30]]"}]
    body = {"assistant_id": assistant.id, "stream": True, "thread": {"messages": messages}}
    with http.stream("POST", "threads/runs", json=body) as response:
        lines = response.iter_lines()
        assert next(line for line in lines if line.startswith("event: ")) == "event: thread.created"
        in_progress = next(line for line in lines if line == "event: thread.run.in_progress")
        run = json.loads(next(lines).removeprefix("data: "))
        assert in_progress
    cancelled = http.post(f"threads/{run['thread_id']}/runs/{run['id']}/cancel")
    assert cancelled.json()["status"] == "cancelling"
