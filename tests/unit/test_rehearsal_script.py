"""Rehearsal scripts without a server: what a file may say, which exchange fits a request, what is answered."""

from pathlib import Path
from typing import Any

import pytest

from adlatus.errors import StartupError
from adlatus.rehearsal.chat import BadRequestError, ChatRequest, read
from adlatus.rehearsal.matching import Playback
from adlatus.rehearsal.plan import Argue, Begin, Call, Event, Finish, HangUp, Refuse, Say, Usage, Wait
from adlatus.rehearsal.script import MOST_BYTES, load, parse

WEATHER_CALL = {"id": "call_1", "type": "function", "function": {"name": "get_weather", "arguments": "{}"}}
TIME_CALL = {"id": "call_2", "type": "function", "function": {"name": "get_time", "arguments": "{}"}}


def playback(text: str) -> Playback:
    return Playback(parse(text.encode(), "script.yaml"))


def request(user: str = "Hello", *more: dict[str, Any], system: str | None = None, **body: Any) -> ChatRequest:
    messages = [{"role": "system", "content": system}] if system else []
    messages += [{"role": "user", "content": user}, *more]
    return read({"model": "gpt-4o", "messages": messages, **body})


def tools_answered(*results: str, calls: tuple[dict[str, Any], ...] = (WEATHER_CALL, TIME_CALL)) -> ChatRequest:
    """A request at whose end these calls are answered."""
    told = [
        {"role": "tool", "tool_call_id": call["id"], "content": result}
        for call, result in zip(calls, results, strict=False)
    ]
    return request("Hello", {"role": "assistant", "content": None, "tool_calls": list(calls)}, *told)


def said(plan: tuple[Event, ...]) -> str:
    return "".join(token for event in plan if isinstance(event, Say) for token in event.tokens)


def fits(expect: str, chat: ChatRequest) -> bool:
    try:
        playback(f"exchanges:\n- expect: {expect}\n  answer: {{text: yes it fits}}").answer(chat)
    except BadRequestError:
        return False
    return True


# --- Which requests an expectation fits


@pytest.mark.parametrize(
    ("expect", "fitting"),
    [
        ("{}", True),
        ("{user: 'What is 3 + 4?'}", True),
        ('{user: "  What is 3 + 4? "}', True),
        ("{user: 'what is 3 + 4?'}", False),
        ("{user: 'What is 3'}", False),
        ("{user: {equals: 'What is 3 + 4?'}}", True),
        ("{user: {contains: 3 + 4}}", True),
        ("{user: {contains: 3 + 5}}", False),
        (r"{user: {matches: '\d \+ \d'}}", True),
        (r"{user: {matches: '^\d'}}", False),
        ("{user: [{contains: '3'}, {contains: '4'}]}", True),
        ("{user: [{contains: '3'}, {contains: '5'}]}", False),
        ("{system: {contains: tutor}}", True),
        ("{system: {contains: lawyer}}", False),
        ("{model: gpt-4o}", True),
        ("{model: gpt-4}", False),
        ("{tools: [get_weather]}", True),
        ("{tools: [get_weather, get_time]}", False),
        ("{user: {contains: '3'}, model: gpt-4}", False),
        ("{tool_results: {}}", False),
    ],
)
def test_everything_that_is_expected_has_to_hold(expect: str, fitting: bool) -> None:
    tools = [{"type": "function", "function": {"name": "get_weather"}}]
    assert fits(expect, request("What is 3 + 4?\n", system="You are a tutor.", tools=tools)) is fitting


@pytest.mark.parametrize(
    ("expect", "fitting"),
    [
        ("{}", False),
        ("{user: Hello}", False),
        ("{tool_results: {}}", True),
        ("{user: Hello, tool_results: {}}", True),
        ("{tool_results: {get_weather: 22 degrees}}", True),
        ("{tool_results: {get_weather: {contains: '22'}, get_time: {matches: '^1.:00$'}}}", True),
        ("{tool_results: {get_weather: {contains: '23'}}}", False),
        ("{tool_results: {get_time: {contains: '22'}}}", False),
        ("{tool_results: {get_news: {contains: '22'}}}", False),
    ],
)
def test_tool_results_are_found_by_the_name_of_the_function(expect: str, fitting: bool) -> None:
    assert fits(expect, tools_answered("22 degrees", "12:00")) is fitting


