"""Threads: requests and object. Also the tool resources that threads and assistants are created with."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from adlatus.wire.common import FileSearchResources, Json, Metadata, RequestModel, ToolResources, WireObject
from adlatus.wire.messages import CreateMessageRequest

ModifyToolResources = ToolResources


class CreateFileSearchResources(FileSearchResources):
    """The helper `vector_stores` would create a store; it is refused until vector stores are offered."""

    vector_stores: Annotated[list[Json] | None, Field(max_length=1, exclude=True)] = None

    @model_validator(mode="after")
    def _stores_are_not_offered(self) -> "CreateFileSearchResources":
        if self.vector_stores:
            raise PydanticCustomError(
                "unsupported_value",
                "Vector stores are not offered by this version of the server: leave out '$param.vector_stores'.",
            )
        return self


class CreateToolResources(ToolResources):
    file_search: Annotated[CreateFileSearchResources | None, Field(exclude_if=lambda value: value is None)] = None


class CreateThreadRequest(RequestModel):
    messages: Annotated[list[CreateMessageRequest], Field(max_length=100_000)] | None = None
    tool_resources: CreateToolResources | None = None
    metadata: Metadata | None = None


class ModifyThreadRequest(RequestModel):
    """Only the fields that are sent change; each of them is replaced as a whole."""

    tool_resources: ModifyToolResources | None = None
    metadata: Metadata | None = None


class Thread(WireObject):
    id: str
    object: Literal["thread"] = "thread"
    created_at: int
    metadata: dict[str, str]
    tool_resources: Json

    def filled(self) -> "Thread":
        """The thread as *retrieve* and the `thread.created` event show it. *Source*: recorded threads."""
        if "code_interpreter" in self.tool_resources:
            return self
        resources = {"code_interpreter": {"file_ids": []}, **self.tool_resources}
        return self.model_copy(update={"tool_resources": resources})
