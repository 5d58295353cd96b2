"""Functions that the client carries out: each scenario as the transcript of its streams and what REST shows."""

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.functions import ENDED, OUTPUTS, QUEUED_AGAIN, TOOLS, WAITS, calculator, calls_of, function, message_of
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Conversation,
    asked,
    calling,
    check_ended,
    client_of,
    converse,
    eventually,
    sent,
    speaking,
    transcript,
    usage,
)
from tests.runs.upstream import HEAD, upstream

Json = dict[str, Any]


def heard(talk: Conversation) -> list[Json]:
    """The messages that the model was sent for its last answer, which is `[[echo: messages]]`."""
    messages: list[Json] = json.loads(talk.answer())
    return messages


# --- The two streams


def test_a_call_pauses_the_run_and_its_output_completes_it(http: httpx.Client) -> None:
    talk = calculator(http, '[[call: add {"a": 3}]] [[usage: 10 5]]')
    first = talk.stream()
    assert transcript(first) == [*OPENING, *calling('add {"a": 3}'), *WAITS]
    run = first[-2].payload
    assert run == talk.run(run["id"])
    assert (run["status"], run["usage"], run["completed_at"]) == ("requires_action", None, None)
    [call] = calls_of(run)
    assert call == {"id": call["id"], "type": "function", "function": {"name": "add", "arguments": '{"a": 3}'}}
    [step] = talk.steps(run["id"])
    assert (step["status"], step["usage"], step["completed_at"]) == ("in_progress", None, None)
    assert step["step_details"]["tool_calls"] == [call | {"function": call["function"] | {"output": None}}]
    assert step["expires_at"] == run["expires_at"] == run["created_at"] + 600

    second = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert transcript(second)[:3] == QUEUED_AGAIN
    assert transcript(second)[-4:] == ENDED
    completed, queued, again = (event.payload for event in second[:3])
    assert completed["step_details"]["tool_calls"] == [call | {"function": call["function"] | {"output": "7"}}]
    assert (completed["usage"]["prompt_tokens"], completed["usage"]["completion_tokens"]) == (10, 5)
    assert (queued["required_action"], queued["started_at"]) == (None, run["started_at"])
    assert (again["started_at"] >= run["started_at"], again["expires_at"]) == (True, run["expires_at"])
    ended, _, [called, wrote] = check_ended(talk, first + second)
    assert [called["type"], wrote["type"]] == ["tool_calls", "message_creation"]
    assert ended["usage"]["total_tokens"] == called["usage"]["total_tokens"] + wrote["usage"]["total_tokens"] == 30


def test_event_numbers_only_grow_over_both_streams(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]]")
    first = talk.stream()
    run = first[-2].payload
    numbers = [event.number for event in first + talk.submitting(run["id"], asked(OUTPUTS, run))]
    assert numbers == sorted(set(numbers))


def test_deltas_begin_each_call_once_and_then_bring_arguments_only(http: httpx.Client) -> None:
    talk = calculator(http, '[[call: add {"a": 3}]] [[call: multiply {}]]')
    events = talk.stream()
    assert transcript(events) == [*OPENING, *calling('add {"a": 3}', "multiply {}"), *WAITS]
    deltas = [event.payload for event in events if event.name == "thread.run.step.delta"]
    assert {tuple(delta) for delta in deltas} == {("id", "object", "delta")}
    parts = [part for delta in deltas for part in delta["delta"]["step_details"]["tool_calls"]]
    begun = [part for part in parts if "id" in part]
    ids = [call["id"] for call in calls_of(events[-2].payload)]
    assert begun == [
        {
            "index": index,
            "id": ids[index],
            "type": "function",
            "function": {"name": name, "arguments": "", "output": None},
        }
        for index, name in enumerate(("add", "multiply"))
    ]
    rest = [part for part in parts if "id" not in part]
    assert {tuple(part) for part in rest} == {("index", "type", "function")}
    assert {tuple(part["function"]) for part in rest} == {("arguments",)}
    assert len(rest) > 2  # as they arrive


