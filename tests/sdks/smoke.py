"""Drives every operation of a server with the official SDK for Python, whatever its version from 1.40 on.

A program of its own, which imports nothing but the SDK: `OPENAI_BASE_URL` and `OPENAI_API_KEY` say where the server is,
whose model is the rehearsal model. The last line that it prints is JSON, the SDK's version and the names of the
scenarios that passed; a scenario that fails ends it with a traceback.
"""

import asyncio
import json
import re
import sys
from collections.abc import Callable
from typing import Any

from openai import (
    AssistantEventHandler,
    AsyncOpenAI,
    AuthenticationError,
    BadRequestError,
    NotFoundError,
    OpenAI,
    __version__,
)

VERSION = tuple(int(number) for number in __version__.split("."))
REQUEST_ID = re.compile(r"req_[0-9a-f]{32}")
ANSWER = "Grüezi, \U0001f469\u200d\U0001f4bb! 3 + 4 = 7"
SLOWLY = "[[pace: 0.05]][[tokens: 5000]]"
"""An answer that is long enough to be there whatever is done to it."""
EVENTS_BEFORE_TEXT = [
    "thread.run.created",
    "thread.run.queued",
    "thread.run.in_progress",
    "thread.run.step.created",
    "thread.run.step.in_progress",
    "thread.message.created",
    "thread.message.in_progress",
]
EVENTS_AFTER_TEXT = ["thread.message.completed", "thread.run.step.completed", "thread.run.completed"]


def new_assistant(client: OpenAI) -> str:
    return client.beta.assistants.create(model="gpt-4o", instructions="Answer.").id


def new_thread(client: OpenAI, content: str = f"[[say: {ANSWER}]]") -> str:
    return client.beta.threads.create(messages=[{"role": "user", "content": content}]).id


def texts(messages: Any) -> list[str]:
    return [part.text.value for message in messages for part in message.content]


def assert_retrievable(client: OpenAI, run: Any, messages: Any = ()) -> None:
    """What a stream has made of a run and its messages is what the server has kept."""
    ids = {"thread_id": run.thread_id}
    assert client.beta.threads.runs.retrieve(run.id, **ids).model_dump() == run.model_dump()
    for message in messages:
        assert client.beta.threads.messages.retrieve(message.id, **ids).model_dump() == message.model_dump()


def refusal(kind: type[Exception], request: Callable[[], object]) -> Any:
    """The exception of this kind with which a request is refused."""
    try:
        request()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def models(client: OpenAI) -> None:
    offered = [model.id for model in client.models.list()]
    assert offered
    model = client.models.retrieve(offered[0])
    assert (model.id, model.object) == (offered[0], "model")


def assistants(client: OpenAI) -> None:
    function: Any = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}
    made = client.beta.assistants.create(
        model="gpt-4o", name="Tutor", instructions="Teach.", tools=[function], metadata={"a": "1"}, temperature=0.5
    )
    assert (made.object, made.name, made.temperature, made.metadata) == ("assistant", "Tutor", 0.5, {"a": "1"})
    assert made.tools[0].type == "function"
    assert client.beta.assistants.retrieve(made.id).model_dump() == made.model_dump()
    changed = client.beta.assistants.update(made.id, name="Coach")
    assert changed.model_dump() == made.model_dump() | {"name": "Coach"}
    deleted = client.beta.assistants.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "assistant.deleted")
    refusal(NotFoundError, lambda: client.beta.assistants.retrieve(made.id))


def pages_of_assistants(client: OpenAI) -> None:
    made = [new_assistant(client) for _ in range(5)]
    page = client.beta.assistants.list(order="asc", limit=2)
    assert len(page.data) == 2
    assert page.has_next_page()
    assert [one.id for one in page if one.id in made] == made
    newest = client.beta.assistants.list(limit=2)
    assert [one.id for one in newest.data] == made[:-3:-1]
    assert [one.id for one in newest.get_next_page().data] == made[-3:-5:-1]


def threads(client: OpenAI) -> None:
    made = client.beta.threads.create(metadata={"a": "1"})
    assert (made.object, made.metadata) == ("thread", {"a": "1"})
    assert client.beta.threads.retrieve(made.id).metadata == {"a": "1"}
    assert client.beta.threads.update(made.id, metadata={"b": "2"}).metadata == {"b": "2"}
    assert client.beta.threads.delete(made.id).deleted
    refusal(NotFoundError, lambda: client.beta.threads.retrieve(made.id))


