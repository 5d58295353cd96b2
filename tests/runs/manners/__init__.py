"""The manners of model servers, as data: what each really sends, byte for byte, and what we make of it.

A `Manner` is one server with its list of models and its scenarios. The model's name picks the scenario, so that one
endpoint can show them all. The contents are neutral, everything around them is as the server writes it.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Headers = dict[str, str]
Usage = tuple[int, int, int, int] | None
"""Prompt, completion, cached and reasoning tokens."""

SSE: Headers = {"content-type": "text/event-stream"}
JSON: Headers = {"content-type": "application/json"}
DONE = b"data: [DONE]\n\n"
TEXT = "Grüße, Jane!"
"""What the models say."""


def _function(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties}
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [_function("weather", city={"type": "string"}), _function("now")]
"""What is offered to the models that call functions."""

FORCED = {"type": "function", "function": {"name": "weather"}}
BERLIN = ("weather", '{"city": "Berlin"}')
KOELN = ("weather", '{"city": "Köln"}')

OPENAI_PARAMETERS = frozenset(
    {
        "model",
        "messages",
        "stream",
        "stream_options",
        "temperature",
        "top_p",
        "reasoning_effort",
        "max_completion_tokens",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
    }
)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer. Each piece is a write of its own, and a chunk of the transfer where it is chunked.

    The end of the body comes `ends_after_s` after the last piece, or never if that is None: the connection stays open.
    """

    pieces: tuple[bytes, ...]
    status: int = 200
    headers: Headers = field(default_factory=lambda: SSE)
    chunked: bool = True
    ends_after_s: float | None = 0


@dataclass(frozen=True)
class Scenario:
    """What a server answers to runs of the model `name`, in turn, and what becomes of the run.

    `usage` is what each answer tells; where it tells none, it is counted, with the `hidden` reasoning. `says` are words
    of `last_error.message`, which has to tell the operator what to do. `heard` is how many requests the server gets,
    `omits` what the last of them is without.

    `calls` are the functions that the model calls, as names and arguments, once it has `said` something. If the run is
    to complete, it waits for their outputs, and the last answer follows them. `ids` are those of the calls where they
    are the server's own. `asks` is what the run is created with beside the functions.
    """

    name: str
    answers: tuple[Answer, ...]
    text: str | None = TEXT
    usage: Usage = None
    status: str = "completed"
    code: str | None = None
    says: tuple[str, ...] = ()
    reason: str | None = None
    heard: int = 1
    omits: frozenset[str] = frozenset()
    hidden: str = ""
    said: str | None = None
    calls: tuple[tuple[str, str], ...] = ()
    ids: tuple[str, ...] = ()
    asks: Mapping[str, Any] = field(default_factory=dict)

    @property
    def waits(self) -> bool:
        """Whether the run waits for outputs."""
        return bool(self.calls) and self.status == "completed"


@dataclass(frozen=True)
class Manner:
    """One kind of server. `accepts` are the parameters that it knows, `ignores` those that it takes for nothing."""

    name: str
    models: Answer
    model_ids: tuple[str, ...]
    scenarios: tuple[Scenario, ...]
    path: str = "/v1"
    accepts: frozenset[str] = OPENAI_PARAMETERS
    ignores: frozenset[str] = frozenset()


def stream(*pieces: bytes, headers: Headers = SSE, ends_after_s: float | None = 0) -> Answer:
    """An answer with status 200 whose pieces come one by one."""
    return Answer(pieces, headers=headers, ends_after_s=ends_after_s)


def body(content: bytes | dict[str, Any], status: int = 200, headers: Headers | None = None) -> Answer:
    """An answer that is one body with a content length; JSON unless the headers say something else."""
    raw = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":")).encode()
    return Answer((raw,), status, JSON | (headers or {}), chunked=False)


def refused(
    name: str,
    answer: Answer,
    *says: str,
    code: str = "server_error",
    text: str | None = None,
    usage: Usage = None,
    calls: tuple[tuple[str, str], ...] = (),
) -> Scenario:
    """A run that fails with what the server answered, after one request. `text` and `calls` came till then."""
    return Scenario(name, (answer,), text, usage, status="failed", code=code, says=says, calls=calls)


def calling(
    name: str,
    answer: Answer,
    then: Answer,
    *calls: tuple[str, str],
    usage: Usage = None,
    said: str | None = None,
    ids: tuple[str, ...] = (),
    hidden: str = "",
    asks: Mapping[str, Any] | None = None,
) -> Scenario:
    """A run whose model calls functions in its first answer, and then says `TEXT`."""
    return Scenario(
        name, (answer, then), usage=usage, heard=2, said=said, calls=calls, ids=ids, hidden=hidden, asks=asks or {}
    )


def cut(
    name: str, reason: str, answer: Answer, *calls: tuple[str, str], usage: Usage = None, hidden: str = ""
) -> Scenario:
    """A run that is incomplete before it has said a word; calls that have begun are of no use."""
    return Scenario(name, (answer,), None, usage, status="incomplete", reason=reason, calls=calls, hidden=hidden)
