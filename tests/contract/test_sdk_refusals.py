"""What the official SDK makes of refusals, which are parts of a message: accumulated, they equal what is retrieved."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from openai import AssistantEventHandler, AsyncOpenAI, OpenAI
from openai.types.beta.threads import Message, RefusalContentBlock, Run, TextContentBlock
from openai.types.beta.threads.runs import RunStep

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.contract.answers import FAMILY
from tests.contract.test_sdk_accumulation import AsyncListener, assert_equal_afterwards
from tests.runs.upstream import HEAD, chunk, upstream

TEXT, REFUSAL = "text", "refusal"

Said = list[tuple[str, str]]
"""What the model says: pieces of text and of its refusal."""

ANSWERS: dict[str, tuple[Said, Said]] = {
    "a refusal only": ([(REFUSAL, "I'm sorry, "), (REFUSAL, "Jane.")], [(REFUSAL, "I'm sorry, Jane.")]),
    "in one piece": ([(REFUSAL, f"No {FAMILY}.\n\n")], [(REFUSAL, f"No {FAMILY}.\n\n")]),
    "a text, then a refusal": (
        [(TEXT, "Well, "), (TEXT, "Jane: "), (REFUSAL, "I "), (REFUSAL, "won't.")],
        [(TEXT, "Well, Jane: "), (REFUSAL, "I won't.")],
    ),
    "a refusal, then a text": ([(REFUSAL, "No."), (TEXT, "Well."), (TEXT, " ")], [(REFUSAL, "No."), (TEXT, "Well. ")]),
    "in turns": (
        [(TEXT, "a"), (REFUSAL, "b"), (TEXT, "c"), (REFUSAL, "d"), (TEXT, "e")],
        [(TEXT, "ace"), (REFUSAL, "bd")],
    ),
}


@contextmanager
def refusing(loop: Loop, database_url: str, said: Said, finish_reason: str) -> Iterator[OpenAI]:
    """The SDK at a server whose model answers with these pieces."""
    deltas = [{"content": piece} if kind == TEXT else {"refusal": piece} for kind, piece in said]
    pieces = [chunk(choices=[{"index": 0, "delta": delta, "finish_reason": None}]) for delta in deltas]
    with (
        upstream(HEAD, *pieces, chunk(finish_reason=finish_reason), b"data: [DONE]\n\n") as model,
        serving(loop, Settings(database_url=database_url, model_base_url=model.base_url)) as server,
        OpenAI(base_url=server.base_url, api_key="any", max_retries=0) as sdk,
    ):
        yield sdk


def asking(sdk: OpenAI) -> dict[str, Any]:
    """What a run is created with."""
    thread = sdk.beta.threads.create(messages=[{"role": "user", "content": "Hello?"}])
    return {"thread_id": thread.id, "assistant_id": sdk.beta.assistants.create(model="gpt-4o").id}


def parts(message: Message) -> Said:
    """The parts of a message, by kind."""
    said: Said = []
    for part in message.content:
        assert isinstance(part, TextContentBlock | RefusalContentBlock)
        said.append((part.type, part.text.value if isinstance(part, TextContentBlock) else part.refusal))
    return said


class Listener(AssistantEventHandler):
    """Keeps what the SDK's snapshots were as the message grew and when it was done."""

    def __init__(self) -> None:
        super().__init__()
        self.done_steps: list[RunStep] = []
        self.done: list[Message] = []
        self.accumulated: Said = []

    def on_message_delta(self, delta: Any, snapshot: Message) -> None:
        assert len(delta.content) == 1
        self.accumulated = parts(snapshot)

    def on_message_done(self, message: Message) -> None:
        self.done.append(message)

    def on_run_step_done(self, run_step: RunStep) -> None:
        self.done_steps.append(run_step)


@pytest.mark.parametrize(("finish_reason", "status"), [("stop", "completed"), ("content_filter", "incomplete")])
@pytest.mark.parametrize("case", ANSWERS)
def test_what_a_stream_accumulates_of_a_refusal_is_what_is_retrieved(
    loop: Loop, new_database: Callable[[], str], case: str, finish_reason: str, status: str
) -> None:
    said, content = ANSWERS[case]
    with refusing(loop, new_database(), said, finish_reason) as sdk:
        listener = Listener()
        with sdk.beta.threads.runs.stream(**asking(sdk), event_handler=listener) as stream:
            run, messages = stream.get_final_run(), stream.get_final_messages()
        assert (run.status, [message.status for message in messages]) == (status, [status])
        assert listener.accumulated == parts(messages[0]) == content
        assert listener.done == messages
        assert_equal_afterwards(sdk, run, messages, listener.done_steps)


def test_the_asynchronous_client_accumulates_refusals_too(loop: Loop, new_database: Callable[[], str]) -> None:
    said, content = ANSWERS["a text, then a refusal"]
    with refusing(loop, new_database(), said, "stop") as sdk:
        arguments, listener = asking(sdk), AsyncListener()

        async def work() -> tuple[Run, list[Message]]:
            async with AsyncOpenAI(base_url=str(sdk.base_url), api_key="any", max_retries=0) as client:
                started: Any = client.beta.threads.runs.stream(**arguments, event_handler=listener)
                async with started as stream:
                    return await stream.get_final_run(), await stream.get_final_messages()

        run, messages = asyncio.run(work())
        assert [parts(message) for message in messages] == [content]
        assert_equal_afterwards(sdk, run, messages, listener.done_steps)


def test_a_polled_run_that_is_refused_completes_with_the_refusal(loop: Loop, new_database: Callable[[], str]) -> None:
    said, content = ANSWERS["a refusal only"]
    with refusing(loop, new_database(), said, "stop") as sdk:
        run = sdk.beta.threads.runs.create_and_poll(**asking(sdk))
        assert run.status == "completed"
        [message] = sdk.beta.threads.messages.list(run.thread_id, run_id=run.id).data
        assert parts(message) == content
