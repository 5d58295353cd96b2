"""Run steps: statuses and object."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Literal, Self

from adlatus.wire.common import Json, LastError, Usage, WireObject

Included = Literal["step_details.tool_calls[*].file_search.results[*].content"]
"""What may be asked for beyond the object itself. *Source*: schema."""


EXTRA = "extra_content"
"""Under this name a model's own notes on a call are kept with it, for the model alone."""


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
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The step of a row, which has more than is shown: usage while it waits for outputs, and extras of calls."""
        shown = dict(row)
        if row["status"] == StepStatus.IN_PROGRESS:
            shown["usage"] = None
        if any(EXTRA in call for call in row["step_details"].get("tool_calls", ())):
            calls = [{name: call[name] for name in call if name != EXTRA} for call in row["step_details"]["tool_calls"]]
            shown["step_details"] = tool_calls(calls)
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