def test_what_is_said_before_the_calls_is_a_message_of_its_own(http: httpx.Client) -> None:
    talk = calculator(http, "[[say: Let me see.]] [[call: add]] [[usage: 10 5]]")
    first = talk.stream()
    assert transcript(first) == [
        *OPENING,
        *speaking("Let me see."),
        *ENDED[:2],
        *calling("add {}"),
        *WAITS,
    ]
    run = first[-2].payload
    second = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert transcript(second) == [*QUEUED_AGAIN, *speaking("Let me see."), *ENDED]
    ended, messages, steps = check_ended(talk, first + second)
    assert [step["type"] for step in steps] == ["message_creation", "tool_calls", "message_creation"]
    assert [step["usage"]["total_tokens"] for step in steps] == [0, 15, 15]
    assert ended["usage"]["total_tokens"] == 30
    assert len(messages) == 2


def test_the_model_is_told_what_it_called_and_what_came_of_it(http: httpx.Client) -> None:
    talk = calculator(http, '[[say: Let me see.]] [[call: add {"a": 3}]] [[call: multiply]]')
    run = talk.waiting()
    talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])
    talk.say("[[echo: messages]]")
    assert talk.ended(talk.start()["id"])["status"] == "completed"
    ids = [call["id"] for call in calls_of(run)]
    functions = [("add", '{"a": 3}'), ("multiply", "{}")]
    assert heard(talk)[1:4] == [
        {
            "role": "assistant",
            "content": "Let me see.",
            "tool_calls": [
                {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
                for call_id, (name, arguments) in zip(ids, functions, strict=True)
            ],
        },
        {"role": "tool", "tool_call_id": ids[0], "content": "7"},
        {"role": "tool", "tool_call_id": ids[1], "content": "12"},
    ]


def test_a_run_may_call_in_several_rounds(loop: Loop, new_database: Callable[[], str], tmp_path: Any) -> None:
    script = tmp_path / "rounds.yaml"
    script.write_text(
        """
exchanges:
  - expect: {user: Begin}
    answer: {tool_calls: [{name: add, arguments: {}}]}
  - expect: {tool_results: {add: "7"}}
    answers:
      - tool_calls: [{name: multiply, arguments: {}}, {name: add, arguments: {again: true}}]
      - text: Seven and twelve.
""",
        "utf-8",
    )
    settings = Settings(database_url=new_database(), rehearsal_script=script)
    with serving(loop, settings) as server, client_of(server) as http:
        talk = calculator(http, "Begin")
        run = talk.waiting()
        again = talk.submitting(run["id"], asked(OUTPUTS, run))
        assert transcript(again) == [*QUEUED_AGAIN, *calling("multiply {}", 'add {"again":true}'), *WAITS]
        run = talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, again[-2].payload)))["id"])
        steps = talk.steps(run["id"])
        assert [(step["type"], len(step["step_details"].get("tool_calls", ()))) for step in steps] == [
            ("tool_calls", 1),
            ("tool_calls", 2),
            ("message_creation", 0),
        ]
        assert talk.answer() == "Seven and twelve."
        assert run["usage"]["total_tokens"] == sum(step["usage"]["total_tokens"] for step in steps)
        ids = [call["id"] for step in steps[:2] for call in step["step_details"]["tool_calls"]]
        assert len(set(ids)) == 3


# --- What the model is offered


def offered(http: httpx.Client, *contents: str, **body: Any) -> Json:
    """The chat request of a run, by its model's own report."""
    talk = converse(http, *contents, "[[echo: request]]", tools=TOOLS)
    request: Json = json.loads(talk.completed(**body))
    return request


def test_functions_are_offered_and_strict_ones_as_strict(http: httpx.Client) -> None:
    strict = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    tools = [
        function("add", description="Adds.", parameters=strict, strict=True),
        {"type": "function", "function": {"name": "multiply"}},
    ]
    request = offered(http, tools=tools)
    assert request["tools"] == [
        {
            "type": "function",
            "function": {"name": "add", "description": "Adds.", "parameters": strict, "strict": True},
        },
        {"type": "function", "function": {"name": "multiply", "parameters": {"type": "object", "properties": {}}}},
    ]
    assert "tool_choice" not in request
    assert "parallel_tool_calls" not in request


