"""Uploads: requests and objects."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field, StringConstraints

from adlatus.wire.common import RequestModel, WireObject
from adlatus.wire.files import MAX_FILENAME, ExpiresAfter, File

MAX_UPLOAD_BYTES = 8 * 2**30
MAX_PART_BYTES = 64 * 2**20
EXPIRES_AFTER_S = 3600
"""*Source* of all three: schema, and recorded uploads."""


class UploadStatus(StrEnum):
    """Pending from its creation; the others are final."""

    PENDING = "pending"
    COMPLETED = "completed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class CreateUploadRequest(RequestModel):
    purpose: Literal["fine-tune", "assistants", "batch", "user_data", "vision", "evals"]
    filename: Annotated[str, StringConstraints(min_length=1, max_length=MAX_FILENAME)]
    bytes: Annotated[int, Field(ge=1, le=MAX_UPLOAD_BYTES)]
    mime_type: Annotated[str, StringConstraints(min_length=1, max_length=256)]
    expires_after: ExpiresAfter | None = None


class CompleteUploadRequest(RequestModel):
    part_ids: Annotated[list[str], Field(min_length=1, max_length=10_000)]
    md5: Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{32}$")] | None = None


class Upload(WireObject):
    id: str
    object: Literal["upload"] = "upload"
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: UploadStatus
    expires_at: int
    file: Annotated[File | None, Field(exclude_if=lambda value: value is None)] = None


class UploadPart(WireObject):
    id: str
    object: Literal["upload.part"] = "upload.part"
    created_at: int
    upload_id: str
