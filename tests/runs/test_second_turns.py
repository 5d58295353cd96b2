"""How runs end in their second turn, after a call has had its output: that call stays as it is."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.functions import ENDED, OUTPUTS, QUEUED_AGAIN, calculator
from tests.runs.transcripts import (
    DONE,
    Event,
    asked,
    check_ended,
    client_of,
    eventually,
    requests,
    sent,
    speaking,
    transcript,
    unique,
)

Json = dict[str, Any]

SCRIPT = """
exchanges:
  - answer: {tool_calls: [{name: add}], usage: {prompt_tokens: 10, completion_tokens: 5}}
  - expect: {user: [contains: stall], tool_results: {}}
    answer: {text: One two, pace_s: 60}
  - expect: {user: [contains: break], tool_results: {}}
    answer: {text: One two, cut_after: 1}
  - expect: {user: [contains: refuse], tool_results: {}}
    answer: {error: {status: 400, message: No.}}
  - expect: {user: [contains: length], tool_results: {}}
    answer: {text: One, finish_reason: length}
  - expect: {user: [contains: filter], tool_results: {}}
    answer: {text: One, finish_reason: content_filter}
  - expect: {user: [contains: complete], tool_results: {}}
    answer: {text: One}
"""
INCOMPLETE = "thread.message.incomplete incomplete"
COMPLETED_STEP = "thread.run.step.completed completed"


def _broken(status: str) -> list[str]:
    return [*speaking("One"), INCOMPLETE, f"thread.run.step.{status} {status}", f"thread.run.{status} {status}"]


ENDINGS = {
    "refuse": ["thread.run.failed failed"],
    "break": _broken("failed"),
    "stall until it expires": _broken("expired"),
    "length": [*speaking("One"), INCOMPLETE, COMPLETED_STEP, "thread.run.incomplete incomplete"],
    "filter": [*speaking("One"), INCOMPLETE, COMPLETED_STEP, "thread.run.incomplete incomplete"],
    "complete": [*speaking("One"), *ENDED[:-1]],
}


@pytest.fixture(scope="module")
def scripted(
    loop: Loop, new_database: Callable[[], str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[httpx.Client]:
    """A client of a server whose model plays the script above, and whose runs expire soon."""
    script: Path = tmp_path_factory.mktemp("script") / "second_turns.yaml"
    script.write_text(SCRIPT, "utf-8")
    settings = Settings(database_url=new_database(), rehearsal_script=script, run_expires_after_s=3)
    with serving(loop, settings) as server, client_of(server) as client:
        yield client


def check_first_turn(step: Json) -> None:
    """The call of the first turn has its output and its usage."""
    [call] = step["step_details"]["tool_calls"]
    assert (step["status"], call["function"]["output"], step["usage"]["total_tokens"]) == ("completed", "7", 15)


@pytest.mark.parametrize("how", ENDINGS)
def test_a_run_ends_in_its_second_turn(scripted: httpx.Client, how: str) -> None:
    talk = calculator(scripted, how)
    first = talk.stream()
    run = first[-2].payload
    second = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert transcript(second) == [*QUEUED_AGAIN, *ENDINGS[how], DONE]
    ended, _, [called, *written] = check_ended(talk, first + second)
    check_first_turn(called)
    assert ended["usage"]["total_tokens"] == 15 + sum(step["usage"]["total_tokens"] for step in written)
    talk.say("The thread is free again.")


def test_a_run_is_cancelled_in_its_second_turn(scripted: httpx.Client) -> None:
    talk = calculator(scripted, "stall")
    first = talk.stream()
    run = first[-2].payload
    second: list[Event] = []
    with talk.submitting_to(run["id"], asked(OUTPUTS, run)) as stream:
        for event in stream:
            second.append(event)
            if event.name == "thread.message.delta":
                sent(talk.cancel(run["id"]))
    told = _broken("cancelled")
    assert transcript(second) == [*QUEUED_AGAIN, *told[:-3], "thread.run.cancelling cancelling", *told[-3:], DONE]
    _, [message], [called, written] = check_ended(talk, first + second)
    check_first_turn(called)
    assert (written["status"], message["incomplete_details"]) == ("cancelled", {"reason": "run_cancelled"})


# --- Budgets, which are over the whole run


def test_the_second_turn_gets_what_the_first_has_left(server: Server, http: httpx.Client) -> None:
    prompt = unique("[[call: add]] [[usage: 40 200]] [[say: Well.]]")
    talk = calculator(http, prompt)
    run = talk.waiting(max_completion_tokens=300, max_prompt_tokens=500)
    ended = talk.ended(sent(talk.submit(run["id"], asked(OUTPUTS, run)))["id"])
    assert [request["max_completion_tokens"] for request in requests(server, prompt)] == [300, 100]
    assert ended["status"] == "completed"
    assert ended["usage"]["completion_tokens"] == 400  # an endpoint that does not keep to it is not blamed on anyone


@pytest.mark.parametrize(
    ("usage", "budget", "value"), [("10 300", "max_completion_tokens", 300), ("256 5", "max_prompt_tokens", 256)]
)
def test_a_run_that_has_nothing_left_is_incomplete_and_does_not_ask_again(
    server: Server, http: httpx.Client, usage: str, budget: str, value: int
) -> None:
    prompt = unique(f"[[call: add]] [[usage: {usage}]]")
    talk = calculator(http, prompt)
    first = talk.stream(**{budget: value})
    run = first[-2].payload
    second = talk.submitting(run["id"], asked(OUTPUTS, run))
    assert transcript(second) == [*QUEUED_AGAIN, "thread.run.incomplete incomplete", DONE]
    ended, [], [called] = check_ended(talk, first + second)
    assert ended["incomplete_details"] == {"reason": budget}
    assert called["usage"] == ended["usage"]
    assert len(requests(server, prompt)) == 1


# --- Threads that are deleted


def test_a_thread_that_is_deleted_while_its_run_waits_takes_the_run_along(http: httpx.Client) -> None:
    talk = calculator(http, "[[call: add]]")
    run = talk.waiting()
    sent(http.delete(talk.path))
    refused = talk.submit(run["id"], asked(OUTPUTS, run))
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == f"No run found with id '{run['id']}'."


def test_a_thread_that_is_deleted_while_calls_are_written_ends_the_stream_with_an_error(http: httpx.Client) -> None:
    talk = calculator(http, '[[call: add {"a": 3}]] [[stall: 3]]')
    events = []
    with talk.streaming() as stream:
        for event in stream:
            events.append(event)
            if event.name == "thread.run.step.delta" and len(events) < 8:
                http.delete(talk.path)
    assert [event.name for event in events[-2:]] == ["error", "done"]
    run_id = events[0].payload["id"]
    assert events[-2].payload == {
        "error": {
            "message": f"No run found with id '{run_id}'.",
            "type": "invalid_request_error",
            "param": None,
            "code": None,
        }
    }
    assert eventually(lambda: http.get(f"{talk.path}/runs/{run_id}").status_code == 404)