def test_the_tools_of_a_run_take_the_place_of_its_assistants(http: httpx.Client) -> None:
    assert [tool["function"]["name"] for tool in offered(http, tools=[function("divide")])["tools"]] == ["divide"]
    assert "tools" not in offered(http, tools=[])


def test_no_function_is_offered_where_none_may_be_called(http: httpx.Client) -> None:
    request = offered(http, tool_choice="none")
    assert "tools" not in request
    assert "tool_choice" not in request


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "multiply"}}])
def test_a_call_is_forced_in_the_first_turn_only(http: httpx.Client, choice: Any) -> None:
    assert offered(http, tool_choice=choice)["tool_choice"] == choice
    talk = calculator(http, "[[call: add]] [[echo: request]]")
    run = talk.waiting(tool_choice=choice)
    assert run["tool_choice"] == choice
    talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])
    second = json.loads(talk.answer())
    assert "tool_choice" not in second
    assert [tool["function"]["name"] for tool in second["tools"]] == ["add", "multiply"]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            {"tool_choice": "required", "tools": []},
            "Invalid value for 'tool_choice': 'required' is only allowed when 'tools' are specified.",
        ),
        (
            {"tool_choice": {"type": "function", "function": {"name": "divide"}}},
            "Invalid value for 'tool_choice': 'divide' is not among the tools of this run.",
        ),
        (
            {"tool_choice": {"type": "file_search"}},
            "Invalid value for 'tool_choice': 'file_search' is not among the tools of this run.",
        ),
    ],
)
def test_a_choice_that_cannot_be_kept_is_refused(http: httpx.Client, body: Json, message: str) -> None:
    talk = calculator(http, "Hello?")
    refused = http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id, **body})
    assert refused.status_code == 400
    assert refused.json()["error"] == {
        "message": message,
        "type": "invalid_request_error",
        "param": "tool_choice",
        "code": "invalid_value",
    }


def test_one_call_at_a_time_where_the_client_wants_that(http: httpx.Client) -> None:
    """Also where the model overlooks it."""
    assert offered(http, parallel_tool_calls=False)["parallel_tool_calls"] is False
    talk = calculator(http, '[[call: add {"a": 3}]] [[call: multiply {"b": 4}]]')
    events = talk.stream(parallel_tool_calls=False)
    assert transcript(events) == [*OPENING, *calling('add {"a": 3}'), *WAITS]
    run = events[-2].payload
    assert [call["function"]["name"] for call in calls_of(run)] == ["add"]
    assert talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])["status"] == "completed"


def test_a_call_of_a_function_that_was_not_offered_calls_nothing(http: httpx.Client) -> None:
    talk = converse(http, "[[say: Well.]] [[call: add]]")
    events = talk.stream()
    assert transcript(events) == [*OPENING, *speaking("Well."), *ENDED]


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", "nonsense", '{"a": "\\ud83d"}', "null"])
def test_malformed_arguments_are_handed_on_as_they_are(http: httpx.Client, arguments: str) -> None:
    talk = calculator(http, f"[[call: add {arguments}]]")
    run = talk.waiting()
    [call] = calls_of(run)
    assert call["function"]["arguments"] == arguments
    assert talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])["status"] == "completed"
    [step, _] = talk.steps(run["id"])
    assert step["step_details"]["tool_calls"][0]["function"]["arguments"] == arguments


