"""What the official SDK makes of runs that call functions, and of every other end than completion.

Its accumulators raise on whatever they do not expect (semantics, 2.3), so that no exception is a result too.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest
from openai import AssistantEventHandler, OpenAI
from openai.types.beta import Assistant, AssistantStreamEvent
from openai.types.beta.threads import Message, Run, Text, TextDelta
from openai.types.beta.threads.runs import RunStep, ToolCall, ToolCallDelta

from adlatus.settings import Settings
from tests.conftest import Loop, Server, serving
from tests.runs.functions import OUTPUTS, TOOLS
from tests.runs.stored import calling, claim_and_die

Json = dict[str, Any]


class Listener(AssistantEventHandler):
    """Keeps what the SDK says of calls, of steps and of messages; `act` is called for every event."""

    def __init__(self, act: Callable[[AssistantStreamEvent], None] | None = None) -> None:
        super().__init__()
        self.names: list[str] = []
        self.created: list[ToolCall] = []
        self.arguments: dict[str, str] = {}
        self.done: Counter[str] = Counter()
        self.steps: list[RunStep] = []
        self.text = ""
        self._act = act

    def on_event(self, event: AssistantStreamEvent) -> None:
        self.names.append(event.event)
        if self._act:
            self._act(event)

    def on_tool_call_created(self, tool_call: ToolCall) -> None:
        self.created.append(tool_call)

    def on_tool_call_delta(self, delta: ToolCallDelta, snapshot: ToolCall) -> None:
        assert delta.type == snapshot.type == "function"
        assert delta.function
        self.arguments[snapshot.id] = self.arguments.get(snapshot.id, "") + (delta.function.arguments or "")
        assert snapshot.function.arguments == self.arguments[snapshot.id]

    def on_tool_call_done(self, tool_call: ToolCall) -> None:
        assert tool_call.type == "function"
        self.done[tool_call.id] += 1

    def on_run_step_done(self, run_step: RunStep) -> None:
        self.steps.append(run_step)

    def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        self.text += delta.value or ""
        assert snapshot.value.endswith(delta.value or "")


@pytest.fixture
def caller(sdk: OpenAI) -> Assistant:
    """An assistant that may call functions."""
    tools: Any = TOOLS
    return sdk.beta.assistants.create(model="gpt-4o", tools=tools)


def accumulated(sdk: OpenAI, assistant: Assistant, thread_id: str, listener: Listener) -> tuple[Run, list[Message]]:
    """The final run and the messages of a new run's stream."""
    arguments: Any = {"thread_id": thread_id, "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments, event_handler=listener) as stream:
        stream.until_done()
        run, messages = stream.get_final_run(), []
        if "thread.message.created" in listener.names:
            messages = stream.get_final_messages()
    return run, messages


def assert_retrieved(sdk: OpenAI, run: Run, messages: list[Message], steps: list[RunStep]) -> None:
    """What is retrieved afterwards is what was accumulated."""
    retrieved = sdk.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
    assert run.model_dump() == retrieved.model_dump()
    listed = sdk.beta.threads.messages.list(run.thread_id, run_id=run.id, order="asc").data
    assert [message.model_dump() for message in messages] == [message.model_dump() for message in listed]
    kept = sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc").data
    assert [step.model_dump() | {"expires_at": None} for step in steps] == [step.model_dump() for step in kept]


# --- Calls


def test_parallel_calls_accumulate_to_what_waits(
    sdk: OpenAI, caller: Assistant, thread_with: Callable[[str], str]
) -> None:
    listener = Listener()
    thread_id = thread_with('[[say: Let me see.]] [[call: add {"a": 3}]] [[call: multiply {"b": 4}]]')
    run, [message] = accumulated(sdk, caller, thread_id, listener)
    assert run.status == "requires_action"
    assert run.required_action
    calls = run.required_action.submit_tool_outputs.tool_calls
    assert [call.id for call in listener.created] == [call.id for call in calls]
    assert list(listener.arguments.values()) == ['{"a": 3}', '{"b": 4}']
    assert [call.function.arguments for call in calls] == ['{"a": 3}', '{"b": 4}']
    assert all(listener.done[call.id] for call in calls)
    assert message.status == "completed"
    assert run.model_dump() == sdk.beta.threads.runs.retrieve(run.id, thread_id=thread_id).model_dump()


def test_the_stream_after_the_outputs_accumulates_too(
    sdk: OpenAI, caller: Assistant, thread_with: Callable[[str], str]
) -> None:
    first, second = Listener(), Listener()
    thread_id = thread_with("[[say: Let me see.]] [[call: add]] [[call: multiply]]")
    run, before = accumulated(sdk, caller, thread_id, first)
    assert run.required_action
    calls = run.required_action.submit_tool_outputs.tool_calls
    outputs: Any = [{"tool_call_id": call.id, "output": OUTPUTS[call.function.name]} for call in calls]
    arguments: Any = {"run_id": run.id, "thread_id": thread_id, "tool_outputs": outputs}
    with sdk.beta.threads.runs.submit_tool_outputs_stream(**arguments, event_handler=second) as stream:
        run, after = stream.get_final_run(), stream.get_final_messages()
    assert run.status == "completed"
    assert second.created == []
    calls_step, *_ = second.steps
    assert calls_step.step_details.type == "tool_calls"
    assert [call.function.output for call in calls_step.step_details.tool_calls if call.type == "function"] == [
        "7",
        "12",
    ]
    assert_retrieved(sdk, run, before + after, first.steps + second.steps)


# --- Endings

TEXT, CALLS = "[[say: One two]]", '[[call: add {"a": 3}]] [[call: multiply {"b":]]'
OPEN = {"text": TEXT, "calls": CALLS, "text and calls": f"{TEXT} {CALLS}"}
OPEN_MESSAGES = {"text": ["incomplete"], "calls": [], "text and calls": ["completed"]}
ENDINGS = {
    "failed": "[[cut: 99]]",
    "incomplete": "[[finish: length]]",
    "filtered": "[[finish: content_filter]]",
    "cancelled": "[[stall: 99]]",
    "expired": "[[stall: 99]]",
}


@pytest.fixture(scope="module")
def hasty(loop: Loop, new_database: Callable[[], str]) -> Iterator[Server]:
    """A server whose runs expire soon."""
    with serving(loop, Settings(database_url=new_database(), run_expires_after_s=2)) as server:
        yield server


@contextmanager
def sdk_of(server: Server) -> Iterator[OpenAI]:
    with OpenAI(base_url=server.base_url, api_key="none", max_retries=0) as client:
        yield client


def cancelling_at(sdk: OpenAI, last: str) -> Callable[[AssistantStreamEvent], None]:
    """Cancels the run of a stream once this has been heard."""
    runs: list[Run] = []

    def act(event: AssistantStreamEvent) -> None:
        if event.event == "thread.run.created":
            runs.append(event.data)
        if event.event in ("thread.message.delta", "thread.run.step.delta") and last in event.model_dump_json():
            sdk.beta.threads.runs.cancel(runs[0].id, thread_id=runs[0].thread_id)

    return act


@pytest.mark.parametrize("how", ENDINGS)
@pytest.mark.parametrize("what", OPEN)
def test_whatever_was_open_when_a_run_ends_accumulates_to_what_is_retrieved(
    sdk: OpenAI, hasty: Server, how: str, what: str
) -> None:
    tools: Any = TOOLS
    with sdk_of(hasty) as other:
        used = other if how == "expired" else sdk
        assistant = used.beta.assistants.create(model="gpt-4o", tools=tools)
        thread_id = used.beta.threads.create(messages=[{"role": "user", "content": f"{OPEN[what]} {ENDINGS[how]}"}]).id
        last = r'"arguments":"\":"' if "calls" in what else " two"
        listener = Listener(cancelling_at(used, last)) if how == "cancelled" else Listener()
        run, messages = accumulated(used, assistant, thread_id, listener)
        assert run.status == ("incomplete" if how == "filtered" else how)
        assert listener.text == ("One two" if "text" in what else "")
        assert list(listener.arguments.values()) == (['{"a": 3}', '{"b":'] if "calls" in what else [])
        assert all(listener.done[call.id] for call in listener.created)
        assert [message.status for message in messages] == OPEN_MESSAGES[what]
        assert_retrieved(used, run, messages, listener.steps)


# --- An executor that dies


LEFT: dict[str, tuple[str | Json, ...]] = {
    "an empty message": ("",),
    "text": ("The wh",),
    "calls": (calling("add", '{"a":'), calling("multiply", '{"b":', index=1)),
    "text and calls": ("The wh", calling("add", '{"a":'), calling("multiply", '{"b":', index=1)),
    "a refusal": ({"refusal": "I won"},),
}


@pytest.mark.parametrize("left", LEFT.values(), ids=LEFT)
def test_what_a_dead_executor_left_is_taken_back_from_the_accumulators(
    loop: Loop, database_url: str, left: tuple[str | Json, ...]
) -> None:
    tools: Any = TOOLS
    settings = Settings(database_url=database_url)
    with ExitStack() as stack:
        front = stack.enter_context(serving(loop, settings, executor=False))
        sdk = stack.enter_context(sdk_of(front))

        def act(event: AssistantStreamEvent) -> None:
            if event.event == "thread.run.queued":
                loop.run(claim_and_die(front.resources.database, *left))
                stack.enter_context(serving(loop, settings))

        listener = Listener(act)
        assistant = sdk.beta.assistants.create(model="gpt-4o", tools=tools)
        prompt = '[[say: The whole answer.]] [[call: add {"a": 3}]]'
        thread_id = sdk.beta.threads.create(messages=[{"role": "user", "content": prompt}]).id
        run, messages = accumulated(sdk, assistant, thread_id, listener)
        assert run.status == "requires_action"
        assert run.required_action
        [call] = run.required_action.submit_tool_outputs.tool_calls
        assert (call.id, call.function.arguments) == (listener.created[-1].id, '{"a": 3}')
        taken_back, closed = [step.status for step in listener.steps].count("cancelled"), listener.steps[-1]
        assert (taken_back, closed.status) == (1, "completed")
        listed = sdk.beta.threads.messages.list(thread_id, run_id=run.id, order="asc").data
        whole = [message for message in messages if message.status == "completed"]
        assert [message.model_dump() for message in whole] == [message.model_dump() for message in listed]
        assert {message.status for message in messages if message not in whole} <= {"incomplete"}
