"""What the official SDK makes of a run: its accumulated objects equal those retrieved afterwards."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from openai import AssistantEventHandler, AsyncAssistantEventHandler, AsyncOpenAI, OpenAI
from openai.types.beta import Assistant, AssistantStreamEvent
from openai.types.beta.threads import Message, MessageDelta, Run, Text, TextDelta
from openai.types.beta.threads.runs import RunStep

from tests.contract.answers import ANSWERS, ENDING, OPENING, each_answer, spoken


class Listener(AssistantEventHandler):
    """Counts the callbacks, and keeps what the SDK's snapshots were when a message was done."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.names: list[str] = []
        self.done_step: RunStep | None = None
        self.text = ""
        self.accumulated = ""

    def on_event(self, event: AssistantStreamEvent) -> None:
        self.names.append(event.event)

    def on_end(self) -> None:
        self.calls["end"] += 1

    def on_exception(self, exception: Exception) -> None:
        self.calls[type(exception).__name__] += 1

    def on_run_step_created(self, run_step: RunStep) -> None:
        self.calls["run_step_created"] += 1
        assert self.current_run
        assert self.current_run.status == "in_progress"
        assert self.current_run_step_snapshot == run_step

    def on_run_step_done(self, run_step: RunStep) -> None:
        self.calls["run_step_done"] += 1
        self.done_step = run_step

    def on_message_created(self, message: Message) -> None:
        self.calls["message_created"] += 1
        assert message.content == []

    def on_message_delta(self, delta: MessageDelta, snapshot: Message) -> None:
        self.calls["message_delta"] += 1
        assert [part.index for part in delta.content or []] == [0]
        assert self.current_message_snapshot == snapshot
        [part] = snapshot.content
        assert part.type == "text"
        self.accumulated = part.text.value
        assert self.accumulated == self.text
        assert part.text.annotations == []

    def on_message_done(self, message: Message) -> None:
        self.calls["message_done"] += 1
        assert self.current_message_snapshot == message

    def on_text_created(self, text: Text) -> None:
        self.calls["text_created"] += 1
        assert text.annotations == []

    def on_text_delta(self, delta: TextDelta, snapshot: Text) -> None:
        self.calls["text_delta"] += 1
        self.text += delta.value or ""
        assert snapshot.value == self.text

    def on_text_done(self, text: Text) -> None:
        self.calls["text_done"] += 1
        assert text.value == self.text


def assert_equal_afterwards(sdk: OpenAI, run: Run, messages: list[Message], steps: list[RunStep]) -> None:
    """The accumulated objects equal those of REST, but for the expiry of a step, which only streams keep."""
    retrieved = sdk.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id)
    assert run.model_dump() == retrieved.model_dump()
    listed = sdk.beta.threads.messages.list(run.thread_id, run_id=run.id, order="asc").data
    assert [message.model_dump() for message in messages] == [message.model_dump() for message in listed]
    for message in messages:
        again = sdk.beta.threads.messages.retrieve(message.id, thread_id=run.thread_id)
        assert again.model_dump() == message.model_dump()
    kept = sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc").data
    assert [step.model_dump() | {"expires_at": None} for step in steps] == [step.model_dump() for step in kept]
    assert [step.model_dump()["expires_at"] for step in steps] == [run.created_at + 600] * len(steps)


def assert_said(messages: list[Message], content: str) -> None:
    [message] = messages
    [part] = message.content
    assert part.type == "text"
    assert part.text.value == spoken(content)
    assert part.text.annotations == []
    assert message.status == "completed"


@each_answer
def test_what_a_stream_accumulates_equals_what_is_retrieved_afterwards(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str], content: str
) -> None:
    listener = Listener()
    arguments: Any = {"thread_id": thread_with(content), "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments, event_handler=listener) as stream:
        run, messages = stream.get_final_run(), stream.get_final_messages()
    assert run.status == "completed"
    assert listener.done_step
    assert_said(messages, content)
    assert_equal_afterwards(sdk, run, messages, [listener.done_step])


@each_answer
def test_the_event_handler_is_called_for_everything_once(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str], content: str
) -> None:
    listener = Listener()
    arguments: Any = {"thread_id": thread_with(content), "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments, event_handler=listener) as stream:
        stream.until_done()
    deltas = listener.names.count("thread.message.delta")
    assert listener.names == OPENING + ["thread.message.delta"] * deltas + ENDING
    once = {"run_step_created": 1, "run_step_done": 1, "message_created": 1, "message_done": 1, "end": 1}
    texts = {"message_delta": deltas, "text_delta": deltas, "text_created": 1, "text_done": 1} if deltas else {}
    assert listener.calls == once | texts
    assert listener.text == listener.accumulated == spoken(content)


def test_the_sdk_keeps_a_steps_first_snapshot(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str]
) -> None:
    """As with the original: the SDK does not take the completed step into its list, only into its callback."""
    arguments: Any = {"thread_id": thread_with("Hello"), "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments) as stream:
        [step] = stream.get_final_run_steps()
        run = stream.get_final_run()
    [kept] = sdk.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id).data
    ended = {"status": "in_progress", "completed_at": None, "usage": None, "expires_at": run.created_at + 600}
    assert step.model_dump() == kept.model_dump() | ended


