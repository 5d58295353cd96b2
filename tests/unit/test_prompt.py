"""From rows to the chat request."""

from dataclasses import replace
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from adlatus.backends.routing import Endpoint, Route
from adlatus.runs.budget import Left
from adlatus.runs.prompt import Calls, Item, RefusedImage, arguments, build, ends, fitting, latest, links
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


# --- Calls


def _said(text: str) -> Message:
    return _message("assistant", _text(text)).model_copy(update={"run_id": "run_0"})


def _call(name: str, arguments: str = "{}", output: str = "out") -> Json:
    function = {"name": "f", "arguments": arguments, "output": output}
    return {"id": f"call_{name}", "type": "function", "function": function}


def _asked(name: str, arguments: str = "{}") -> Json:
    return {"id": f"call_{name}", "type": "function", "function": {"name": "f", "arguments": arguments}}


def test_calls_are_followed_by_their_outputs() -> None:
    items: list[Item] = [
        _message("user", _text("a")),
        Calls("run_0", (_call("1"), _call("2", '{"x":1}', ""))),
        _said("b"),
    ]
    assert build(run_of(), items, STRICT, Left())["messages"] == [
        {"role": "user", "content": "a"},
        {"role": "assistant", "content": None, "tool_calls": [_asked("1"), _asked("2", '{"x":1}')]},
        {"role": "tool", "tool_call_id": "call_1", "content": "out"},
        {"role": "tool", "tool_call_id": "call_2", "content": ""},
        {"role": "assistant", "content": "b"},
    ]


def test_calls_come_with_the_text_of_their_turn_and_no_other() -> None:
    items: list[Item] = [
        _said("a"),
        Calls("run_0", (_call("1"),), "msg_1"),
        Calls("run_0", (_call("2"),)),
        _said("b"),
        Calls("run_0", (_call("3"),), "msg_0"),
    ]
    chat = build(run_of(), items, STRICT, Left())["messages"]
    assert [message["content"] for message in chat] == ["a", "out", None, "out", "b", None, "out"]
    assert [len(message.get("tool_calls", ())) for message in chat] == [1, 0, 1, 0, 0, 1, 0]


def test_an_empty_text_of_a_turn_is_none() -> None:
    items: list[Item] = [_message("user", _text("a")), _said(""), Calls("run_0", (_call("1"),), "msg_1")]
    chat = build(run_of(), items, STRICT, Left())["messages"]
    assert [message["content"] for message in chat] == ["a", None, "out"]


@pytest.mark.parametrize("said", ["{}", ' {"a": {"b": [1, null, "\\u00e9"]}} '])
def test_arguments_that_are_an_object_go_as_they_are(said: str) -> None:
    assert arguments(said) == said


@pytest.mark.parametrize("said", ["", " ", "\n\t"])
def test_empty_arguments_are_an_empty_object(said: str) -> None:
    assert arguments(said) == "{}"


@pytest.mark.parametrize(
    "said", ['{"a": ', "[1]", "null", '"a"', "1", "Bonn", '{"a": NaN}', "{}{}", "{'a': 1}", '{"a": 1e400}', "[" * 9999]
)
def test_arguments_that_are_no_object_are_wrapped_into_one(said: str) -> None:
    assert orjson.loads(arguments(said)) == {"malformed_arguments": said}
    items = [Calls("run_0", (_call("1", said),))]
    [asked, _] = build(run_of(), items, STRICT, Left())["messages"]
    assert asked["tool_calls"][0]["function"]["arguments"] == arguments(said)
    assert items[0].calls[0]["function"]["arguments"] == said


def test_refusals_are_words() -> None:
    message = _message("assistant", _text("a"), {"type": "refusal", "refusal": "No."})
    assert build(run_of(), [message], STRICT, Left())["messages"] == [{"role": "assistant", "content": "a\nNo."}]


# --- Tools

F = {
    "type": "function",
    "function": {"name": "f", "description": "d", "parameters": {"type": "object"}, "strict": True},
}
G = {"type": "function", "function": {"name": "g", "parameters": {}, "strict": False}}
FORCED = {"type": "function", "function": {"name": "f"}}


def _calling(items: list[Any] | None = None, **run: Any) -> Json:
    """What a request says of tools."""
    request = build(run_of(**{"tools": [F, G], **run}), items or [], STRICT, Left())
    return {name: request[name] for name in ("tools", "tool_choice", "parallel_tool_calls") if name in request}


def test_functions_are_offered_strict_only_where_they_are() -> None:
    plain = {"type": "function", "function": {"name": "g", "parameters": {}}}
    assert _calling(tools=[F, G]) == {"tools": [F, plain]}


