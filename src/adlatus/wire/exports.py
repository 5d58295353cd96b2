"""Objects as exports have them: those of the API, of this server or of the original, with the ids and times they had.

What the original left out at times is optional, and what is not known is passed over. Beyond the API's own objects an
export of this server has `path` of files, where their bytes are not at `files/<id>`, and `batch_id` of files in stores.
"""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidatorFunctionWrapHandler,
    WrapValidator,
)

from adlatus.wire.assistants import Description, Model, Name
from adlatus.wire.common import (
    Instructions,
    LastError,
    Metadata,
    OpenJson,
    ResponseFormat,
    ToolChoice,
    Tools,
    Usage,
)
from adlatus.wire.files import MAX_FILENAME, FilePurpose
from adlatus.wire.messages import Attachment, Detail, IncompleteDetails, MessageStatus
from adlatus.wire.runs import MAX_INTEGER, RunIncompleteDetails, RunStatus, TruncationStrategy
from adlatus.wire.steps import StepStatus
from adlatus.wire.vector_stores import (
    Attributes,
    FileError,
    FileStatus,
    StaticChunking,
    StoreExpiresAfter,
    VectorStoreFile,
)

LAST_INSTANT = 253_402_300_799
"""The end of the year 9999: what is later is no time in seconds."""

Instant = Annotated[int, Field(ge=0, le=LAST_INSTANT)]
FileId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,200}$")]
"""Ids stand in names of files: nothing that leads elsewhere."""
AssistantId = Annotated[str, StringConstraints(pattern=r"^asst[A-Za-z0-9_-]{1,200}$")]
ThreadId = Annotated[str, StringConstraints(pattern=r"^thread[A-Za-z0-9_-]{1,200}$")]
MessageId = Annotated[str, StringConstraints(pattern=r"^msg[A-Za-z0-9_-]{1,200}$")]
RunId = Annotated[str, StringConstraints(pattern=r"^run[A-Za-z0-9_-]{1,200}$")]
StepId = Annotated[str, StringConstraints(pattern=r"^step[A-Za-z0-9_-]{1,200}$")]
StoreId = Annotated[str, StringConstraints(pattern=r"^vs_[A-Za-z0-9_-]{1,200}$")]
BatchId = Annotated[str, StringConstraints(pattern=r"^vsfb_[A-Za-z0-9_-]{1,200}$")]
Reference = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Fraction = Annotated[float, Field(ge=0, le=2)]
Tokens = Annotated[int, Field(ge=1, le=MAX_INTEGER)]