def test_a_model_that_always_says_the_same_id_still_knows_its_calls_apart(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    call = {"index": 0, "id": "call_1", "type": "function", "function": {"name": "add", "arguments": "{}"}}
    turn = {"choices": [{"index": 0, "delta": {"content": "Well.", "tool_calls": [call]}, "finish_reason": "stop"}]}
    with (
        upstream(HEAD, b"data: " + json.dumps(turn).encode() + b"\n\ndata: [DONE]\n\n") as model,
        serving(loop, Settings(database_url=new_database(), model_base_url=model.base_url)) as server,
        client_of(server) as http,
    ):
        talk = calculator(http, "Add.")
        ids: list[str] = []
        for _ in range(2):  # each run calls, gets its output, calls again, and is cancelled
            first = talk.stream()[-2].payload
            second = talk.submitting(first["id"], asked(OUTPUTS, first))[-2].payload
            ids += [calls_of(run)[0]["id"] for run in (first, second)]
            sent(talk.cancel(first["id"]))
        assert ids[0] == "call_1"
        assert len(set(ids)) == 4


# --- Outputs that do not fit


def test_every_call_wants_exactly_one_output(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]] [[call: multiply]]")
    run = talk.waiting()
    first, second = asked(OUTPUTS, run)
    ids: list[str] = [first["tool_call_id"], second["tool_call_id"]]
    stranger = {"tool_call_id": "call_unknown", "output": "7"}
    for outputs in ([], [first], [first, second, second], [first, first], [first, stranger], [first, second, stranger]):
        got = [output["tool_call_id"] for output in outputs]
        assert message_of(talk.submit(run["id"], outputs)) == f"Expected tool outputs for call_ids {ids}, got {got}"
        assert talk.run(run["id"]) == run
    assert talk.ended(sent(talk.submit(run["id"], [second, first]))["id"])["status"] == "completed"
    calls = talk.steps(run["id"])[0]["step_details"]["tool_calls"]
    assert [call["function"]["output"] for call in calls] == ["7", "12"]


def test_an_output_needs_the_id_of_its_call(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]]")
    run = talk.waiting()
    refused = talk.submit(run["id"], [{"output": "7"}])
    assert refused.status_code == 400
    assert refused.json()["error"] == {
        "message": "Missing required parameter: 'tool_outputs[0].tool_call_id'.",
        "type": "invalid_request_error",
        "param": "tool_outputs[0].tool_call_id",
        "code": "missing_required_parameter",
    }


def test_an_output_that_is_left_out_is_empty(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]]")
    run = talk.waiting()
    [call] = calls_of(run)
    talk.ended(sent(talk.submit(run["id"], [{"tool_call_id": call["id"]}]))["id"])
    assert talk.steps(run["id"])[0]["step_details"]["tool_calls"][0]["function"]["output"] == ""


def test_outputs_are_refused_once_they_are_there(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]] [[delay: 0.3]]")
    run = talk.waiting()
    outputs = asked(OUTPUTS, run)
    sent(talk.submit(run["id"], outputs))
    status = talk.run(run["id"])["status"]
    assert status in ("queued", "in_progress")
    said = message_of(talk.submit(run["id"], outputs))
    assert said in [f'Runs in status "{status}" do not accept tool outputs.' for status in ("queued", "in_progress")]
    talk.ended(run["id"])
    assert message_of(talk.submit(run["id"], outputs)) == 'Runs in status "completed" do not accept tool outputs.'


def test_outputs_for_a_run_that_is_not_there_or_elsewhere_are_not_found(http: httpx.Client) -> None:
    talk, other = calculator(http, "[[call: add]]"), calculator(http, "Hello?")
    run = talk.waiting()
    for conversation, run_id in ((talk, f"run_{'0' * 24}"), (other, run["id"])):
        refused = conversation.submit(run_id, asked(OUTPUTS, run))
        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == f"No run found with id '{run_id}'."


def test_a_waiting_run_locks_its_thread(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]]")
    run = talk.waiting()
    refused = http.post(f"{talk.path}/messages", json={"role": "user", "content": "More"})
    assert message_of(refused) == f"Can't add messages to {talk.thread_id} while a run {run['id']} is active."
    refused = http.post(f"{talk.path}/runs", json={"assistant_id": talk.assistant_id})
    assert message_of(refused) == f"Thread {talk.thread_id} already has an active run {run['id']}."


# --- Processes