def test_without_tools_nothing_is_said_of_them() -> None:
    assert _calling(tools=[], tool_choice="required", parallel_tool_calls=False) == {}


def test_the_code_interpreter_is_a_function_with_a_free_name() -> None:
    taken = {"type": "function", "function": {"name": "code_interpreter", "parameters": {}}}
    called = _calling(tools=[{"type": "code_interpreter"}, taken], tool_choice={"type": "code_interpreter"})
    assert [tool["function"]["name"] for tool in called["tools"]] == ["code_interpreter", "code_interpreter_2"]
    assert called["tool_choice"] == {"type": "function", "function": {"name": "code_interpreter_2"}}


def test_the_choice_of_none_offers_nothing() -> None:
    assert _calling(tool_choice="none", parallel_tool_calls=False) == {}


@pytest.mark.parametrize("choice", ["auto", {"type": "code_interpreter"}, {"type": "file_search"}])
def test_choices_that_force_no_function_are_left_out(choice: Any) -> None:
    assert _calling(tool_choice=choice).keys() == {"tools"}


@pytest.mark.parametrize("choice", ["required", FORCED])
def test_a_call_is_forced_in_the_first_turn_only(choice: Any) -> None:
    assert _calling(tool_choice=choice)["tool_choice"] == choice
    assert _calling([Calls("run_0", (_call("1"),))], tool_choice=choice)["tool_choice"] == choice
    assert _calling([Calls("run_1", (_call("1"),))], tool_choice=choice).keys() == {"tools"}


def test_calls_one_at_a_time_are_asked_for_only_where_wanted() -> None:
    assert "parallel_tool_calls" not in _calling()
    assert _calling(parallel_tool_calls=False)["parallel_tool_calls"] is False


def test_the_completion_is_limited_to_what_is_left() -> None:
    run = run_of(max_completion_tokens=1000)
    assert build(run, [], STRICT, Left(completion_tokens=700))["max_completion_tokens"] == 700
    assert "max_completion_tokens" not in build(run_of(), [], STRICT, Left())


# --- Truncation


@pytest.mark.parametrize(("room", "count"), [(-1, 0), (0, 0), (2, 0), (3, 1), (4, 2), (7, 2), (8, 3), (99, 3)])
def test_as_many_fit_as_come_before_the_first_that_does_not(room: int, count: int) -> None:
    assert fitting([3, 1, 4], room) == count
    assert fitting([], room) == 0


def test_the_oldest_have_a_quarter_and_the_newest_the_rest() -> None:
    same = [10] * 20
    assert ends(same, same, 100, newest_stays=True) == (2, 8)
    assert ends(same, same, 40, newest_stays=True) == (1, 3)
    assert ends(same, same, 39, newest_stays=True) == (0, 3)
    assert ends([26, *same], same, 100, newest_stays=True) == (0, 10)


def test_the_newest_has_the_first_claim() -> None:
    assert ends([10] * 9, [95] + [10] * 8, 100, newest_stays=True) == (0, 1)
    assert ends([10] * 9, [85] + [10] * 8, 100, newest_stays=False) == (1, 1)
    assert ends([10] * 9, [101] + [10] * 8, 100, newest_stays=True) == (0, 1)
    assert ends([10] * 9, [101] + [10] * 8, 100, newest_stays=False) == (2, 0)
    assert ends([], [], 100, newest_stays=True) == (0, 0)
    assert ends([10], [10], -5, newest_stays=True) == (0, 1)


def test_the_latest_are_the_newest_that_fit() -> None:
    assert latest([3, 1, 4], 4, newest_stays=True) == 2
    assert latest([3, 1, 4], 2, newest_stays=True) == 1
    assert latest([3, 1, 4], 2, newest_stays=False) == 0
    assert latest([], 2, newest_stays=True) == 0


@given(st.lists(st.integers(1, 50), min_size=1), st.integers(-10, 500), st.booleans())
def test_of_what_does_not_fit_the_middle_goes_and_the_rest_fits(
    sizes: list[int], room: int, newest_stays: bool
) -> None:
    if sum(sizes) <= room:
        return
    head, tail = ends(sizes, sizes[::-1], room, newest_stays=newest_stays)
    assert head + tail < len(sizes) or len(sizes) == 1
    kept = sum(sizes[:head]) + sum(sizes[len(sizes) - tail :])
    assert kept <= max(room, 0) or (newest_stays and (head, tail) == (0, 1))
    assert sum(sizes[:head]) <= max(room // 4, 0)
    assert tail or sizes[-1] > room
    assert not newest_stays or tail