def test_the_text_deltas_of_a_stream_are_the_text(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str]
) -> None:
    arguments: Any = {"thread_id": thread_with("[[tokens: 40]]"), "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments) as stream:
        assert "".join(stream.text_deltas).split() == [f"word{number}" for number in range(1, 41)]


@each_answer
def test_a_thread_and_its_streamed_run_accumulate_to_what_is_retrieved(
    sdk: OpenAI, assistant: Assistant, content: str
) -> None:
    listener = Listener()
    arguments: Any = {"assistant_id": assistant.id, "thread": {"messages": [{"role": "user", "content": content}]}}
    with sdk.beta.threads.create_and_run_stream(**arguments, event_handler=listener) as stream:
        run, messages = stream.get_final_run(), stream.get_final_messages()
    assert listener.names[:2] == ["thread.created", "thread.run.created"]
    assert listener.done_step
    assert_said(messages, content)
    assert_equal_afterwards(sdk, run, messages, [listener.done_step])


def test_a_plain_stream_of_events_can_be_iterated(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str]
) -> None:
    thread_id = thread_with("[[say: Hello]]")
    with sdk.beta.threads.runs.create(thread_id, assistant_id=assistant.id, stream=True) as stream:
        names = [event.event for event in stream]
    assert names == [*OPENING, "thread.message.delta", *ENDING]


def test_a_stream_of_an_incomplete_run_accumulates_the_partial_text(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str]
) -> None:
    listener = Listener()
    content = "[[say: Cut off]][[finish: length]]"
    arguments: Any = {"thread_id": thread_with(content), "assistant_id": assistant.id}
    with sdk.beta.threads.runs.stream(**arguments, event_handler=listener) as stream:
        run, messages = stream.get_final_run(), stream.get_final_messages()
    assert run.status == "incomplete"
    assert listener.text == listener.accumulated == "Cut off"
    assert listener.done_step
    assert_equal_afterwards(sdk, run, messages, [listener.done_step])


@each_answer
def test_a_polled_run_ends_with_its_message(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str], content: str
) -> None:
    run = sdk.beta.threads.runs.create_and_poll(thread_id=thread_with(content), assistant_id=assistant.id)
    assert run.status == "completed"
    assert_said(sdk.beta.threads.messages.list(run.thread_id, run_id=run.id).data, content)


def test_a_thread_and_its_polled_run_end_with_their_message(sdk: OpenAI, assistant: Assistant) -> None:
    run = sdk.beta.threads.create_and_run_poll(
        assistant_id=assistant.id, thread={"messages": [{"role": "user", "content": ANSWERS["emoji"]}]}
    )
    assert run.status == "completed"
    assert_said(sdk.beta.threads.messages.list(run.thread_id, run_id=run.id).data, ANSWERS["emoji"])


# --- The asynchronous client


@asynccontextmanager
async def asynchronous(sdk: OpenAI) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=str(sdk.base_url), api_key=sdk.api_key, max_retries=0) as client:
        yield client


def in_the_async_sdk(sdk: OpenAI, work: Callable[[AsyncOpenAI], Awaitable[Any]]) -> Any:
    """The result of `work` with an asynchronous client of the same project."""

    async def session() -> Any:
        async with asynchronous(sdk) as client:
            return await work(client)

    return asyncio.run(session())


class AsyncListener(AsyncAssistantEventHandler):
    def __init__(self) -> None:
        super().__init__()
        self.done_steps: list[RunStep] = []

    async def on_run_step_done(self, run_step: RunStep) -> None:
        self.done_steps.append(run_step)


@each_answer
def test_the_asynchronous_client_accumulates_what_is_retrieved_afterwards(
    sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str], content: str
) -> None:
    thread_id, listener = thread_with(content), AsyncListener()

    async def work(client: AsyncOpenAI) -> tuple[Run, list[Message]]:
        started: Any = client.beta.threads.runs.stream(
            thread_id=thread_id, assistant_id=assistant.id, event_handler=listener
        )
        async with started as stream:
            return await stream.get_final_run(), await stream.get_final_messages()

    run, messages = in_the_async_sdk(sdk, work)
    assert_said(messages, content)
    assert_equal_afterwards(sdk, run, messages, listener.done_steps)


def test_the_asynchronous_client_streams_a_thread_and_its_run(sdk: OpenAI, assistant: Assistant) -> None:
    async def work(client: AsyncOpenAI) -> tuple[list[str], Run]:
        started: Any = client.beta.threads.create_and_run_stream(assistant_id=assistant.id)
        async with started as stream:
            names = [event.event async for event in stream]
            return names, await stream.get_final_run()

    names, run = in_the_async_sdk(sdk, work)
    assert (names[0], names[-1]) == ("thread.created", "thread.run.completed")
    assert run.model_dump() == sdk.beta.threads.runs.retrieve(run.id, thread_id=run.thread_id).model_dump()


def test_the_asynchronous_client_polls(sdk: OpenAI, assistant: Assistant, thread_with: Callable[[str], str]) -> None:
    thread_id = thread_with(ANSWERS["short"])

    async def work(client: AsyncOpenAI) -> list[Run]:
        return [
            await client.beta.threads.runs.create_and_poll(thread_id=thread_id, assistant_id=assistant.id),
            await client.beta.threads.create_and_run_poll(assistant_id=assistant.id),
        ]

    assert [run.status for run in in_the_async_sdk(sdk, work)] == ["completed", "completed"]
