"""Files: what comes with a multipart form, and the object."""

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from adlatus.wire.common import RequestModel, WireObject

MAX_FILE_BYTES = 512 * 2**20
"""*Source*: schema."""
BATCH_EXPIRES_AFTER_S = 30 * 86_400
"""Files for batches do not stay longer unless they are told to. *Source*: schema."""
MAX_FILENAME = 4096
"""The original's limit is not known."""


class FilePurpose(StrEnum):
    """The purposes that clients may name come first, in the order in which an error of the original lists them."""

    FINE_TUNE = "fine-tune"
    ASSISTANTS = "assistants"
    BATCH = "batch"
    USER_DATA = "user_data"
    VISION = "vision"
    EVALS = "evals"
    ASSISTANTS_OUTPUT = "assistants_output"
    BATCH_OUTPUT = "batch_output"
    FINE_TUNE_RESULTS = "fine-tune-results"


ACCEPTED = tuple(FilePurpose)[:6]
"""Purposes that clients may name; the others are the server's."""
NOT_DOWNLOADABLE = (FilePurpose.ASSISTANTS, FilePurpose.USER_DATA)
"""*Source*: field reports, and the guides of the original."""


class ExpiresAfter(RequestModel):
    """When a file goes by itself. *Source*: schema."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000, json_schema_extra={"format": "int64"})]


class File(WireObject):
    """Keys in the order of recorded files, which were processed at once."""

    object: Literal["file"] = "file"
    id: str
    purpose: FilePurpose
    filename: str
    bytes: int
    created_at: int
    expires_at: int | None
    status: Literal["processed"] = "processed"
    status_details: None = None


class DeletedFile(WireObject):
    """Keys in the order of recorded answers, which is not that of other nouns."""

    object: Literal["file"] = "file"
    deleted: Literal[True] = True
    id: str
