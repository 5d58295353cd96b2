"""Threads: requests and object. Also the tool resources that threads and assistants are created with."""

from typing import Annotated, Literal

from pydantic import Field, model_validator
from pydantic_core import PydanticCustomError

from adlatus.wire.common import FileSearchResources, Json, Metadata, RequestModel, ToolResources, WireObject
from adlatus.wire.messages import CreateMessageRequest
from adlatus.wire.vector_stores import StoreOfFiles

ModifyToolResources = ToolResources


class CreateFileSearchResources(FileSearchResources):
    """Either stores that are there, or the helper that makes one. *Source*: schema."""

    vector_stores: Annotated[list[StoreOfFiles] | None, Field(max_length=1, exclude=True)] = None

    @model_validator(mode="after")
    def _one_store_at_most(self) -> "CreateFileSearchResources":
        if self.vector_stores and self.vector_store_ids:
            raise PydanticCustomError(
                "invalid_value",
                "Invalid '$param': only one of 'vector_store_ids' and 'vector_stores' may name a vector store.",
            )
        return self


class CreateToolResources(ToolResources):
    file_search: Annotated[CreateFileSearchResources | None, Field(exclude_if=lambda value: value is None)] = None


class CreateThreadRequest(RequestModel):
    messages: Annotated[list[CreateMessageRequest], Field(max_length=100_000, fail_fast=True)] | None = None
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
