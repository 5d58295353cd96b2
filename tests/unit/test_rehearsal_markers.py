"""The rehearsal model's markers, without a server: request in, plan out."""

import re
from typing import Any

import orjson
import pytest

import adlatus.rehearsal
from adlatus.rehearsal.chat import BadRequestError, parse, read
from adlatus.rehearsal.markers import MARKERS, plan
from adlatus.rehearsal.plan import (
    Argue,
    Begin,
    Call,
    Event,
    Fault,
    Finish,
    Garble,
    HangUp,
    Refuse,
    Say,
    Stall,
    Usage,
    Wait,
    tokens,
)


def plan_of(content: object, **body: Any) -> list[Event]:
    return list(plan(read({"model": "any", "messages": [{"role": "user", "content": content}], **body})))


def said(events: list[Event]) -> str:
    return "".join(token for event in events if isinstance(event, Say) for token in event.tokens)


def finish(events: list[Event]) -> Finish:
    (end,) = [event for event in events if isinstance(event, Finish)]
    return end


def test_without_markers_it_says_what_it_is_how_to_replace_it_and_what_it_heard() -> None:
    text = said(plan_of("What is  the\nweather?"))
    assert "not a language model" in text
    assert "ADLATUS_MODEL_BASE_URL" in text
    assert "ADLATUS_MODEL " in text
    assert text.endswith("You wrote: “What is the weather?”")


def test_a_long_message_is_echoed_in_part() -> None:
    text = said(plan_of("x" * 10_000))
    assert len(text) < 500
    assert text.endswith("x…”")


def test_without_any_text_nothing_is_echoed() -> None:
    assert "You wrote" not in said(plan_of([{"type": "image_url", "image_url": {"url": "data:,"}}]))


def test_the_same_request_gets_the_same_plan() -> None:
    assert plan_of("Hello [[pace: 0.1]]") == plan_of("Hello [[pace: 0.1]]")


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[[say: Hello]]", "Hello"),
        ("before [[say: one ]] between [[say:two]] after", "one two"),
        ("[[say: line one\nline two]]", "line one\nline two"),
        ("[[say:  one of two spaces stays]]", " one of two spaces stays"),
        ("[[say: a:b]]", "a:b"),
        ("[[say: [[1], [2]]]]", "[[1], [2]]"),
        ("[[say: ]]", ""),
        ("[[tokens: 3]]", "word1 word2 word3"),
        ("[[say: A ]][[tokens: 1]]", "A word1"),
        ([{"type": "text", "text": "[[say: part one, ]]"}, {"type": "text", "text": "[[say: part two]]"}], None),
    ],
)
def test_text_markers_are_joined(content: object, text: str | None) -> None:
    assert said(plan_of(content)) == (text if text is not None else "part one, part two")


def test_brackets_without_a_name_are_no_markers() -> None:
    assert said(plan_of("[[1, 2], [3, 4]] and if [[ -f x ]]")).endswith("“[[1, 2], [3, 4]] and if [[ -f x ]]”")


def test_only_the_last_user_message_counts() -> None:
    messages = [
        {"role": "system", "content": "[[error: 500]] [[nonsense]]"},
        {"role": "user", "content": "[[say: old]]"},
        {"role": "assistant", "content": "[[say: mine]]"},
        {"role": "user", "content": "[[say: new]]"},
        {"role": "tool", "content": "[[say: tool]]", "tool_call_id": "call_1"},
    ]
    assert said(list(plan(read({"model": "any", "messages": messages})))) == "new"


@pytest.mark.parametrize("text", ["a b", " a  b ", "a\n\nb \n", "", "  ", "one", "ä  🙂 z"])
def test_tokens_joined_are_the_text_again(text: str) -> None:
    assert "".join(tokens(text)) == text


def test_a_plan_without_pace_says_everything_at_once() -> None:
    assert plan_of("[[say: one two]]") == [
        Begin(),
        Say(("one", " two")),
        Finish("stop", Usage(prompt_tokens=3, completion_tokens=2)),
    ]


