"""Messages: requests, object, content parts."""

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints
from pydantic_core import PydanticCustomError

from adlatus.errors import noun
from adlatus.wire.common import CodeInterpreterTool, Json, Metadata, RequestModel, WireObject

MAX_TEXT_CHARS = 256_000
Text = Annotated[str, StringConstraints(max_length=MAX_TEXT_CHARS)]
Detail = Literal["auto", "low", "high"]


class MessageStatus(StrEnum):
    """A message of a client is born completed; one of a run is in progress until the run's turn ends."""

    IN_PROGRESS = "in_progress"
    INCOMPLETE = "incomplete"
    COMPLETED = "completed"


class IncompleteReason(StrEnum):
    CONTENT_FILTER = "content_filter"
    MAX_TOKENS = "max_tokens"
    RUN_CANCELLED = "run_cancelled"
    RUN_EXPIRED = "run_expired"
    RUN_FAILED = "run_failed"


# --- What clients send


class TextPart(RequestModel):
    type: Literal["text"]
    text: Text


class ImageUrl(RequestModel):
    url: Annotated[str, StringConstraints(min_length=1)]
    detail: Detail | None = "auto"


class ImageUrlPart(RequestModel):
    type: Literal["image_url"]
    image_url: ImageUrl


class ImageFile(RequestModel):
    file_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    detail: Detail | None = "auto"


class ImageFilePart(RequestModel):
    type: Literal["image_file"]
    image_file: ImageFile


Part = Annotated[TextPart | ImageUrlPart | ImageFilePart, Field(discriminator="type")]


def _parts(content: Any) -> Any:
    match content:
        case str() if len(content) > MAX_TEXT_CHARS:
            raise PydanticCustomError(
                "string_above_max_length",
                "Invalid '$param': string too long. Expected a string with maximum length {limit}, "
                "but got a string with length {length} instead.",
                {"limit": MAX_TEXT_CHARS, "length": len(content)},
            )
        case str():
            return [{"type": "text", "text": content}]
        case list():
            return content
        case _:
            raise PydanticCustomError(
                "invalid_type",
                "Invalid type for '$param': expected one of a string or array of objects, but got {noun} instead.",
                {"noun": noun(content)},
            )


Parts = Annotated[list[Part], Field(min_length=1, max_length=1000)]
Content = Annotated[Parts, BeforeValidator(_parts, json_schema_input_type=Text | Parts)]


class FileSearchAttachmentTool(RequestModel):
    type: Literal["file_search"]


AttachmentTool = Annotated[CodeInterpreterTool | FileSearchAttachmentTool, Field(discriminator="type")]


class Attachment(RequestModel):
    file_id: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    tools: list[AttachmentTool]


class CreateMessageRequest(RequestModel):
    role: Literal["user", "assistant"]
    content: Content
    attachments: Annotated[list[Attachment], Field(max_length=1000)] | None = None
    metadata: Metadata | None = None

    def columns(self) -> Json:
        """The columns of the new message row that the request decides."""
        attachments = [attachment.model_dump() for attachment in self.attachments or []]
        return {
            "role": self.role,
            "content": [stored(part) for part in self.content],
            "attachments": attachments,
            "metadata": self.metadata or {},
        }


class ModifyMessageRequest(RequestModel):
    metadata: Metadata | None = None


def stored(part: TextPart | ImageUrlPart | ImageFilePart) -> Json:
    """A content part as the message object shows it."""
    match part:
        case TextPart():
            return text_content(part.text)
        case ImageUrlPart(image_url=image):
            return {"type": "image_url", "image_url": {"url": image.url, "detail": image.detail or "auto"}}
        case ImageFilePart(image_file=image):
            return {"type": "image_file", "image_file": {"file_id": image.file_id, "detail": image.detail or "auto"}}


def text_content(value: str, annotations: Sequence[Json] = ()) -> Json:
    """A text part of a message object."""
    return {"type": "text", "text": {"value": value, "annotations": list(annotations)}}


def file_citation(marker: str, start: int, file_id: str, quote: str) -> Json:
    """The annotation of a marker that begins at character `start` of the text."""
    return {
        "type": "file_citation",
        "text": marker,
        "start_index": start,
        "end_index": start + len(marker),
        "file_citation": {"file_id": file_id, "quote": quote},
    }


def file_path(link: str, start: int, file_id: str) -> Json:
    """The annotation of a link to a file that code has written. *Source*: the schema, the guides."""
    return {
        "type": "file_path",
        "text": link,
        "start_index": start,
        "end_index": start + len(link),
        "file_path": {"file_id": file_id},
    }


def image_content(file_id: str) -> Json:
    """An image part of an assistant's message."""
    return {"type": "image_file", "image_file": {"file_id": file_id, "detail": "auto"}}


# --- What the server answers


class IncompleteDetails(WireObject):
    reason: IncompleteReason


class Message(WireObject):
    """By REST the original left `status` and the three fields after it out; the schema requires them. Both are sent."""

    id: str
    object: Literal["thread.message"] = "thread.message"
    created_at: int
    assistant_id: str | None
    thread_id: str
    run_id: str | None
    status: MessageStatus
    incomplete_details: IncompleteDetails | None
    incomplete_at: int | None
    completed_at: int | None
    role: Literal["user", "assistant"]
    content: list[Json]
    attachments: list[Json]
    metadata: dict[str, str]


class ModifiedMessage(Message):
    """The answer to *modify*, which has `file_ids` of the first version beside it. *Source*: recorded messages."""

    file_ids: list[str] = Field(default_factory=list)