def test_outputs_may_be_submitted_to_any_process(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database())
    with (
        serving(loop, settings, executor=False) as front,
        serving(loop, settings) as back,
        client_of(front) as to_front,
        client_of(back) as to_back,
    ):
        talk = calculator(to_back, "[[call: add]] [[say: Seven.]]")
        there = Conversation(to_front, talk.assistant_id, talk.thread_id)
        first = there.stream()
        assert transcript(first) == [*OPENING, *speaking("Seven."), *ENDED[:2], *calling("add {}"), *WAITS]
        second = there.submitting(first[-2].payload["id"], asked(OUTPUTS, first[-2].payload))
        assert transcript(second) == [*QUEUED_AGAIN, *speaking("Seven."), *ENDED]
        check_ended(talk, first + second)
        there.say("[[call: multiply]] [[say: Twelve.]]")
        run = talk.waiting()
        assert transcript(there.submitting(run["id"], asked(OUTPUTS, run)))[-1] == DONE


def test_a_waiting_run_outlives_its_process(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database())
    with serving(loop, settings) as server, client_of(server) as http:
        talk = calculator(http, "[[call: add]]")
        run = talk.waiting()
    with serving(loop, settings) as server, client_of(server) as http:
        talk = Conversation(http, talk.assistant_id, talk.thread_id)
        assert talk.run(run["id"]) == run
        assert transcript(talk.submitting(run["id"], asked(OUTPUTS, run)))[-1] == DONE
        assert talk.run(run["id"])["status"] == "completed"


# --- Other ends than completion


def test_a_cancel_while_two_calls_wait_ends_both(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]] [[call: multiply]] [[usage: 10 5]]")
    run = talk.waiting()
    answer = sent(talk.cancel(run["id"]))
    assert (answer["status"], answer["required_action"]) == ("cancelling", None)
    ended = talk.run(run["id"])
    assert (ended["status"], ended["required_action"], ended["expires_at"]) == ("cancelled", None, None)
    [step] = talk.steps(run["id"])
    assert (step["status"], len(step["step_details"]["tool_calls"])) == ("cancelled", 2)
    assert step["cancelled_at"] == ended["cancelled_at"]
    assert ended["usage"] == step["usage"] == usage(10, 5)
    assert message_of(talk.submit(run["id"], asked(OUTPUTS, run))) == (
        'Runs in status "cancelled" do not accept tool outputs.'
    )
    assert message_of(talk.cancel(run["id"])) == "Cannot cancel run with status 'cancelled'."
    talk.say("[[say: We go on.]]")
    assert talk.completed() == "We go on."


def test_a_run_expires_while_it_waits(loop: Loop, new_database: Callable[[], str]) -> None:
    settings = Settings(database_url=new_database(), run_expires_after_s=2)
    with serving(loop, settings, executor=True) as server, client_of(server) as http:
        talk = calculator(http, "[[call: add]] [[call: multiply]]")
        run = talk.waiting()
        assert run["expires_at"] == run["created_at"] + 2
        ended = talk.ended(run["id"])
        assert (ended["status"], ended["required_action"], ended["expires_at"]) == ("expired", None, None)
        [step] = talk.steps(run["id"])
        assert step["status"] == "expired"
        assert step["expired_at"] >= run["expires_at"]
        assert ended["usage"] == step["usage"]
        assert message_of(talk.submit(run["id"], asked(OUTPUTS, run))) == (
            'Runs in status "expired" do not accept tool outputs.'
        )
        assert talk.say("Next")


def test_outputs_that_come_too_late_expire_the_run_that_nobody_has_looked_at(
    loop: Loop, new_database: Callable[[], str]
) -> None:
    """Of submit and expiry, whichever comes first decides; between the moment and the sweep a submit is too late."""
    for _ in range(3):
        settings = Settings(database_url=new_database(), run_expires_after_s=2)
        with serving(loop, settings) as server, client_of(server) as http:
            talk = calculator(http, "[[call: add]]")
            run = talk.waiting()
            outputs = asked(OUTPUTS, run)
            too_late = eventually(lambda: _unless_too_soon(talk.submit(run["id"], outputs * 2)))  # noqa: B023
            assert too_late == 'Runs in status "expired" do not accept tool outputs.'
            assert talk.run(run["id"])["status"] == "expired"
            assert [step["status"] for step in talk.steps(run["id"])] == ["expired"]


def _unless_too_soon(answer: httpx.Response) -> str:
    """Why outputs that would not fit anyway are refused, once it is for another reason than that."""
    return "" if "Expected tool outputs" in message_of(answer) else message_of(answer)