def messages(client: OpenAI) -> None:
    thread_id = client.beta.threads.create().id
    api = client.beta.threads.messages
    made = [api.create(thread_id, role="user", content=f"Question {number}") for number in range(5)]
    assert (made[0].object, made[0].role, texts(made[:1])) == ("thread.message", "user", ["Question 0"])
    assert api.retrieve(made[0].id, thread_id=thread_id).model_dump() == made[0].model_dump()
    assert api.update(made[0].id, thread_id=thread_id, metadata={"b": "2"}).metadata == {"b": "2"}
    listed = list(api.list(thread_id, order="asc", limit=2))
    assert texts(listed) == [f"Question {number}" for number in range(5)]
    deleted = api.delete(made[0].id, thread_id=thread_id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made[0].id, True, "thread.message.deleted")
    assert [one.id for one in api.list(thread_id, before=made[1].id)] == [one.id for one in made[:1:-1]]


def polled_run(client: OpenAI) -> None:
    thread_id, api = new_thread(client), client.beta.threads.runs
    run = api.create_and_poll(thread_id=thread_id, assistant_id=new_assistant(client))
    assert (run.object, run.status, run.instructions) == ("thread.run", "completed", "Answer.")
    assert run.usage
    assert run.usage.total_tokens == run.usage.prompt_tokens + run.usage.completion_tokens > 0
    assert texts(client.beta.threads.messages.list(thread_id, run_id=run.id)) == [ANSWER]
    assert_retrievable(client, run)


def runs(client: OpenAI) -> None:
    thread_id, api = new_thread(client), client.beta.threads.runs
    assistant_id, made = new_assistant(client), []
    for number in range(3):
        run = api.create(thread_id, assistant_id=assistant_id, additional_instructions=f"Turn {number}.")
        assert run.instructions == f"Answer.\nTurn {number}."
        made.append(api.poll(run.id, thread_id=thread_id))
    assert [run.status for run in made] == ["completed"] * 3
    assert [run.id for run in api.list(thread_id, order="asc", limit=2)] == [run.id for run in made]
    changed = api.update(made[0].id, thread_id=thread_id, metadata={"b": "2"})
    assert changed.model_dump() == made[0].model_dump() | {"metadata": {"b": "2"}}


def cancelled_run(client: OpenAI) -> None:
    thread_id, api = new_thread(client, SLOWLY), client.beta.threads.runs
    run = api.create(thread_id, assistant_id=new_assistant(client))
    error = refusal(
        BadRequestError, lambda: client.beta.threads.messages.create(thread_id, role="user", content="More")
    )
    assert error.body["message"] == f"Can't add messages to {thread_id} while a run {run.id} is active."
    assert api.cancel(run.id, thread_id=thread_id).status == "cancelling"
    assert api.poll(run.id, thread_id=thread_id).status == "cancelled"


def failed_run(client: OpenAI) -> None:
    thread_id, api = new_thread(client, "[[error: 400]]"), client.beta.threads.runs
    run = api.create_and_poll(thread_id=thread_id, assistant_id=new_assistant(client))
    assert run.status == "failed"
    assert run.last_error
    assert run.last_error.message


def incomplete_run(client: OpenAI) -> None:
    thread_id = new_thread(client, "[[say: Cut off]][[finish: length]]")
    arguments: Any = {"thread_id": thread_id, "assistant_id": new_assistant(client)}
    with client.beta.threads.runs.stream(**arguments) as stream:
        run, said = stream.get_final_run(), stream.get_final_messages()
    assert run.status == "incomplete"
    assert run.incomplete_details
    assert (texts(said), said[0].status) == (["Cut off"], "incomplete")
    assert_retrievable(client, run, said)


def steps(client: OpenAI) -> None:
    run = client.beta.threads.runs.create_and_poll(thread_id=new_thread(client), assistant_id=new_assistant(client))
    ids: Any = {"thread_id": run.thread_id, "run_id": run.id}
    [step] = client.beta.threads.runs.steps.list(**ids)
    assert (step.object, step.type, step.status) == ("thread.run.step", "message_creation", "completed")
    [message] = client.beta.threads.messages.list(run.thread_id, run_id=run.id)
    assert step.step_details.type == "message_creation"
    assert step.step_details.message_creation.message_id == message.id
    assert client.beta.threads.runs.steps.retrieve(step.id, **ids).model_dump() == step.model_dump()


