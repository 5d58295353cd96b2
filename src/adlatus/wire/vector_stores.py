"""Vector stores, their files and batches of them, and searches: requests and objects."""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from adlatus.wire.common import Json, Metadata, RequestModel, WireObject, few, kept

MOST_FILES_AT_CREATION = 500
MOST_FILES_IN_BATCH = 2000
"""*Source* of both: schema."""
MOST_FILES_BY_HELPER = 10_000
"""*Source*: the guides; the schema of the last weeks said 100,000,000, which is no request that anybody could send."""
MAX_FILTERS = 100
MAX_FILTER_DEPTH = 16
MAX_ALL_FILTERS = 1000
MAX_QUERIES = 16
MAX_QUERY_CHARS = 4096
"""*Source*: inference; the original's limits are not known."""

_TEXTS = frozenset({".c", ".cs", ".cpp", ".css", ".go", ".java", ".js", ".json", ".md", ".php", ".py", ".rb", ".sh"})
SEARCHABLE = _TEXTS | {".tex", ".ts", ".txt", ".html", ".pdf", ".docx", ".pptx", ".doc"}
"""Extensions of files that can be searched. *Source*: OpenAI's guides."""


def extension(filename: str) -> str:
    """The extension in lower case with its dot, or the empty string."""
    return PurePosixPath(filename).suffix.lower()


# --- What clients send

Text = Annotated[str, StringConstraints(max_length=512)]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class StoreExpiresAfter(RequestModel):
    anchor: Literal["last_active_at"]
    days: Annotated[int, Field(ge=1, le=365)]


class StaticSizes(RequestModel):
    max_chunk_size_tokens: Annotated[int, Field(ge=100, le=4096)]
    chunk_overlap_tokens: Annotated[int, Field(ge=0, le=2048)]

    @model_validator(mode="after")
    def _half_at_most(self) -> Self:
        if self.chunk_overlap_tokens > self.max_chunk_size_tokens // 2:
            raise PydanticCustomError(
                "invalid_value",
                "Invalid '$param': chunk_overlap_tokens must not exceed half of max_chunk_size_tokens, but {overlap} "
                "is more than half of {size}.",
                {"overlap": self.chunk_overlap_tokens, "size": self.max_chunk_size_tokens},
            )
        return self


class StaticChunking(RequestModel):
    type: Literal["static"]
    static: StaticSizes


class AutoChunking(RequestModel):
    type: Literal["auto"]


ChunkingStrategy = Annotated[AutoChunking | StaticChunking, Field(discriminator="type")]

DEFAULT_CHUNKING: Json = {"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}
"""What `auto` is. *Source*: recorded files."""


def chunking(strategy: AutoChunking | StaticChunking | None) -> Json:
    """A strategy as files show it."""
    return strategy.model_dump() if isinstance(strategy, StaticChunking) else DEFAULT_CHUNKING


AttributeKey = Annotated[str, StringConstraints(max_length=64)]
AttributeText = Annotated[str, StringConstraints(max_length=512)]
Attributes = Annotated[
    dict[AttributeKey, AttributeText | bool | int | float],
    Field(max_length=16),
    BeforeValidator(few),
    AfterValidator(kept),
]
"""*Source*: schema."""


class CreateVectorStoreRequest(RequestModel):
    file_ids: Annotated[list[FileId], Field(max_length=MOST_FILES_AT_CREATION)] | None = None
    name: Text | None = None
    description: Text | None = None
    expires_after: StoreExpiresAfter | None = None
    chunking_strategy: ChunkingStrategy | None = None
    metadata: Metadata | None = None


class ModifyVectorStoreRequest(RequestModel):
    """Only the fields that are sent change; null takes a name or an expiry away."""

    name: Text | None = None
    expires_after: StoreExpiresAfter | None = None
    metadata: Metadata | None = None


class AttachFileRequest(RequestModel):
    file_id: FileId
    chunking_strategy: ChunkingStrategy | None = None
    attributes: Attributes | None = None


def attaching(
    file_ids: Iterable[str], strategy: AutoChunking | StaticChunking | None, attributes: Attributes | None = None
) -> list[AttachFileRequest]:
    """Files with the same settings."""
    return [
        AttachFileRequest(file_id=file_id, chunking_strategy=strategy, attributes=attributes) for file_id in file_ids
    ]


class ModifyAttributesRequest(RequestModel):
    attributes: Attributes | None


class CreateFileBatchRequest(RequestModel):
    """`files` have settings of their own; then those of the batch do not count. *Source*: schema."""

    file_ids: Annotated[list[FileId], Field(min_length=1, max_length=MOST_FILES_IN_BATCH)] | None = None
    files: Annotated[list[AttachFileRequest], Field(min_length=1, max_length=MOST_FILES_IN_BATCH)] | None = None
    chunking_strategy: ChunkingStrategy | None = None
    attributes: Attributes | None = None

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.file_ids is None) == (self.files is None):
            raise PydanticCustomError(
                "invalid_value", "Exactly one of 'file_ids' and 'files' has to be given, each with at least one file."
            )
        return self

    def attached(self) -> list[AttachFileRequest]:
        """The files, each with its settings."""
        if self.files is not None:
            return self.files
        return attaching(self.file_ids or (), self.chunking_strategy, self.attributes)


class StoreOfFiles(RequestModel):
    """The helper `vector_stores` of tool resources: a store that is made with what it belongs to."""

    file_ids: Annotated[list[FileId], Field(max_length=MOST_FILES_BY_HELPER)] | None = None
    chunking_strategy: ChunkingStrategy | None = None
    metadata: Metadata | None = None


Scalar = Annotated[str, StringConstraints(max_length=512)] | bool | int | float


