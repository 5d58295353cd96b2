"""From rows to the chat request."""

from dataclasses import replace
from typing import Any

import pytest

from adlatus.backends.routing import Endpoint, Route
from adlatus.runs.budget import Left
from adlatus.runs.prompt import RefusedImage, build, links
from adlatus.wire.messages import Message
from adlatus.wire.runs import Run

Json = dict[str, Any]


def run_of(**changes: object) -> Run:
    fields: Json = dict.fromkeys(Run.model_fields)
    fields |= {
        "id": "run_1",
        "object": "thread.run",
        "created_at": 1,
        "assistant_id": "asst_1",
        "thread_id": "thread_1",
    }
    fields |= {"status": "in_progress", "model": "m", "tools": [], "tool_resources": {}, "metadata": {}}
    fields |= {"truncation_strategy": {"type": "auto"}, "response_format": "auto", "tool_choice": "auto"}
    return Run.of(fields | {"parallel_tool_calls": True} | changes)


def _message(role: str, *parts: Json) -> Message:
    fields: Json = dict.fromkeys(Message.model_fields)
    fields |= {"id": "msg_1", "object": "thread.message", "created_at": 1, "thread_id": "thread_1"}
    return Message.of(
        fields | {"status": "completed", "role": role, "content": list(parts), "attachments": [], "metadata": {}}
    )


def _text(value: str) -> Json:
    return {"type": "text", "text": {"value": value, "annotations": []}}


def _link(url: str) -> Json:
    return {"type": "image_url", "image_url": {"url": url, "detail": "low"}}


STRICT = Route("m", Endpoint("strict", "http://h/v1", image_urls="refuse", set_by={"image_urls": "ADLATUS_IMAGE_URLS"}))
LENIENT = Route("m", Endpoint("lenient", "http://lenient/v1", image_urls="forward"))


def test_instructions_come_first_and_messages_in_order() -> None:
    history = [_message("user", _text("a")), _message("assistant", _text("b")), _message("user", _text("c"))]
    assert build(run_of(instructions="Be kind."), history, STRICT, Left())["messages"] == [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": "b"},
        {"role": "user", "content": "c"},
    ]


def test_without_instructions_there_is_no_system_message() -> None:
    built = build(run_of(), [_message("user", _text("a"))], STRICT, Left())
    assert built["messages"] == [{"role": "user", "content": "a"}]


def test_an_empty_thread_without_instructions_is_an_empty_message() -> None:
    assert build(run_of(), [], STRICT, Left())["messages"] == [{"role": "user", "content": ""}]


def test_several_text_parts_are_one_text() -> None:
    built = build(run_of(), [_message("user", _text("a"), _text("b"))], STRICT, Left())
    assert built["messages"] == [{"role": "user", "content": "a\nb"}]


def test_an_empty_message_is_left_out() -> None:
    history = [_message("assistant"), _message("user", _text("a"))]
    assert build(run_of(), history, STRICT, Left())["messages"] == [{"role": "user", "content": "a"}]


def test_only_settings_that_are_set_are_sent() -> None:
    history = [_message("user", _text("a"))]
    assert build(run_of(), history, STRICT, Left()) == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
    }
    schema = {"type": "json_schema", "json_schema": {"name": "n", "schema": {}}}
    run = run_of(temperature=0.5, top_p=0.9, reasoning_effort="low", max_completion_tokens=300, response_format=schema)
    assert build(run, history, STRICT, Left(completion_tokens=200)) == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 0.5,
        "top_p": 0.9,
        "reasoning_effort": "low",
        "max_completion_tokens": 200,
        "response_format": schema,
    }


def test_links_to_images_are_forwarded_only_where_that_is_allowed() -> None:
    message = _message("user", _text("look"), _link("https://example.com/a.png"))
    assert build(run_of(), [message], LENIENT, Left())["messages"][0]["content"] == [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}},
    ]
    with pytest.raises(RefusedImage, match="ADLATUS_IMAGE_URLS"):
        build(run_of(), [message], STRICT, Left())


def test_a_model_without_eyes_refuses_images() -> None:
    with pytest.raises(RefusedImage, match="does not take images"):
        build(run_of(), [_message("user", _link("data:image/png;base64,AAAA"))], replace(LENIENT, vision=False), Left())


@pytest.mark.parametrize("name", ["temperature", "top_p"])
def test_what_the_original_fills_in_is_left_to_the_endpoint(name: str) -> None:
    assert name not in build(run_of(**{name: 1.0}), [], LENIENT, Left())
    assert build(run_of(**{name: 0.0}), [], LENIENT, Left())[name] == 0


def test_links_are_replaced_by_what_was_fetched_where_this_server_fetches() -> None:
    inline = Route("m", Endpoint("inline", "http://inline/v1", image_urls="inline"))
    url, data = "https://example.com/a.png", "data:image/png;base64,AAAA"
    messages = [
        _message("user", _text("look"), _link(url), _link(data)),
        _message("assistant", _link("https://example.com/b.png")),
    ]
    assert links(messages, inline) == [url]
    assert links(messages, LENIENT) == links(messages, STRICT) == links(messages, replace(inline, vision=False)) == []
    content = build(run_of(), messages, inline, Left(), {url: "data:image/png;base64,BBBB"})["messages"][0]["content"]
    assert [part["image_url"]["url"] for part in content[1:]] == ["data:image/png;base64,BBBB", data]


def test_data_urls_always_go() -> None:
    message = _message("user", _link("data:image/png;base64,AAAA"))
    assert build(run_of(), [message], STRICT, Left())["messages"][0]["content"][0]["type"] == "image_url"


def test_an_image_file_without_bytes_is_named_to_the_model() -> None:
    part = {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "auto"}}
    [content] = build(run_of(), [_message("user", part)], LENIENT, Left())["messages"][0]["content"]
    assert "file-1" in content["text"]
