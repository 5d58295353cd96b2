"""Runs: statuses, requests, object."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, StringConstraints

from adlatus.wire.assistants import Model
from adlatus.wire.common import (
    Instructions,
    Json,
    LastError,
    Metadata,
    ReasoningEffort,
    RequestModel,
    ResponseFormat,
    Temperature,
    ToolChoice,
    ToolResources,
    Tools,
    TopP,
    Usage,
    WireObject,
)
from adlatus.wire.messages import CreateMessageRequest
from adlatus.wire.threads import CreateThreadRequest


class RunStatus(StrEnum):
    """Where a run stands; the moves between them are the table in `runs/lifecycle.py`."""

    QUEUED = "queued"
    IN_PROGRESS = "in_progress"
    REQUIRES_ACTION = "requires_action"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"
    FAILED = "failed"
    COMPLETED = "completed"
    INCOMPLETE = "incomplete"
    EXPIRED = "expired"


MAX_INTEGER = 2_147_483_647
"""Of the database's integers."""


class TruncationStrategy(RequestModel):
    type: Literal["auto", "last_messages"]
    last_messages: Annotated[int, Field(ge=1, le=MAX_INTEGER)] | None = None


TokenBudget = Annotated[int, Field(ge=256, le=MAX_INTEGER)]


class RunSettings(RequestModel):
    """What *create run* and *create thread and run* have in common: overrides of the assistant, for this run only."""

    assistant_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    model: Model | None = None
    instructions: Instructions | None = None
    tools: Tools | None = None
    metadata: Metadata | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    stream: bool | None = None
    max_prompt_tokens: TokenBudget | None = None
    max_completion_tokens: TokenBudget | None = None
    truncation_strategy: TruncationStrategy | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: ReasoningEffort | None = None


class CreateRunRequest(RunSettings):
    additional_instructions: Instructions | None = None
    additional_messages: Annotated[list[CreateMessageRequest], Field(max_length=100_000, fail_fast=True)] | None = None


class CreateThreadAndRunRequest(RunSettings):
    thread: CreateThreadRequest | None = None
    tool_resources: ToolResources | None = None


class ModifyRunRequest(RequestModel):
    metadata: Metadata | None = None


class ToolOutput(RequestModel):
    """An output that is left out is empty. *Source*: the schema requires neither field, the original the id."""

    tool_call_id: str
    output: str | None = None


class SubmitToolOutputsRequest(RequestModel):
    tool_outputs: Annotated[list[ToolOutput], Field(max_length=1000)]
    stream: bool | None = None


class RunIncompleteDetails(WireObject):
    reason: Literal["max_completion_tokens", "max_prompt_tokens", "content_filter"]


class Run(WireObject):
    id: str
    object: Literal["thread.run"] = "thread.run"
    created_at: int
    assistant_id: str
    thread_id: str
    status: RunStatus
    started_at: int | None
    expires_at: int | None
    cancelled_at: int | None
    failed_at: int | None
    completed_at: int | None
    required_action: Json | None
    last_error: LastError | None
    model: str
    instructions: str | None
    tools: list[Json]
    tool_resources: Json
    metadata: dict[str, str]
    temperature: float | None
    top_p: float | None
    reasoning_effort: str | None
    max_completion_tokens: int | None
    max_prompt_tokens: int | None
    truncation_strategy: Json
    incomplete_details: RunIncompleteDetails | None
    usage: Usage | None
    response_format: str | Json
    tool_choice: str | Json
    parallel_tool_calls: bool

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The run of a row. Neither vector stores nor an empty list of files are shown. *Source*: recorded runs."""
        files = row["tool_resources"].get("code_interpreter", {})
        return super().of({**row, "tool_resources": {"code_interpreter": files} if files.get("file_ids") else {}})


def submit_tool_outputs(calls: list[Json]) -> Json:
    """The `required_action` of a run whose client has to carry out the function calls of a step."""
    shown = [
        {"id": call["id"], "type": "function", "function": {name: call["function"][name] for name in _SHOWN}}
        for call in calls
        if call["type"] == "function"
    ]
    return {"type": "submit_tool_outputs", "submit_tool_outputs": {"tool_calls": shown}}


_SHOWN = ("name", "arguments")


def waiting_calls(required_action: Json) -> list[str]:
    """The ids of the calls that a client has to carry out."""
    return [call["id"] for call in required_action["submit_tool_outputs"]["tool_calls"]]
