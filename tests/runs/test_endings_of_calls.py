"""How runs end while calls are being written: what of them is known is kept, without outputs, and nobody answers it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.runs.functions import ENDED, calculator
from tests.runs.transcripts import (
    DONE,
    OPENING,
    Conversation,
    Event,
    calling,
    check_ended,
    client_of,
    sent,
    speaking,
    transcript,
)

Json = dict[str, Any]
CALLS = ['add {"a": 3}', 'multiply {"b":']
CALLED = '[[call: add {"a": 3}]] [[call: multiply {"b":]] [[usage: 10 5]]'
LAST = {"type": "function", "function": {"arguments": "", "name": "multiply", "output": None}}


@dataclass(frozen=True)
class Broken:
    """How an answer breaks off, and the statuses of what was open then."""

    marker: str
    run: str
    calls_step: str
    details: str | None = None
    cancelling: bool = False


ENDINGS = {
    "failed": Broken("[[cut: 99]]", "failed", "failed"),
    "cancelled": Broken("[[stall: 99]]", "cancelled", "cancelled", cancelling=True),
    "expired": Broken("[[stall: 99]]", "expired", "expired"),
    "length": Broken("[[finish: length]]", "incomplete", "cancelled", "max_completion_tokens"),
    "content_filter": Broken("[[finish: content_filter]]", "incomplete", "cancelled", "content_filter"),
}
each_ending = pytest.mark.parametrize("ending", ENDINGS.values(), ids=ENDINGS)


@pytest.fixture(scope="module")
def hasty(loop: Loop, new_database: Callable[[], str]) -> Iterator[httpx.Client]:
    """A client of a server whose runs expire soon."""
    with (
        serving(loop, Settings(database_url=new_database(), run_expires_after_s=2)) as server,
        client_of(server) as client,
    ):
        yield client


def broken_off(talk: Conversation, events: Iterator[Event], ending: Broken, until: str) -> list[Event]:
    """The events to the end; a run that is to be cancelled is, once the transcript's last line is `until`."""
    heard: list[Event] = []
    cancelled = not ending.cancelling
    for event in events:
        heard.append(event)
        if not cancelled and transcript(heard)[-1] == until:
            sent(talk.cancel(talk.active()))
            cancelled = True
    return heard


def check_calls(step: Json, ending: Broken) -> None:
    """The calls are kept as far as they were told, without outputs."""
    calls = [call["function"] for call in step["step_details"]["tool_calls"]]
    assert [f"{call['name']} {call['arguments']}" for call in calls] == CALLS
    assert [call["output"] for call in calls] == [None, None]
    assert step["status"] == ending.calls_step
    assert step[f"{ending.calls_step}_at"]
    assert [step[f"{other}_at"] for other in ("completed", "failed", "cancelled", "expired")].count(None) == 3


@each_ending
@pytest.mark.parametrize("says", ["", "Let me see."], ids=["calls", "text and calls"])
def test_calls_that_were_being_written_end_with_their_run(
    http: httpx.Client, hasty: httpx.Client, ending: Broken, says: str
) -> None:
    text = f"[[say: {says}]] " if says else ""
    talk = calculator(hasty if ending.run == "expired" else http, f"{text}{CALLED} {ending.marker}")
    with talk.streaming() as stream:
        events = broken_off(talk, stream, ending, calling(*CALLS)[-1])
    assert transcript(events) == [
        *OPENING,
        *([*speaking(says), *ENDED[:2]] if says else []),
        *calling(*CALLS),
        *(["thread.run.cancelling cancelling"] if ending.cancelling else []),
        f"thread.run.step.{ending.calls_step} {ending.calls_step}",
        f"thread.run.{ending.run} {ending.run}",
        DONE,
    ]
    run, messages, steps = check_ended(talk, events)
    check_calls(steps[-1], ending)
    assert run["incomplete_details"] == ({"reason": ending.details} if ending.details else None)
    assert steps[-1]["last_error"] == run["last_error"]
    assert (run["last_error"] is None) == (ending.run != "failed")
    assert [message["status"] for message in messages] == ["completed"] * bool(says)
    assert [step["status"] for step in steps[:-1]] == ["completed"] * bool(says)
    totals = [step["usage"]["total_tokens"] for step in steps]
    assert run["usage"]["total_tokens"] == sum(totals) == totals[-1] > 0
