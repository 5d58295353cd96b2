"""What several resources share: base classes, metadata, tools, tool resources, answers' formats, usage, lists."""

from collections.abc import Mapping
from typing import Annotated, Any, Generic, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError, PydanticKnownError

Json = dict[str, Any]


class RequestModel(BaseModel):
    """A request body: strict types, unknown parameters refused, null means the same as absent unless said."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WireObject(BaseModel):
    """An object of the API. Built from a row whose columns are named as the fields; other columns are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """The object of a row, whose columns are named as the fields."""
        return cls.model_validate(dict(row))

    def json_bytes(self) -> bytes:
        """Compact JSON, keys in wire order."""
        return self.model_dump_json().encode()


def few(value: object) -> object:
    """Refuse at once an object of so many properties that telling what is wrong with each would take long."""
    if isinstance(value, dict) and len(value) > MAX_JUDGED:
        raise PydanticKnownError(
            "too_long", {"field_type": "Dictionary", "max_length": 16, "actual_length": len(value)}
        )
    return value


MAX_JUDGED = 1000
MetadataKey = Annotated[str, StringConstraints(max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[dict[MetadataKey, MetadataValue], Field(max_length=16), BeforeValidator(few)]
"""16 pairs of strings. *Source*: schema."""

Temperature = Annotated[float, Field(ge=0, le=2)]
TopP = Annotated[float, Field(ge=0, le=1)]
ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
Instructions = Annotated[str, Field(max_length=256_000)]


def kept(value: Json) -> Json:
    """Refuse integers of more than 64 bits, which the database's JSON would not keep as they are."""
    left: list[object] = [value]
    while left:
        match left.pop():
            case bool():
                pass
            case int() as number if not -(2**63) <= number < 2**64:
                raise PydanticCustomError("invalid_value", "Invalid '$param': integers must fit into 64 bits.")
            case dict() as inner:
                left += inner.values()
            case list() as items:
                left += items
    return value


OpenJson = Annotated[Json, AfterValidator(kept)]
"""An object that only the client and its model understand."""


def _absent(value: object) -> bool:
    return value is None


# --- Tools. The same shapes come in and go out; what the server fills in is filled in here.


class CodeInterpreterTool(RequestModel):
    type: Literal["code_interpreter"]


class HybridSearch(RequestModel):
    embedding_weight: Annotated[float, Field(ge=0)]
    text_weight: Annotated[float, Field(ge=0)]


class RankingOptions(RequestModel):
    """*Source* of the defaults: recorded assistants."""

    ranker: Literal["auto", "default_2024_08_21"] = "default_2024_08_21"
    score_threshold: Annotated[float, Field(ge=0, le=1)] = 0.0
    hybrid_search: HybridSearch | None = None


class FileSearchOptions(RequestModel):
    max_num_results: Annotated[int | None, Field(ge=1, le=50, exclude_if=_absent)] = None
    ranking_options: RankingOptions = RankingOptions()


class FileSearchTool(RequestModel):
    type: Literal["file_search"]
    file_search: FileSearchOptions = FileSearchOptions()


class FunctionDefinition(RequestModel):
    """A function without parameters takes an empty object, and is not strict. *Source*: recorded assistants."""

    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=64)]
    description: Annotated[str | None, Field(exclude_if=_absent)] = None
    parameters: OpenJson = Field(default_factory=lambda: {"type": "object", "properties": {}})
    strict: bool | None = False


class FunctionTool(RequestModel):
    type: Literal["function"]
    function: FunctionDefinition


Tool = Annotated[CodeInterpreterTool | FunctionTool | FileSearchTool, Field(discriminator="type")]
Tools = Annotated[list[Tool], Field(max_length=128)]


# --- Tool resources


class CodeInterpreterResources(RequestModel):
    file_ids: Annotated[list[str], Field(max_length=20)] = []


class FileSearchResources(RequestModel):
    vector_store_ids: Annotated[list[str], Field(max_length=1)] = []


class ToolResources(RequestModel):
    """Files and vector stores of an assistant or a thread; a tool without an entry has no key."""

    code_interpreter: Annotated[CodeInterpreterResources | None, Field(exclude_if=_absent)] = None
    file_search: Annotated[FileSearchResources | None, Field(exclude_if=_absent)] = None


# --- How the model answers


class TextFormat(RequestModel):
    type: Literal["text"]


class JsonObjectFormat(RequestModel):
    type: Literal["json_object"]


class JsonSchema(RequestModel):
    name: Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_-]+$", max_length=64)]
    description: Annotated[str | None, Field(exclude_if=_absent)] = None
    # `schema` would hide a method of BaseModel
    schema_: Annotated[OpenJson | None, Field(alias="schema", serialization_alias="schema", exclude_if=_absent)] = None
    strict: bool | None = False

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, serialize_by_alias=True)