def test_several_results_of_one_function_may_share_the_conditions() -> None:
    twice = tools_answered("Paris 22", "London 12", calls=(WEATHER_CALL, WEATHER_CALL | {"id": "call_2"}))
    assert fits("{tool_results: {get_weather: [{contains: Paris}, {contains: London}]}}", twice)


def test_only_the_results_at_the_end_count() -> None:
    earlier = tools_answered("22 degrees", calls=(WEATHER_CALL,)).messages
    later: list[dict[str, Any]] = [
        {"role": "assistant", "content": None, "tool_calls": [TIME_CALL]},
        {"role": "tool", "tool_call_id": "call_2", "content": "12:00"},
    ]
    chat = request("Hello", *earlier[1:], *later)
    assert fits("{tool_results: {get_time: '12:00'}}", chat)
    assert not fits("{tool_results: {get_weather: 22 degrees}}", chat)
    assert fits("{user: Hello}", request("Hello", *earlier[1:], *later, {"role": "user", "content": "Hello"}))


# --- Which exchange, and which of its answers


def test_the_first_exchange_that_fits_is_used() -> None:
    played = playback("""
exchanges:
  - {expect: {user: {contains: weather}}, answer: {text: Sunny}}
  - {answer: {text: Pardon}}
  - {expect: {user: Hello}, answer: {text: never}}
""")
    assert [played.answer(request(user))[0] for user in ("Hello", "The weather?")] == [1, 0]
    assert [one["used"] for one in played.exchanges()] == [1, 1, 0]


def test_answers_follow_one_another_and_the_last_repeats() -> None:
    played = playback("exchanges: [{answers: [{text: one}, {text: two}]}]")
    assert [said(played.answer(request())[1]) for _ in range(4)] == ["one", "two", "two", "two"]


def test_an_exchange_may_be_used_so_many_times() -> None:
    played = playback("exchanges: [{answer: {text: once}, times: 1}, {answer: {text: then}}]")
    assert [said(played.answer(request())[1]) for _ in range(3)] == ["once", "then", "then"]


def test_an_error_with_times_comes_before_its_answer_and_is_no_use_of_it() -> None:
    played = playback("""
exchanges:
  - times: 2
    answers:
      - {text: one, error: {status: 503, times: 2}}
      - {text: two, error: {status: 429, times: 1}}
""")
    plans = [played.answer(request())[1] for _ in range(5)]
    assert [[event.status for event in plan if isinstance(event, Refuse)] for plan in plans] == [
        [503],
        [503],
        [],
        [429],
        [],
    ]
    assert [said(plans[2]), said(plans[4])] == ["one", "two"]
    with pytest.raises(BadRequestError, match="used 2 times"):
        played.answer(request())


def test_after_a_restart_nothing_has_been_used() -> None:
    played = playback("exchanges: [{answer: {text: a, error: {status: 500, times: 1}}, times: 1}]")
    for _ in range(2):
        assert isinstance(played.answer(request())[1][0], Refuse)
        assert said(played.answer(request())[1]) == "a"
        played.restart()
        assert played.exchanges()[0]["used"] == 0


# --- What is answered


def test_an_answer_is_played_with_all_it_says() -> None:
    played = playback("""
exchanges:
  - answer:
      text: One moment.
      tool_calls:
        - {name: get_weather, arguments: {city: Köln, days: [1, 2]}}
        - {name: get_time}
        - {name: get_news, arguments: '{"broken'}
      delay_s: 0.2
      pace_s: 0.01
      usage: {prompt_tokens: 12, completion_tokens: 3}
""")
    plan = played.answer(request())[1]
    assert plan[:6] == (Wait(0.2), Begin(), Say(("One",)), Wait(0.01), Say((" moment.",)), Wait(0.01))
    assert [event.name for event in plan if isinstance(event, Call)] == ["get_weather", "get_time", "get_news"]
    argued = ["", "", ""]
    for event in plan:
        if isinstance(event, Argue):
            argued[event.index] += "".join(event.pieces)
    assert argued == ['{"city":"Köln","days":[1,2]}', "{}", '{"broken']
    assert plan[-1] == Finish("tool_calls", Usage(12, 3))