class Exported(BaseModel):
    """One object of an export."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)

    created_at: Instant


class _CodeFiles(BaseModel):
    file_ids: Annotated[list[Reference], Field(max_length=10_000)] = []


class _SearchedStores(BaseModel):
    vector_store_ids: Annotated[list[Reference], Field(max_length=10)] = []


class KeptResources(BaseModel):
    """A thread may have got more files than a request may name."""

    model_config = ConfigDict(strict=True, frozen=True)

    code_interpreter: Annotated[_CodeFiles | None, Field(exclude_if=lambda value: value is None)] = None
    file_search: Annotated[_SearchedStores | None, Field(exclude_if=lambda value: value is None)] = None


class ExportedAssistant(Exported):
    id: AssistantId
    model: Model
    name: Name | None = None
    description: Description | None = None
    instructions: Instructions | None = None
    tools: Tools | None = None
    tool_resources: KeptResources | None = None
    metadata: Metadata | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    reasoning_effort: str | None = None
    response_format: ResponseFormat | None = None


class ExportedThread(Exported):
    id: ThreadId
    metadata: Metadata | None = None
    tool_resources: KeptResources | None = None


# --- Messages


class _Text(BaseModel):
    value: str
    annotations: list[OpenJson] = []


class TextContent(BaseModel):
    type: Literal["text"]
    text: _Text


class RefusalContent(BaseModel):
    type: Literal["refusal"]
    refusal: str


class _ImageFile(BaseModel):
    file_id: Reference
    detail: Detail = "auto"


class ImageFileContent(BaseModel):
    type: Literal["image_file"]
    image_file: _ImageFile


class _ImageUrl(BaseModel):
    url: Annotated[str, StringConstraints(min_length=1)]
    detail: Detail = "auto"


class ImageUrlContent(BaseModel):
    type: Literal["image_url"]
    image_url: _ImageUrl


Part = Annotated[TextContent | RefusalContent | ImageFileContent | ImageUrlContent, Field(discriminator="type")]


class ExportedMessage(Exported):
    """By REST the original gave no `status`, nor what belongs to it: such a message is complete."""

    id: MessageId
    thread_id: ThreadId
    assistant_id: str | None = None
    run_id: str | None = None
    role: Literal["user", "assistant"]
    status: Annotated[MessageStatus | None, Field(strict=False)] = None
    incomplete_details: Annotated[IncompleteDetails | None, Field(strict=False)] = None
    incomplete_at: Instant | None = None
    completed_at: Instant | None = None
    content: Annotated[list[Part], Field(max_length=10_000)]
    attachments: list[Attachment] | None = None
    metadata: Metadata | None = None


# --- Runs


class ExportedRun(Exported):
    id: RunId
    thread_id: ThreadId
    assistant_id: Reference
    status: Annotated[RunStatus, Field(strict=False)]
    started_at: Instant | None = None
    expires_at: Instant | None = None
    cancelled_at: Instant | None = None
    failed_at: Instant | None = None
    completed_at: Instant | None = None
    last_error: LastError | None = None
    model: Model
    instructions: Instructions | None = None
    tools: Tools | None = None
    tool_resources: KeptResources | None = None
    metadata: Metadata | None = None
    temperature: Fraction | None = None
    top_p: Fraction | None = None
    reasoning_effort: str | None = None
    max_completion_tokens: Tokens | None = None
    max_prompt_tokens: Tokens | None = None
    truncation_strategy: TruncationStrategy | None = None
    incomplete_details: RunIncompleteDetails | None = None
    usage: Usage | None = None
    response_format: ResponseFormat | None = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None


class _Call(BaseModel):
    """A call, with whatever else it has: results of code and of searches, what is for the model alone."""

    model_config = ConfigDict(extra="allow", strict=True)

    id: Reference


class _Function(BaseModel):
    name: str
    arguments: str = ""
    output: str | None = None


class FunctionCall(_Call):
    type: Literal["function"]
    function: _Function


class _Code(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    input: str = ""
    outputs: list[OpenJson] = []


class CodeCall(_Call):
    type: Literal["code_interpreter"]
    code_interpreter: _Code


class _Search(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)

    results: list[OpenJson] = []


class SearchCall(_Call):
    type: Literal["file_search"]
    file_search: _Search


Call = Annotated[FunctionCall | CodeCall | SearchCall, Field(discriminator="type")]


class _MessageCreation(BaseModel):
    message_id: str


class MessageDetails(BaseModel):
    type: Literal["message_creation"]
    message_creation: _MessageCreation


class CallsDetails(BaseModel):
    type: Literal["tool_calls"]
    tool_calls: list[Call] = []


def _as_it_is(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    """The details themselves, once they have been checked: whatever else calls have is kept, and in its order."""
    check(value)
    return value


StepDetails = Annotated[
    MessageDetails | CallsDetails,
    Field(discriminator="type"),
    WrapValidator(_as_it_is),
    PlainSerializer(lambda value: value),
]


class ExportedStep(Exported):
    id: StepId
    run_id: RunId
    thread_id: ThreadId
    assistant_id: Reference
    type: Literal["message_creation", "tool_calls"]
    status: Annotated[StepStatus, Field(strict=False)]
    cancelled_at: Instant | None = None
    completed_at: Instant | None = None
    expires_at: Instant | None = None
    expired_at: Instant | None = None
    failed_at: Instant | None = None
    last_error: LastError | None = None
    step_details: StepDetails
    usage: Usage | None = None
    metadata: Metadata | None = None


# --- Files and vector stores


class ExportedFile(Exported):
    id: FileId
    purpose: Annotated[FilePurpose, Field(strict=False)]
    filename: Annotated[str, StringConstraints(min_length=1, max_length=MAX_FILENAME)]
    bytes: Annotated[int, Field(ge=0)]
    expires_at: Instant | None = None
    path: str | None = None


class ExportedVectorStore(Exported):
    id: StoreId
    name: Annotated[str, StringConstraints(max_length=512)] | None = None
    description: Annotated[str, StringConstraints(max_length=512)] | None = None
    metadata: Metadata | None = None
    expires_after: StoreExpiresAfter | None = None
    last_active_at: Instant | None = None


class ExportedBatch(Exported):
    id: BatchId
    vector_store_id: StoreId
    status: Literal["in_progress", "completed", "cancelled", "failed"] = "completed"


def _known(strategy: Any) -> Any:
    """None for those that are not told of: `auto`, and `other` of old files."""
    return strategy if isinstance(strategy, dict) and strategy.get("type") not in ("auto", "other") else None


class ExportedStoreFile(Exported):
    """A file of a store, by the id of the file."""

    id: FileId
    vector_store_id: StoreId
    status: Annotated[FileStatus, Field(strict=False)] = FileStatus.COMPLETED
    last_error: FileError | None = None
    chunking_strategy: Annotated[StaticChunking | None, BeforeValidator(_known)] = None
    attributes: Attributes | None = None
    batch_id: BatchId | None = None


class StoreFileWithBatch(VectorStoreFile):
    """A file of a store as exports have it."""

    batch_id: str | None