def test_delay_comes_first_and_pace_between_tokens() -> None:
    events = plan_of("[[delay: 0.2]] [[pace: 0.05]] [[say: one two three]]")
    assert events[:-1] == [
        Wait(0.2),
        Begin(),
        Say(("one",)),
        Wait(0.05),
        Say((" two",)),
        Wait(0.05),
        Say((" three",)),
    ]


@pytest.mark.parametrize(
    ("marker", "event"),
    [
        ("[[cut: 1]]", HangUp()),
        ("[[stall: 1]]", Stall()),
        ("[[garble: 1]]", Garble()),
        ("[[stream_error: 1]]", Fault("The scripted answer failed here.")),
        ("[[stream_error: 1 The GPU burns]]", Fault("The GPU burns")),
    ],
)
def test_a_break_stands_after_so_many_tokens(marker: str, event: Event) -> None:
    assert plan_of(f"{marker} [[say: one two]]")[:4] == [Begin(), Say(("one",)), event, Say((" two",))]


def test_a_break_without_a_number_comes_before_the_first_token() -> None:
    assert plan_of("[[stall]] [[say: one]]")[:2] == [Begin(), Stall()]


def test_a_break_beyond_the_end_comes_before_the_finish() -> None:
    events = plan_of("[[cut: 99]] [[say: one]]")
    assert events[:3] == [Begin(), Say(("one",)), HangUp()]
    assert isinstance(events[3], Finish)


def test_breaks_are_sorted_and_paced() -> None:
    events = plan_of("[[cut: 2]] [[garble: 1]] [[pace: 1]] [[say: a b c]]")
    assert events[:6] == [Begin(), Say(("a",)), Garble(), Wait(1), Say((" b",)), HangUp()]


@pytest.mark.parametrize(
    ("marker", "event"),
    [
        ("[[error: 500]]", Refuse(500)),
        ("[[error: 429 retry_after=1 times=2]]", Refuse(429, retry_after="1", times=2)),
        ("[[error: 429 code=insufficient_quota]]", Refuse(429, code="insufficient_quota")),
        ("[[error: disconnect]]", HangUp()),
        ("[[error: disconnect times=3]]", HangUp(times=3)),
    ],
)
def test_an_error_comes_before_the_answer_begins(marker: str, event: Event) -> None:
    assert plan_of(marker)[:2] == [event, Begin()]


def test_several_errors_keep_their_order() -> None:
    assert plan_of("[[error: 503 times=1]] [[error: disconnect times=1]]")[:2] == [Refuse(503, times=1), HangUp(1)]


def test_usage_is_counted_in_words_unless_told() -> None:
    assert finish(plan_of("[[say: a b c]] and four more words")).usage == Usage(8, 3)
    assert finish(plan_of("[[usage: 12 34]]")).usage == Usage(12, 34)
    assert finish(plan_of("[[usage: none]]")).usage is None


@pytest.mark.parametrize("reason", ["stop", "length", "content_filter"])
def test_the_finish_reason_can_be_told(reason: str) -> None:
    assert finish(plan_of(f"[[finish: {reason}]]")).reason == reason


@pytest.mark.parametrize("limit", [{"max_tokens": 2}, {"max_completion_tokens": 2, "max_tokens": 9}])
def test_the_limit_of_tokens_cuts_the_answer(limit: dict[str, int]) -> None:
    events = plan_of("[[tokens: 3]]", **limit)
    assert said(events) == "word1 word2"
    assert finish(events) == Finish("length", Usage(2, 2))


def test_an_answer_as_long_as_the_limit_stops_by_itself() -> None:
    assert finish(plan_of("[[tokens: 2]]", max_tokens=2)).reason == "stop"


def test_echo_shows_what_the_model_received() -> None:
    body = {
        "temperature": 0.5,
        "model": "any",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "developer", "content": [{"type": "text", "text": "Be kind."}]},
            {"role": "user", "content": "[[echo: request]]"},
        ],
    }
    assert said(list(plan(read(body)))) == orjson.dumps(body, option=orjson.OPT_SORT_KEYS).decode()
    body["messages"][2]["content"] = "[[echo: messages]]"  # type: ignore[index]
    assert orjson.loads(said(list(plan(read(body))))) == body["messages"]
    body["messages"][2]["content"] = "[[echo: system]]"  # type: ignore[index]
    assert said(list(plan(read(body)))) == "Be brief.\nBe kind."