def test_an_answer_can_be_refused_cut_and_ended_in_other_ways() -> None:
    played = playback("""
exchanges:
  - {expect: {user: a}, answer: {error: {status: 429, message: Slow down, code: quota, retry_after_s: 1.5}}}
  - {expect: {user: b}, answer: {text: one two, cut_after: 1}}
  - {expect: {user: c}, answer: {text: one, finish_reason: content_filter}}
  - {expect: {user: d}, answer: {text: one two three}}
""")
    assert played.answer(request("a"))[1][0] == Refuse(429, "quota", "1.5", message="Slow down")
    assert played.answer(request("b"))[1][:3] == (Begin(), Say(("one",)), HangUp())
    assert played.answer(request("c"))[1][-1] == Finish("content_filter", Usage(1, 1))
    assert played.answer(request("d", max_completion_tokens=2))[1][-2:] == (
        Say(("one", " two")),
        Finish("length", Usage(1, 2)),
    )


def test_markers_are_plain_text_for_a_script() -> None:
    assert said(playback("exchanges: [{answer: {text: '[[say: a]]'}}]").answer(request("[[error: 500]]"))[1]) == (
        "[[say: a]]"
    )


# --- What does not fit


def complaint(script: str, chat: ChatRequest) -> str:
    with pytest.raises(BadRequestError) as refused:
        playback(script).answer(chat)
    assert (refused.value.param, refused.value.code) == ("messages", "no_exchange_fits")
    return refused.value.message


def test_a_request_that_nothing_fits_is_told_what_the_nearest_exchange_wants() -> None:
    script = """
exchanges:
  - {expect: {user: Hello, model: gpt-3.5}, answer: {text: a}}
  - {expect: {user: {contains: Sunday}, system: {matches: ^You are}, model: gpt-4o}, answer: {text: b}}
"""
    message = complaint(script, request("What is 3 + 5?", system="You are a tutor."))
    assert "“What is 3 + 5?”" in message
    assert "Nearest is exchange 1: user must contain “Sunday”." in message
    assert "script.yaml" in message


@pytest.mark.parametrize(
    ("expect", "reason"),
    [
        ("{user: Bye}", "user must equal “Bye”"),
        ("{system: {matches: ^A}}", "system must match /^A/"),
        ("{model: gpt-3.5}", "model must be “gpt-3.5”, not “gpt-4o”"),
        ("{tools: [f]}", "tools must have “f”"),
        ("{tool_results: {f: a}}", "the request must end with tool results"),
    ],
)
def test_each_expectation_has_a_reason(expect: str, reason: str) -> None:
    assert reason in complaint(f"exchanges: [{{expect: {expect}, answer: {{text: a}}}}]", request())


def test_unexpected_and_wrong_tool_results_have_a_reason() -> None:
    chat = tools_answered("22", "12:00")
    assert "tool_results must be expected" in complaint("exchanges: [{answer: {text: a}}]", chat)
    script = "exchanges: [{expect: {tool_results: {get_weather: '23'}}, answer: {text: a}}]"
    assert "tool_results of “get_weather” must equal “23”" in complaint(script, chat)


def test_of_equally_near_exchanges_one_that_was_not_used_is_told() -> None:
    played = playback("exchanges: [{expect: {user: a}, answer: {text: a}}, {expect: {user: b}, answer: {text: b}}]")
    played.answer(request("a"))
    with pytest.raises(BadRequestError, match="Nearest is exchange 1: user must equal “b”"):
        played.answer(request("c"))


def test_a_complaint_is_short_enough_to_survive_as_the_error_of_a_run() -> None:
    long = "x" * 10_000
    script = f"exchanges: [{{expect: {{user: {long}, system: {long}, model: {long}}}, answer: {{text: a}}}}]"
    assert len(complaint(script, request("y" * 10_000))) < 500


# --- What a file may say

