"""Drives what a server hands on to its models with the official SDK for Python, whatever its version from 1.40 on.

A program of its own, under the rules of `smoke.py`.
"""

import asyncio
import base64
import json
import math
import struct
import sys
import uuid
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from openai import AsyncOpenAI, BadRequestError, NotFoundError, OpenAI, RateLimitError, __version__

ANSWER = "Grüezi, \U0001f469\u200d\U0001f4bb! 3 + 4 = 7"
ARGUMENTS = ['{"a": 3, "b": 4}', '{"a": 10, "b": [1, 2]}']
CALLS = "".join(f"[[call: add {arguments} ]]" for arguments in ARGUMENTS)
TOOLS: Any = [{"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}]


def asking(content: str, **rest: Any) -> dict[str, Any]:
    """The arguments of a chat completion."""
    return {"model": "gpt-4o", "messages": [{"role": "user", "content": content}], **rest}


def refusal(kind: type[Exception], request: Callable[[], object]) -> Any:
    """The exception of this kind with which a request is refused."""
    try:
        request()
    except kind as error:
        return error
    raise AssertionError(f"no {kind.__name__}")


def called(calls: Iterable[Any]) -> list[tuple[str, str, str]]:
    return [(call.id, call.function.name, call.function.arguments) for call in calls]


def accumulated(chunks: Iterable[Any]) -> list[tuple[str, str, str]]:
    """The function calls of a stream, put together as an application does it."""
    made: dict[int, list[str]] = {}
    for chunk in chunks:
        for part in chunk.choices[0].delta.tool_calls or () if chunk.choices else ():
            call = made.setdefault(part.index, ["", "", ""])
            for place, piece in enumerate((part.id, part.function.name, part.function.arguments)):
                call[place] += piece or ""
    return [(id_, name, arguments) for _, (id_, name, arguments) in sorted(made.items())]


def whole_completion(client: OpenAI) -> None:
    completion = client.chat.completions.create(**asking(f"[[say: {ANSWER}]]"))
    [choice] = completion.choices
    assert (completion.object, choice.message.role, choice.message.content) == ("chat.completion", "assistant", ANSWER)
    assert (choice.finish_reason, choice.message.tool_calls) == ("stop", None)
    assert completion.usage
    assert completion.usage.total_tokens == completion.usage.prompt_tokens + completion.usage.completion_tokens > 0


def streamed_completion(client: OpenAI) -> None:
    arguments = asking(f"[[say: {ANSWER}]]", stream=True, stream_options={"include_usage": True})
    *chunks, last = client.chat.completions.create(**arguments)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == ANSWER
    assert (chunks[0].choices[0].delta.role, chunks[-1].choices[0].finish_reason) == ("assistant", "stop")
    whole = client.chat.completions.create(**asking(f"[[say: {ANSWER}]]"))
    assert (last.choices, last.usage) == ([], whole.usage)


def function_calls(client: OpenAI) -> None:
    arguments = asking(f"[[say: {ANSWER}]]{CALLS}", tools=TOOLS)
    [choice] = client.chat.completions.create(**arguments).choices
    made = called(choice.message.tool_calls or ())
    assert choice.finish_reason == "tool_calls"
    assert [(name, given) for _, name, given in made] == [("add", given) for given in ARGUMENTS]
    assert accumulated(client.chat.completions.create(**arguments, stream=True)) == made
    results = [{"role": "tool", "tool_call_id": id_, "content": "7"} for id_, _, _ in made]
    arguments["messages"] += [choice.message.model_dump(exclude_none=True), *results]
    [choice] = client.chat.completions.create(**arguments).choices
    assert (choice.finish_reason, choice.message.content, choice.message.tool_calls) == ("stop", ANSWER, None)


def stream_helper(client: OpenAI) -> None:
    api: Any = client.chat.completions if hasattr(client.chat.completions, "stream") else client.beta.chat.completions
    arguments = asking(f"[[say: {ANSWER}]]{CALLS}", tools=TOOLS)
    with api.stream(**arguments) as stream:
        names = [event.type for event in stream]
        [choice] = stream.get_final_completion().choices
    assert names.count("tool_calls.function.arguments.done") == len(ARGUMENTS)
    [whole] = client.chat.completions.create(**arguments).choices
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", ANSWER)
    assert called(choice.message.tool_calls) == called(whole.message.tool_calls or ())


def asynchronous_completion(_: OpenAI) -> None:
    async def run_it() -> str:
        async with AsyncOpenAI(max_retries=0) as client:
            stream: Any = await client.chat.completions.create(**asking(f"[[say: {ANSWER}]]", stream=True))
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(run_it()) == ANSWER


def embeddings(client: OpenAI) -> None:
    """One vector in every encoding. What is asked by default is base64, in version 1.40 if there is NumPy."""
    arguments: Any = {"model": "text-embedding-3-small", "input": ["How is the weather?", ANSWER]}
    by_default = client.embeddings.create(**arguments)
    vectors = [one.embedding for one in by_default.data]
    assert (by_default.object, [one.index for one in by_default.data]) == ("list", [0, 1])
    assert by_default.usage.total_tokens > 0
    assert all(math.isclose(math.hypot(*vector), 1, rel_tol=1e-6) for vector in vectors)
    floats = client.embeddings.create(**arguments, encoding_format="float")
    assert [one.embedding for one in floats.data] == vectors
    packed: Any = client.embeddings.create(**arguments, encoding_format="base64")
    raw = [base64.b64decode(one.embedding) for one in packed.data]
    assert [list(struct.unpack(f"<{len(one) // 4}f", one)) for one in raw] == vectors
    [short] = client.embeddings.create(**{**arguments, "input": ANSWER}, dimensions=64).data
    assert len(short.embedding) == 64


def models(client: OpenAI) -> None:
    for listed in client.models.list():
        assert client.models.retrieve(listed.id).model_dump() == listed.model_dump()
    error = refusal(NotFoundError, lambda: client.models.retrieve("nobody/offers-this"))
    assert error.body["code"] == "model_not_found"


def refusals_of_the_endpoint(client: OpenAI) -> None:
    error = refusal(NotFoundError, lambda: client.completions.create(model="gpt-3.5-turbo-instruct", prompt="Say it"))
    assert set(error.body) == {"message", "type", "param", "code"}
    assert "/v1/completions" in error.body["message"]
    for streams in (False, True):
        arguments = asking("[[error: 400 code=unsupported_value]]", stream=streams)
        error = refusal(BadRequestError, partial(client.chat.completions.create, **arguments))
        assert (error.status_code, error.code, error.type) == (400, "unsupported_value", "invalid_request_error")
    error = refusal(BadRequestError, lambda: client.embeddings.create(model="text-embedding-3-small", input=""))
    assert error.param == "input"


def a_busy_endpoint(client: OpenAI) -> None:
    once = "[[say: Here I am.]][[error: 429 retry_after=0.01 times=1]]"  # for each text, so each has to be new
    error = refusal(RateLimitError, lambda: client.chat.completions.create(**asking(once + uuid.uuid4().hex)))
    assert (error.status_code, error.response.headers["retry-after"]) == (429, "0.01")
    patient = client.with_options(max_retries=1)
    [choice] = patient.chat.completions.create(**asking(once + uuid.uuid4().hex)).choices
    assert choice.message.content == "Here I am."


SCENARIOS: tuple[Callable[[OpenAI], None], ...] = (
    whole_completion,
    streamed_completion,
    function_calls,
    stream_helper,
    asynchronous_completion,
    embeddings,
    models,
    refusals_of_the_endpoint,
    a_busy_endpoint,
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