@pytest.mark.parametrize(
    "marker",
    [
        "[[sya: x]]",
        "[[Say: x]]",
        "[[delay 0.2]]",
        "[[delay]]",
        "[[delay: soon]]",
        "[[delay: -1]]",
        "[[delay: 1e3]]",
        "[[delay: nan]]",
        "[[delay: 9999]]",
        "[[pace:]]",
        "[[tokens: 100001]]",
        "[[tokens: 1_000]]",
        "[[tokens: ٣]]",
        "[[tokens: " + "9" * 5_000 + "]]",
        "[[cut: x]]",
        "[[cut: 1 2]]",
        "[[stream_error: message]]",
        "[[error]]",
        "[[error: 200]]",
        "[[error: 600]]",
        "[[error: 500 tmies=2]]",
        "[[error: 500 times=]]",
        "[[error: 500 times]]",
        "[[error: 429 retry_after=soon]]",
        "[[error: disconnect retry_after=1]]",
        "[[usage: 1]]",
        "[[usage: 1 2 3]]",
        "[[usage: a b]]",
        "[[finish: tool_calls]]",
        "[[call]]",
        "[[call: ]]",
        "[[call: f(x) {}]]",
        "[[echo: everything]]",
        "[[say: never closed",
        "[[Some wiki page]]",
    ],
)
def test_a_wrong_marker_is_refused_with_the_list_of_the_right_ones(marker: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        plan_of(marker)
    assert all(form in caught.value.message for form, _ in MARKERS.values())
    assert marker[:70] in caught.value.message
    assert len(caught.value.message) < 1_000


def test_markers_cannot_ask_for_a_gigantic_answer() -> None:
    with pytest.raises(BadRequestError, match="more than"):
        plan_of("[[tokens: 100000]]" * 100)


def test_every_marker_is_documented() -> None:
    assert adlatus.rehearsal.__doc__ is not None
    for name in MARKERS:
        assert f"[[{name}: " in adlatus.rehearsal.__doc__


WEATHER = '{"city": "Köln", "days": [1, 2]}'
USER = {"role": "user", "content": "x"}


def argued(events: list[Event], index: int = 0) -> str:
    return "".join(
        piece for event in events if isinstance(event, Argue) and event.index == index for piece in event.pieces
    )


def calls(events: list[Event]) -> list[Call]:
    return [event for event in events if isinstance(event, Call)]


def test_a_call_goes_out_with_its_arguments_as_they_are() -> None:
    events = plan_of(f"[[call: get_weather {WEATHER}]]")
    assert events[0] == Begin(calls_only=True)
    [call] = calls(events)
    assert (call.index, call.name) == (0, "get_weather")
    assert re.fullmatch("call_[A-Za-z0-9]{24}", call.id)
    assert argued(events) == WEATHER
    assert sum(len(event.pieces) for event in events if isinstance(event, Argue)) > 3
    assert finish(events).reason == "tool_calls"


def test_arguments_are_empty_unless_told_and_may_be_malformed() -> None:
    assert argued(plan_of("[[call: now]]")) == "{}"
    assert argued(plan_of('[[call: now {"city": ]]')) == '{"city":'


def test_text_comes_before_several_calls() -> None:
    events = plan_of("[[call: a 1]] [[say: Let me see.]] [[call: b 2]]")
    assert events[0] == Begin()
    assert said(events) == "Let me see."
    assert [(call.index, call.name) for call in calls(events)] == [(0, "a"), (1, "b")]
    assert (argued(events, 0), argued(events, 1)) == ("1", "2")
    assert [type(event) for event in events[1:]] == [Say, Call, Argue, Call, Argue, Finish]


def test_ids_of_calls_are_the_same_for_the_same_request_and_differ_otherwise() -> None:
    first, second = calls(plan_of("[[call: f]] [[call: f]]"))
    assert [first, second] == calls(plan_of("[[call: f]] [[call: f]]"))
    assert len({first.id, second.id, calls(plan_of("[[call: f]] again"))[0].id}) == 3


def called(*more: dict[str, Any]) -> list[Event]:
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "[[call: f]] [[say: done]]"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "22"},
        *more,
    ]
    return list(plan(read({"model": "any", "messages": messages})))


