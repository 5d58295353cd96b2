"""Run steps: statuses and object."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from adlatus.wire.common import Json, LastError, Usage, WireObject

Included = Literal["step_details.tool_calls[*].file_search.results[*].content"]
"""What may be asked for beyond the object itself. *Source*: schema."""

CONTENT: Included = "step_details.tool_calls[*].file_search.results[*].content"

EXTRA = "extra_content"
"""Under this name a model's own notes on a call are kept with it, for the model alone."""

ASKED = "asked"
"""Under this name what the model asked of a hosted tool is kept with the call: name, arguments, and what tells it
again what came of it.
"""

_HIDDEN = (EXTRA, ASKED)
_OF_CONTENT = ("content", "page_from", "page_to")


class StepStatus(StrEnum):
    """A step is born in progress and ends with its part of the run, or with the run itself."""

    IN_PROGRESS = "in_progress"
    CANCELLED = "cancelled"
    FAILED = "failed"
    COMPLETED = "completed"
    EXPIRED = "expired"


class RunStep(WireObject):
    """The recorded wire has `expires_at`, the schema `expired_at` and `metadata` instead: all are sent.

    What a step used is told once it has ended. *Source*: schema.
    """

    id: str
    object: Literal["thread.run.step"] = "thread.run.step"
    created_at: int
    run_id: str
    assistant_id: str
    thread_id: str
    type: Literal["message_creation", "tool_calls"]
    status: StepStatus
    cancelled_at: int | None
    completed_at: int | None
    expires_at: int | None
    expired_at: int | None
    failed_at: int | None
    last_error: LastError | None
    step_details: Json
    usage: Usage | None
    metadata: dict[str, str]

    @classmethod
    def of(cls, row: Mapping[str, Any], include: Collection[str] = ()) -> Self:
        """The step of a row, which has more than is shown: usage while it waits for outputs, what is for the model
        alone, and of search results what has to be asked for by `include`.
        """
        shown = dict(row)
        if row["status"] == StepStatus.IN_PROGRESS:
            shown["usage"] = None
        if calls := row["step_details"].get("tool_calls"):
            shown["step_details"] = tool_calls([_shown(call, include) for call in calls])
        return super().of(shown)

    def retrieved(self) -> "RunStep":
        """The step as REST shows it: without an expiry once it has ended; streams keep it. *Source*: recorded steps."""
        return self if self.status is StepStatus.IN_PROGRESS else self.model_copy(update={"expires_at": None})


def of_step(error: LastError) -> LastError:
    """A run's error as its steps tell it: they know no `invalid_prompt`. *Source*: schema."""
    return error.model_copy(update={"code": "server_error"}) if error.code == "invalid_prompt" else error


def message_creation(message_id: str) -> Json:
    """The details of a step that writes a message."""
    return {"type": "message_creation", "message_creation": {"message_id": message_id}}


def tool_calls(calls: list[Json]) -> Json:
    """The details of a step that calls tools."""
    return {"type": "tool_calls", "tool_calls": calls}


def _shown(call: Json, include: Collection[str]) -> Json:
    call = {name: value for name, value in call.items() if name not in _HIDDEN}
    if call["type"] == "file_search" and CONTENT not in include:
        results = [
            {name: value for name, value in result.items() if name not in _OF_CONTENT}
            for result in call["file_search"]["results"]
        ]
        call["file_search"] = {**call["file_search"], "results": results}
    return call


def file_search_call(call_id: str, ranking_options: Json, results: list[Json]) -> Json:
    """A call of the file search in a step's details, and whole in the one delta that tells of it."""
    search = {"ranking_options": ranking_options, "results": results}
    return {"id": call_id, "type": "file_search", "file_search": search}


def code_interpreter_call(call_id: str, code: str, outputs: list[Json]) -> Json:
    """A call of the code interpreter in a step's details, and without code and outputs in the delta that begins it."""
    return {"id": call_id, "type": "code_interpreter", "code_interpreter": {"input": code, "outputs": outputs}}


def logs(text: str) -> Json:
    """An output of code that is text."""
    return {"type": "logs", "logs": text}


def image(file_id: str) -> Json:
    """An output of code that is an image."""
    return {"type": "image", "image": {"file_id": file_id}}


def function_call(call_id: str, name: str, arguments: str, extra: Json | None = None) -> Json:
    """A call of a function in a step's details. Its output is null until it is submitted; its `extra` is not shown."""
    call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments, "output": None}}
    return call | {EXTRA: extra} if extra else call


def outputs_in(details: Json, outputs: Mapping[str, str]) -> Json:
    """The details of a step with the outputs of its function calls by their ids."""
    calls = [
        {**call, "function": {**call["function"], "output": outputs[call["id"]]}} if call["id"] in outputs else call
        for call in details["tool_calls"]
    ]
    return tool_calls(calls)