class JsonSchemaFormat(RequestModel):
    type: Literal["json_schema"]
    json_schema: JsonSchema


_FormatObject = Annotated[TextFormat | JsonObjectFormat | JsonSchemaFormat, Field(discriminator="type")]
ResponseFormat = Literal["auto"] | _FormatObject


class NamedFunction(RequestModel):
    name: str


class FunctionChoice(RequestModel):
    type: Literal["function"]
    function: NamedFunction


class CodeInterpreterChoice(RequestModel):
    type: Literal["code_interpreter"]


class FileSearchChoice(RequestModel):
    type: Literal["file_search"]


_NamedChoice = Annotated[FunctionChoice | CodeInterpreterChoice | FileSearchChoice, Field(discriminator="type")]
ToolChoice = Literal["none", "auto", "required"] | _NamedChoice


# --- Answers of several resources


class CachedTokens(WireObject):
    cached_tokens: int = 0


class ReasoningTokens(WireObject):
    reasoning_tokens: int = 0


class Usage(WireObject):
    """Tokens of a run or a step. The singular `token` is the original's. *Source*: recorded runs."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_token_details: CachedTokens = CachedTokens()
    completion_tokens_details: ReasoningTokens = ReasoningTokens()

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            prompt_tokens=self.prompt_tokens + other.prompt_tokens,
            completion_tokens=self.completion_tokens + other.completion_tokens,
            total_tokens=self.total_tokens + other.total_tokens,
            prompt_token_details=CachedTokens(
                cached_tokens=self.prompt_token_details.cached_tokens + other.prompt_token_details.cached_tokens
            ),
            completion_tokens_details=ReasoningTokens(
                reasoning_tokens=self.completion_tokens_details.reasoning_tokens
                + other.completion_tokens_details.reasoning_tokens
            ),
        )


NOTHING_USED = Usage(prompt_tokens=0, completion_tokens=0, total_tokens=0)
"""What is told where no token was used, or none is known of: never null after the end. *Source*: field reports."""


class LastError(WireObject):
    code: Literal["server_error", "rate_limit_exceeded", "invalid_prompt"]
    message: str


class Deleted(WireObject):
    """The answer to a delete."""

    id: str
    object: str
    deleted: Literal[True] = True


Item = TypeVar("Item", bound=WireObject)


class ErrorObject(WireObject):
    """What `errors.body` gives, as the documentation shows it."""

    message: str
    type: Literal["invalid_request_error", "server_error", "requests", "tokens"]
    param: str | None
    code: str | None


class ErrorResponse(WireObject):
    error: ErrorObject


class ObjectList(WireObject, Generic[Item]):
    """A page of a list, newest first unless asked otherwise."""

    object: Literal["list"] = "list"
    data: list[Item]
    first_id: str | None
    last_id: str | None
    has_more: bool


def object_list(objects: list[tuple[str, bytes]], has_more: bool, *, of_files: bool = False) -> bytes:
    """The JSON of a list from (id, JSON) pairs that are serialised already.

    Lists of files have another order of keys. *Source*: recorded lists.
    """
    first, last = (f'"{objects[0][0]}"', f'"{objects[-1][0]}"') if objects else ("null", "null")
    joined = b",".join(json for _, json in objects)
    ends, more = f'"first_id":{first},"last_id":{last}', f'"has_more":{"true" if has_more else "false"}'
    tail = f"],{more},{ends}}}" if of_files else f"],{ends},{more}}}"
    return b'{"object":"list","data":[' + joined + tail.encode()


MAX_DEPTH = 100


def refuse_deep(value: object, depth: int = 0) -> None:
    """Raise where a JSON value is nested more than `MAX_DEPTH` levels deep."""
    if not isinstance(value, dict | list):
        return
    if depth == MAX_DEPTH:
        raise PydanticCustomError(
            "invalid_value", "The request body is nested deeper than {limit} levels.", {"limit": MAX_DEPTH}
        )
    for item in value.values() if isinstance(value, dict) else value:
        refuse_deep(item, depth + 1)


def refuse_nul(value: object) -> None:
    """Raise where a string of a JSON value holds U+0000, which PostgreSQL cannot keep."""
    match value:
        case str() if "\0" in value:
            raise PydanticCustomError("invalid_value", "Strings must not hold the NUL character (\\u0000).")
        case dict():
            for key, item in value.items():
                refuse_nul(key)
                refuse_nul(item)
        case list():
            for item in value:
                refuse_nul(item)
        case _:
            pass
