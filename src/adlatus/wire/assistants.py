"""Assistants: requests and object."""

from typing import Annotated, Literal

from pydantic import StringConstraints

from adlatus.wire.common import (
    Instructions,
    Json,
    Metadata,
    ReasoningEffort,
    RequestModel,
    ResponseFormat,
    Temperature,
    Tools,
    TopP,
    WireObject,
)
from adlatus.wire.threads import CreateToolResources, ModifyToolResources

Model = Annotated[str, StringConstraints(min_length=1, max_length=512)]
Name = Annotated[str, StringConstraints(max_length=256)]
Description = Annotated[str, StringConstraints(max_length=512)]


class CreateAssistantRequest(RequestModel):
    model: Model
    name: Name | None = None
    description: Description | None = None
    instructions: Instructions | None = None
    tools: Tools | None = None
    tool_resources: CreateToolResources | None = None
    metadata: Metadata | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    reasoning_effort: ReasoningEffort | None = None
    response_format: ResponseFormat | None = None


class ModifyAssistantRequest(RequestModel):
    """Only the fields that are sent change; each of them is replaced as a whole."""

    model: Model | None = None
    name: Name | None = None
    description: Description | None = None
    instructions: Instructions | None = None
    tools: Tools | None = None
    tool_resources: ModifyToolResources | None = None
    metadata: Metadata | None = None
    temperature: Temperature | None = None
    top_p: TopP | None = None
    reasoning_effort: ReasoningEffort | None = None
    response_format: ResponseFormat | None = None


class Assistant(WireObject):
    id: str
    object: Literal["assistant"] = "assistant"
    created_at: int
    name: str | None
    description: str | None
    model: str
    instructions: str | None
    tools: list[Json]
    top_p: float | None
    temperature: float | None
    reasoning_effort: str | None
    tool_resources: Json
    metadata: dict[str, str]
    response_format: str | Json


DEFAULTS: Json = {
    "name": None,
    "description": None,
    "instructions": None,
    "tools": [],
    "top_p": 1.0,
    "temperature": 1.0,
    "reasoning_effort": None,
    "tool_resources": {},
    "metadata": {},
    "response_format": "auto",
}
"""What the server fills in for fields that are absent or null. *Source*: recorded assistants."""


def columns(request: CreateAssistantRequest | ModifyAssistantRequest) -> Json:
    """The columns that the request sets, defaults in place of null; nothing for what was not sent."""
    sent = request.model_dump(include=request.model_fields_set)
    if isinstance(request, ModifyAssistantRequest) and sent.get("model", "") is None:
        del sent["model"]
    return {key: DEFAULTS[key] if value is None else value for key, value in sent.items()}


def with_tool_entries(tools: list[Json], tool_resources: Json) -> Json:
    """`tool_resources` with the empty entry that a code interpreter gets. *Source*: recorded assistants."""
    if "code_interpreter" in tool_resources or all(tool["type"] != "code_interpreter" for tool in tools):
        return tool_resources
    return {"code_interpreter": {"file_ids": []}, **tool_resources}