FUNCTIONS: Any = [
    {"type": "function", "function": {"name": name, "parameters": {"type": "object"}}} for name in ("add", "multiply")
]
CALLING = '[[call: add {"a": 3, "b": 4}]][[call: multiply {"a": 3, "b": 4}]][[say: Wait.]]'
OUTPUTS = {"add": "7", "multiply": "12"}


def new_calling_thread(client: OpenAI) -> Any:
    """What a run is made of that calls two functions at once."""
    assistant = client.beta.assistants.create(model="gpt-4o", tools=FUNCTIONS)
    return {"thread_id": new_thread(client, CALLING), "assistant_id": assistant.id}


def outputs_for(run: Any) -> Any:
    """The outputs that a run waits for."""
    assert run.status == "requires_action"
    calls = run.required_action.submit_tool_outputs.tool_calls
    assert [json.loads(call.function.arguments) for call in calls] == [{"a": 3, "b": 4}] * 2
    return [{"tool_call_id": call.id, "output": OUTPUTS[call.function.name]} for call in calls]


def assert_called(client: OpenAI, run: Any) -> None:
    """The run is completed, after one step with both calls and their outputs."""
    assert_retrievable(client, run)
    assert run.status == "completed"
    steps: Any = client.beta.threads.runs.steps.list(run.id, thread_id=run.thread_id, order="asc").data
    assert [(step.type, step.status) for step in steps] == [
        ("message_creation", "completed"),
        ("tool_calls", "completed"),
        ("message_creation", "completed"),
    ]
    assert {call.function.name: call.function.output for call in steps[1].step_details.tool_calls} == OUTPUTS
    assert run.usage.total_tokens == sum(step.usage.total_tokens for step in steps)