def test_a_call_is_not_repeated_once_a_tool_has_answered() -> None:
    assert calls(called()) == []
    assert finish(called()).reason == "stop"
    assert calls(called({"role": "assistant", "content": "It is 22."})) == []
    assert len(calls(called({"role": "user", "content": "[[call: g]]"}))) == 1


def test_a_call_can_be_cut_paced_and_limited_as_text_can() -> None:
    events = plan_of('[[call: f {"a":1}]] [[cut: 2]] [[pace: 1]]')
    assert events[:5] == [Begin(calls_only=True), calls(events)[0], Wait(1), Argue(0, ('{"',)), HangUp()]
    limited = plan_of('[[call: f {"a":1}]]', max_tokens=2)
    assert argued(limited) == '{"'
    assert finish(limited).reason == "length"
    assert finish(plan_of("[[call: f]] [[finish: stop]]")).reason == "stop"


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"messages": [USER]}, "model"),
        ({"model": "m", "messages": [USER], "tools": {}}, "tools"),
        ({"model": "m", "messages": [USER], "tools": [1]}, "tools[0]"),
        ({"model": "m", "messages": [USER], "tools": [{"type": "function"}]}, "tools[0].function"),
        (
            {"model": "m", "messages": [USER], "tools": [{"type": "function", "function": {}}]},
            "tools[0].function.name",
        ),
        ({"model": "m", "messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"model": "m", "messages": [{"role": "assistant", "tool_calls": {}}]}, "messages[0].tool_calls"),
        ({"model": "m", "messages": [{"role": "assistant", "tool_calls": [{}]}]}, "messages[0].tool_calls[0].id"),
        ({"model": 1, "messages": [USER]}, "model"),
        ({"model": "m"}, "messages"),
        ({"model": "m", "messages": []}, "messages"),
        ({"model": "m", "messages": {}}, "messages"),
        ({"model": "m", "messages": ["x"]}, "messages[0]"),
        ({"model": "m", "messages": [USER, {"role": "robot", "content": "x"}]}, "messages[1]"),
        ({"model": "m", "messages": [{"role": [], "content": "x"}]}, "messages[0]"),
        ({"model": "m", "messages": [{"role": "user"}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": 1}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [1]}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": []}]}]}, "messages[0].content"),
        ({"model": "m", "messages": [{"role": "user", "content": [{"type": "text"}]}]}, "messages[0].content"),
        ({"model": "m", "messages": [USER], "stream": "yes"}, "stream"),
        ({"model": "m", "messages": [USER], "stream": True, "stream_options": []}, "stream_options"),
        ({"model": "m", "messages": [USER], "stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": "m", "messages": [USER], "stream": True, "stream_options": {"include_usage": 1}}, "include_usage"),
        ({"model": "m", "messages": [USER], "max_tokens": True}, "max_tokens"),
        ({"model": "m", "messages": [USER], "max_tokens": 0}, "max_completion_tokens"),
        ({"model": "m", "messages": [USER], "n": 2}, "n"),
    ],
)
def test_a_wrong_request_is_refused_with_the_culprit(body: dict[str, Any], param: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        read(body)
    assert caught.value.param == param


@pytest.mark.parametrize(
    "raw", [b"", b"{", b"[]", b"null", b"\xff", b'{"a": "\\ud800"}', b'{"a":' * 500 + b"1" + b"}" * 500, b"[" * 100_000]
)
def test_a_body_that_is_no_json_object_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequestError):
        parse(raw)


def test_an_assistant_message_may_have_no_content() -> None:
    calls: dict[str, Any] = {"role": "assistant", "content": None, "tool_calls": []}
    assert read({"model": "m", "messages": [USER, calls]}).messages[1] == calls