ONE = "exchanges:\n- "


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping"),
        ("exchanges: []", "exchanges needs at least one entry"),
        ("exchange: []", "exchange is not known here"),
        ("exchanges: {a: 1}", "exchanges must be a list"),
        (ONE + "[1]", "exchange 0: must be a mapping"),
        (ONE + "expect: {}", "exchange 0: give either answer or answers"),
        (ONE + "answer: {text: a}\n  answers: [{text: b}]", "exchange 0: give either answer or answers"),
        (ONE + "answers: []", "exchange 0: answers needs at least one entry"),
        (ONE + "answer: {text: a}\n- answer: {txt: a}", "exchange 1: answer.txt is not known here"),
        (ONE + "expect:\n  answer: {text: a}", "exchange 0: 'expect' has no value"),
        (ONE + "answer: {text: 7}", "exchange 0: answer.text must be a text: put it in quotes"),
        (ONE + "answer: {}", 'exchange 0: answer give text, tool_calls, or an error without times'),
        (ONE + "answer: {error: {status: 500, times: 1}}", "exchange 0: answer give text"),
        (ONE + "answer: {error: {status: 200}}", "exchange 0: answer.error.status should be greater than"),
        (ONE + "answer: {text: a}\n  times: 0", "exchange 0: times should be greater"),
        (ONE + "answer: {text: a, delay_s: -1}", "exchange 0: answer.delay_s should be greater"),
        (ONE + "answer: {text: a, pace_s: .inf}", "exchange 0: answer.pace_s should be a finite number"),
        (ONE + "answer: {text: a, cut_after: true}", "exchange 0: answer.cut_after should be a valid integer"),
        (ONE + "answer: {text: a, finish_reason: end}", "exchange 0: answer.finish_reason should be 'stop'"),
        (ONE + "answer: {tool_calls: {name: f}}", "exchange 0: answer.tool_calls must be a list"),
        (ONE + "answer: {tool_calls: [{name: f g}]}", "exchange 0: answer.tool_calls.0.name must be a name"),
        (ONE + "answer: {tool_calls: [{name: f, arguments: [1]}]}", "answer.tool_calls.0.arguments must be a text"),
        (ONE + "answer: {tool_calls: [{name: f, arguments: {1: 2}}]}", "answer.tool_calls.0.arguments cannot be"),
        (ONE + "expect: {user: 7}\n  answer: {text: a}", "exchange 0: expect.user must be a text in quotes"),
        (ONE + "expect: {user: []}\n  answer: {text: a}", "exchange 0: expect.user must be a text in quotes"),
        (ONE + "expect: {user: {contain: a}}\n  answer: {text: a}", "expect.user.0.contain is not known here"),
        (ONE + "expect: {user: {}}\n  answer: {text: a}", "expect.user.0 give exactly one of equals"),
        (ONE + "expect: {user: {matches: (}}\n  answer: {text: a}", "expect.user.0.matches should be a valid regular"),
        (ONE + "expect: {tools: f}\n  answer: {text: a}", "exchange 0: expect.tools must be a list"),
        (ONE + 'answer: {text: "\\ud800"}', "surrogates not allowed"),
        ("a: [", "is not YAML that can be read"),
        ("a: 2024-13-45", "is not YAML that can be read: month must be in 1..12"),
        ("a: !!python/object:os.system x", "is not YAML that can be read: could not determine a constructor"),
        ("[" * 5_000, "is not YAML that can be read"),
    ],
)  # fmt: skip
def test_a_script_that_cannot_be_played_says_where_and_what_to_do(text: str, problem: str) -> None:
    with pytest.raises(StartupError) as refused:
        parse(text.encode(), "script.yaml")
    assert "script.yaml" in str(refused.value)
    assert problem in str(refused.value)


def test_only_the_first_problems_are_told() -> None:
    with pytest.raises(StartupError) as refused:
        parse(f"exchanges: [{'{answer: {txt: a}},' * 9}]".encode(), "script.yaml")
    assert len(str(refused.value).splitlines()) == 7
    assert "more" in str(refused.value)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match=r"none\.yaml: No such file.*ADLATUS_REHEARSAL_SCRIPT"):
        load(tmp_path / "none.yaml")
    with pytest.raises(StartupError, match="Is a directory"):
        load(tmp_path)
    large = tmp_path / "large.yaml"
    large.write_bytes(b"#" * (MOST_BYTES + 1))
    with pytest.raises(StartupError, match=rf"more than {MOST_BYTES} bytes"):
        load(large)