class Caller(AssistantEventHandler):
    """Keeps what the SDK has put together of calls and text."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: dict[str, Any] = {}
        self.text = ""
        self.waiting: Any = None

    def on_event(self, event: Any) -> None:
        if event.event == "thread.run.requires_action":
            self.waiting = event.data

    def on_tool_call_delta(self, delta: Any, snapshot: Any) -> None:  # noqa: ARG002
        self.calls[snapshot.id] = snapshot

    def on_text_delta(self, delta: Any, snapshot: Any) -> None:  # noqa: ARG002
        self.text += delta.value or ""


def streamed_functions(client: OpenAI) -> None:
    caller, answering = Caller(), Caller()
    with client.beta.threads.runs.stream(**new_calling_thread(client), event_handler=caller) as stream:
        stream.until_done()
    outputs = outputs_for(caller.waiting)
    accumulated = [(call.id, call.function.name, call.function.arguments) for call in caller.calls.values()]
    waiting = caller.waiting.required_action.submit_tool_outputs.tool_calls
    assert accumulated == [(call.id, call.function.name, call.function.arguments) for call in waiting]
    assert caller.text == "Wait."
    ids: Any = {"run_id": caller.waiting.id, "thread_id": caller.waiting.thread_id}
    error = refusal(
        BadRequestError,
        lambda: client.beta.threads.runs.submit_tool_outputs(**ids, tool_outputs=outputs[:1]),
    )
    ids_of_calls = [call.id for call in waiting]
    assert error.body["message"] == f"Expected tool outputs for call_ids {ids_of_calls}, got {ids_of_calls[:1]}"
    with client.beta.threads.runs.submit_tool_outputs_stream(
        **ids, tool_outputs=outputs, event_handler=answering
    ) as stream:
        stream.until_done()
        run = stream.get_final_run()
    assert answering.text == "Wait."
    assert_called(client, run)


def polled_functions(client: OpenAI) -> None:
    api = client.beta.threads.runs
    run = api.create_and_poll(**new_calling_thread(client))
    ids: Any = {"run_id": run.id, "thread_id": run.thread_id}
    ended = api.submit_tool_outputs_and_poll(**ids, tool_outputs=outputs_for(run))
    assert_called(client, ended)
    error = refusal(BadRequestError, lambda: api.submit_tool_outputs(**ids, tool_outputs=[]))
    assert error.body["message"] == 'Runs in status "completed" do not accept tool outputs.'


class Listener(AssistantEventHandler):
    """Checks each snapshot of the text against the deltas so far."""

    def __init__(self) -> None:
        super().__init__()
        self.text = ""
        self.ended: list[str] = []

    def on_text_delta(self, delta: Any, snapshot: Any) -> None:
        self.text += delta.value or ""
        assert snapshot.value == self.text

    def on_text_done(self, text: Any) -> None:
        assert text.value == self.text
        self.ended.append("text")

    def on_message_done(self, message: Any) -> None:
        assert texts([message]) == [self.text]
        self.ended.append("message")

    def on_run_step_done(self, run_step: Any) -> None:
        assert run_step.status == "completed"
        self.ended.append("step")

    def on_end(self) -> None:
        self.ended.append("stream")


def event_handler(client: OpenAI) -> None:
    listener = Listener()
    arguments: Any = {"thread_id": new_thread(client), "assistant_id": new_assistant(client)}
    with client.beta.threads.runs.stream(**arguments, event_handler=listener) as stream:
        stream.until_done()
        run, said = stream.get_final_run(), stream.get_final_messages()
    assert run.status == "completed"
    assert texts(said) == [listener.text] == [ANSWER]
    assert listener.ended == ["text", "message", "step", "stream"]
    assert_retrievable(client, run, said)


def text_deltas(client: OpenAI) -> None:
    arguments: Any = {"thread_id": new_thread(client, "[[tokens: 40]]"), "assistant_id": new_assistant(client)}
    with client.beta.threads.runs.stream(**arguments) as stream:
        deltas = list(stream.text_deltas)
    assert "".join(deltas).split() == [f"word{number}" for number in range(1, 41)]
    assert len(deltas) > 1


def events_of_a_run(client: OpenAI) -> None:
    with client.beta.threads.runs.create(new_thread(client), assistant_id=new_assistant(client), stream=True) as stream:
        events: list[Any] = list(stream)
    names = [event.event for event in events]
    deltas = names.count("thread.message.delta")
    assert names == EVENTS_BEFORE_TEXT + ["thread.message.delta"] * deltas + EVENTS_AFTER_TEXT
    said = [event.data.delta.content[0].text.value for event in events if event.event == "thread.message.delta"]
    assert "".join(said) == ANSWER
    assert_retrievable(client, events[-1].data)


def stream_left_early(client: OpenAI) -> None:
    thread_id = new_thread(client, "[[pace: 0.02]][[tokens: 40]]")
    with client.beta.threads.runs.create(thread_id, assistant_id=new_assistant(client), stream=True) as stream:
        run: Any = next(iter(stream)).data
    assert client.beta.threads.runs.poll(run.id, thread_id=thread_id).status == "completed"
    [said] = texts(client.beta.threads.messages.list(thread_id, run_id=run.id))
    assert len(said.split()) == 40


def thread_and_run(client: OpenAI) -> None:
    arguments: Any = {
        "assistant_id": new_assistant(client),
        "thread": {"messages": [{"role": "user", "content": f"[[say: {ANSWER}]]"}]},
    }
    begun = client.beta.threads.create_and_run(**arguments)
    polled = client.beta.threads.create_and_run_poll(**arguments)
    with client.beta.threads.create_and_run(**arguments, stream=True) as events:
        names = [event.event for event in events]
    with client.beta.threads.create_and_run_stream(**arguments) as stream:
        streamed, said = stream.get_final_run(), stream.get_final_messages()
    assert (names[0], names[-1]) == ("thread.created", "thread.run.completed")
    ended = [client.beta.threads.runs.poll(begun.id, thread_id=begun.thread_id), polled, streamed]
    assert [run.status for run in ended] == ["completed"] * 3
    assert texts(said) == [ANSWER]
    assert_retrievable(client, streamed, said)


def files(client: OpenAI) -> None:
    content = "Grüezi".encode()
    made = client.files.create(file=("gr\u00fcezi.txt", content), purpose="vision")
    assert (made.object, made.filename, made.bytes, made.status) == ("file", "gr\u00fcezi.txt", 7, "processed")
    assert client.files.retrieve(made.id).model_dump() == made.model_dump()
    assert [each.id for each in client.files.list(purpose="vision")] == [made.id]
    assert client.files.content(made.id).read() == content
    error = refusal(BadRequestError, lambda: client.files.create(file=("a.txt", content), purpose="none"))  # type: ignore[arg-type]
    assert error.param == "purpose"
    deleted = client.files.delete(made.id)
    assert (deleted.id, deleted.deleted, deleted.object) == (made.id, True, "file")
    refusal(NotFoundError, lambda: client.files.retrieve(made.id))
    assert list(client.files.list()) == []


def uploads(client: OpenAI) -> None:
    arguments: Any = {"purpose": "vision", "filename": "hello.txt", "bytes": 12, "mime_type": "text/plain"}
    made = client.uploads.create(**arguments)
    assert (made.object, made.status, made.expires_at - made.created_at) == ("upload", "pending", 3600)
    last, first = (client.uploads.parts.create(made.id, data=content).id for content in (b"World!", b"Hello "))
    done = client.uploads.complete(made.id, part_ids=[first, last])
    assert done.status == "completed"
    assert done.file
    assert client.files.content(done.file.id).read() == b"Hello World!"
    assert client.files.delete(done.file.id).deleted
    assert client.uploads.cancel(client.uploads.create(**arguments).id).status == "cancelled"
    refusal(BadRequestError, lambda: client.uploads.cancel(made.id))


def stores_of(client: Any) -> Any:
    """Vector stores, which were in beta at first."""
    return client.vector_stores if VERSION >= (1, 66) else client.beta.vector_stores


def vector_stores(client: OpenAI) -> None:
    api = stores_of(client)
    expiry: Any = {"anchor": "last_active_at", "days": 3}
    made = api.create(name="Foods", metadata={"a": "1"}, expires_after=expiry)
    assert (made.object, made.name, made.status, made.metadata) == ("vector_store", "Foods", "completed", {"a": "1"})
    assert made.expires_at == made.last_active_at + 3 * 86_400
    assert api.retrieve(made.id).model_dump() == made.model_dump()
    assert api.update(made.id, name="Drinks").model_dump() == made.model_dump() | {"name": "Drinks"}
    others = [api.create().id for _ in range(3)]
    assert [one.id for one in api.list(order="asc", limit=2)] == [made.id, *others]
    for store_id in (made.id, *others):
        assert api.delete(store_id).deleted
    refusal(NotFoundError, lambda: api.retrieve(made.id))
    assert list(api.list()) == []


def files_of_a_store(client: OpenAI) -> None:
    api, text = stores_of(client), "Filip likes cake."
    store_id = api.create().id
    file = api.files.upload_and_poll(vector_store_id=store_id, file=("foods.txt", text.encode()))
    assert (file.object, file.status, file.usage_bytes) == ("vector_store.file", "completed", len(text) + 1024)
    assert api.files.retrieve(file.id, vector_store_id=store_id).model_dump() == file.model_dump()
    assert file.chunking_strategy.static.max_chunk_size_tokens == 800
    batch = api.file_batches.upload_and_poll(store_id, files=[("1.txt", b"One"), ("2.txt", b"Two")])
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 2, 2)
    ids = {"vector_store_id": store_id}
    of_batch = [one.id for one in api.file_batches.list_files(batch.id, **ids, limit=1)]
    assert [one.id for one in api.files.list(store_id, filter="completed")] == [*of_batch, file.id]
    cancelled = api.file_batches.create(store_id, file_ids=of_batch)
    assert api.file_batches.cancel(cancelled.id, **ids).status in ("completed", "cancelled")
    assert api.file_batches.retrieve(cancelled.id, **ids).file_counts.total == 2
    failed = api.files.create_and_poll(client.files.create(file=("a.csv", b"a"), purpose="assistants").id, **ids)
    assert (failed.status, failed.last_error.code) == ("failed", "unsupported_file")
    assert api.retrieve(store_id).file_counts.total == 4
    assert api.files.delete(file.id, **ids).deleted
    refusal(NotFoundError, lambda: api.files.retrieve(file.id, **ids))


def search(client: OpenAI) -> None:
    """Before 1.66 the SDK has no search, no content and no attributes, but it sends what it is told."""
    api, text = stores_of(client), "Filip likes cake."
    store_id = api.create().id
    file_id = api.files.upload_and_poll(vector_store_id=store_id, file=("foods.txt", text.encode())).id
    wanted: Any = {"type": "eq", "key": "year", "value": 2024}
    if VERSION >= (1, 66):
        changed = api.files.update(file_id, vector_store_id=store_id, attributes={"year": 2024}).attributes
        [found] = [dict(result) for result in api.search(store_id, query="cake", filters=wanted)]
        content = [part.text for part in api.files.content(file_id, vector_store_id=store_id)]
    else:
        path = f"/vector_stores/{store_id}"
        body = {"attributes": {"year": 2024}}
        shown: Any = client.post(f"{path}/files/{file_id}", cast_to=object, body=body)
        results: Any = client.post(f"{path}/search", cast_to=object, body={"query": "cake", "filters": wanted})
        pages: Any = client.get(f"{path}/files/{file_id}/content", cast_to=object)
        changed, [found], content = shown["attributes"], results["data"], [part["text"] for part in pages["data"]]
    assert changed == found["attributes"] == {"year": 2024}
    assert (found["file_id"], found["filename"], content) == (file_id, "foods.txt", [text])
    assert 0 <= found["score"] <= 1


def errors(client: OpenAI) -> None:
    unknown = "thread_" + "0" * 24
    error = refusal(NotFoundError, lambda: client.beta.threads.retrieve(unknown))
    described = {"message": f"No thread found with id '{unknown}'.", "type": "invalid_request_error"}
    assert (error.status_code, error.body) == (404, described | {"param": None, "code": None})
    assert REQUEST_ID.fullmatch(error.request_id)
    error = refusal(BadRequestError, lambda: client.beta.assistants.create(model="m", extra_body={"foo": 1}))
    assert "Unknown parameter: 'foo'." in error.message
    assert (error.status_code, error.param, error.code) == (400, "foo", "unknown_parameter")
    with OpenAI(api_key="sk-nobody", max_retries=0) as nobody:
        error = refusal(AuthenticationError, nobody.beta.assistants.list)
    assert (error.status_code, error.code, error.type) == (401, "invalid_api_key", "invalid_request_error")


def request_ids(client: OpenAI) -> None:
    response = client.beta.assistants.with_raw_response.create(model="gpt-4o")
    assert response.status_code == 200
    assert REQUEST_ID.fullmatch(response.headers["x-request-id"])
    assert response.headers["openai-version"] == "2020-10-01"
    assistant = response.parse()
    assert assistant.object == "assistant"
    if VERSION >= (1, 109):  # 1.40 has them on errors only
        assert assistant._request_id == response.headers["x-request-id"]


def asynchronous(client: OpenAI) -> None:
    arguments: Any = {"thread_id": new_thread(client), "assistant_id": new_assistant(client)}

    async def run_it() -> tuple[Any, Any, list[Any]]:
        async with AsyncOpenAI(max_retries=0) as same:
            async with same.beta.threads.runs.stream(**arguments) as stream:
                deltas = [delta async for delta in stream.text_deltas]
                run, said = await stream.get_final_run(), await stream.get_final_messages()
            assert [message.id async for message in same.beta.threads.messages.list(run.thread_id, limit=1)][1:]
            return run, said, deltas

    run, said, deltas = asyncio.run(run_it())
    assert texts(said) == ["".join(deltas)] == [ANSWER]
    assert_retrievable(client, run, said)


SCENARIOS: tuple[Callable[[OpenAI], None], ...] = (
    models,
    assistants,
    pages_of_assistants,
    threads,
    messages,
    polled_run,
    runs,
    cancelled_run,
    failed_run,
    incomplete_run,
    steps,
    streamed_functions,
    polled_functions,
    event_handler,
    text_deltas,
    events_of_a_run,
    stream_left_early,
    thread_and_run,
    files,
    uploads,
    vector_stores,
    files_of_a_store,
    search,
    errors,
    request_ids,
    asynchronous,
)


def main() -> None:
    """Drive all scenarios, one after the other."""
    passed = []
    with OpenAI(max_retries=0) as client:  # a request that is sent twice would hide a fault
        for scenario in SCENARIOS:
            scenario(client)
            passed.append(scenario.__name__)
    sys.stdout.write(json.dumps({"sdk": __version__, "passed": passed}) + "\n")


if __name__ == "__main__":
    main()