class ComparisonFilter(RequestModel):
    """One attribute against a value; lists are for `in` and `nin`."""

    type: Literal["eq", "ne", "gt", "gte", "lt", "lte", "in", "nin"]
    key: AttributeKey
    value: Scalar | Annotated[list[Scalar], Field(max_length=MAX_FILTERS)]

    @model_validator(mode="after")
    def _lists_are_for_in(self) -> Self:
        wants_list = self.type in ("in", "nin")
        if isinstance(self.value, list) != wants_list:
            wanted = "an array" if wants_list else "a string, a number or a boolean"
            raise PydanticCustomError(
                "invalid_value",
                "Invalid '$param': the comparison '{type}' wants {wanted} as its value.",
                {"type": self.type, "wanted": wanted},
            )
        return self


class CompoundFilter(RequestModel):
    type: Literal["and", "or"]
    filters: Annotated[list["AnyFilter"], Field(max_length=MAX_FILTERS)]


AnyFilter = Annotated[ComparisonFilter | CompoundFilter, Field(discriminator="type")]


def _refuse_overgrown(wanted: ComparisonFilter | CompoundFilter) -> ComparisonFilter | CompoundFilter:
    level, depth, count = [wanted], 1, 1
    while level := [inner for each in level if isinstance(each, CompoundFilter) for inner in each.filters]:
        depth, count = depth + 1, count + len(level)
    if depth > MAX_FILTER_DEPTH or count > MAX_ALL_FILTERS:
        raise PydanticCustomError(
            "invalid_value",
            "Invalid '$param': there may be {most} filters, nested {deepest} levels deep, but these are {count} in "
            "{depth} levels.",
            {"most": MAX_ALL_FILTERS, "deepest": MAX_FILTER_DEPTH, "count": count, "depth": depth},
        )
    return wanted


SearchFilter = Annotated[AnyFilter, AfterValidator(_refuse_overgrown)]

Query = Annotated[str, StringConstraints(min_length=1, max_length=MAX_QUERY_CHARS)]


class SearchRankingOptions(RequestModel):
    """`hybrid_search` is of the tool of runs in the schema; it means the same here."""

    ranker: Literal["none", "auto", "default-2024-11-15"] = "auto"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0


class SearchRequest(RequestModel):
    query: Query | Annotated[list[Query], Field(min_length=1, max_length=MAX_QUERIES)]
    rewrite_query: bool | None = False
    max_num_results: Annotated[int, Field(ge=1, le=50)] | None = 10
    filters: SearchFilter | None = None
    ranking_options: SearchRankingOptions | None = None

    @property
    def queries(self) -> list[str]:
        """All of them."""
        return [self.query] if isinstance(self.query, str) else self.query


# --- What the server answers


class FileStatus(StrEnum):
    """A file of a store is in progress until it can be searched, or never will be.

    `cancelled` comes with the cancellation of its batch.
    """

    IN_PROGRESS = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"


class FileCounts(WireObject):
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    total: int = 0


class VectorStore(WireObject):
    """Keys in the order of recorded stores; `description` is not in the schema."""

    id: str
    object: Literal["vector_store"] = "vector_store"
    created_at: int
    name: str | None
    description: str | None
    usage_bytes: int
    file_counts: FileCounts
    status: Literal["expired", "in_progress", "completed"]
    expires_after: StoreExpiresAfter | None
    expires_at: int | None
    last_active_at: int
    metadata: dict[str, str]

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The store of a row that has the `counts` of its files and says whether it has `expired`."""
        days, counts = row["expires_after_days"], row["counts"]
        status = "expired" if row["expired"] else "in_progress" if counts["in_progress"] else "completed"
        return cls.model_validate(
            {
                **row,
                "usage_bytes": counts["usage_bytes"],
                "file_counts": counts,
                "status": status,
                "expires_after": None if days is None else {"anchor": "last_active_at", "days": days},
            }
        )


class FileError(WireObject):
    code: Literal["server_error", "unsupported_file", "invalid_file"]
    message: str


class VectorStoreFile(WireObject):
    """Keys in the order of recorded files. The id is that of the file."""

    id: str
    object: Literal["vector_store.file"] = "vector_store.file"
    usage_bytes: int
    created_at: int
    vector_store_id: str
    status: FileStatus
    last_error: FileError | None
    chunking_strategy: Json
    attributes: dict[str, str | bool | int | float]


class FileBatch(WireObject):
    """The recorded wire says `file_batch`, the schema and the SDK's types `files_batch`, which nobody checks."""

    id: str
    object: Literal["vector_store.file_batch"] = "vector_store.file_batch"
    created_at: int
    status: Literal["in_progress", "completed", "cancelled", "failed"]
    vector_store_id: str
    file_counts: FileCounts

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The batch of a row that has the `counts` of its files."""
        counts = row["counts"]
        status = "in_progress" if counts["in_progress"] else "completed"
        if row["cancelled_at"] is not None:
            status = "cancelled"
        return cls.model_validate({**row, "file_counts": counts, "status": status})


class SearchContent(WireObject):
    type: Literal["text"] = "text"
    text: str


class SearchResult(WireObject):
    file_id: str
    filename: str
    score: float
    attributes: dict[str, str | bool | int | float]
    content: list[SearchContent]


class SearchResults(WireObject):
    object: Literal["vector_store.search_results.page"] = "vector_store.search_results.page"
    search_query: list[str]
    data: list[SearchResult]
    has_more: bool = False
    next_page: str | None = None


class FileContent(WireObject):
    """The text of a file, page by page of the answer; here in one."""

    object: Literal["vector_store.file_content.page"] = "vector_store.file_content.page"
    data: list[SearchContent]
    has_more: bool = False
    next_page: str | None = None
