"""Why the server may refuse a request that a document allows: the whole list, with a request for each."""

import json
import re
from dataclasses import dataclass
from typing import Any

import httpx

from tests.contract.making import JSON, REAL, Request
from tests.contract.tour import MESSAGES, RUN, RUNS, STORE, UPLOAD

MAX_INTEGER = 2_147_483_647
WHOLE = (
    r"(bytes|seconds|days|max_num_results|max_(prompt|completion)_tokens|last_messages"
    r"|max_chunk_size_tokens|chunk_overlap_tokens)"
)


@dataclass(frozen=True)
class Reason:
    """Why a request that a document allows may be refused, and a request that is. Texts are whole regexes."""

    why: str
    example: Request
    message: str
    param: str | None = None
    code: str | None = None
    status: int = 400

    def __str__(self) -> str:
        return self.why

    def fits(self, response: httpx.Response) -> bool:
        error = response.json()["error"]
        return response.status_code == self.status and all(
            told is None if pattern is None else re.fullmatch(pattern, told or "", re.DOTALL) is not None
            for pattern, told in (
                (self.message, error["message"]),
                (self.param, error["param"]),
                (self.code, error["code"]),
            )
        )


def get(path: str, query: str = "") -> Request:
    return Request("GET", path.format(**REAL), query)


def post(path: str, **body: Any) -> Request:
    return Request("POST", path.format(**REAL), "", json.dumps(body).encode(), JSON)


def assistant(**fields: Any) -> Request:
    return post("/assistants", model="m", **fields)


def message(**fields: Any) -> Request:
    return post(MESSAGES, **{"role": "user", "content": "x"} | fields)


def run(**fields: Any) -> Request:
    return post(RUNS, **{"assistant_id": REAL["assistant_id"]} | fields)


def upload(**fields: Any) -> Request:
    return post("/uploads", **{"purpose": "vision", "filename": "a", "bytes": 1, "mime_type": "text/plain"} | fields)


def store(**fields: Any) -> Request:
    return post("/vector_stores", **fields)


def batch(**fields: Any) -> Request:
    return post(f"{STORE}/file_batches", **fields)


def search(**fields: Any) -> Request:
    return post(f"{STORE}/search", **{"query": "x"} | fields)


def chunked(size: int, overlap: int) -> Request:
    sizes = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    return store(chunking_strategy={"type": "static", "static": sizes})


def nested(depth: int) -> Any:
    """A filter of so many levels."""
    wanted: Any = {"type": "eq", "key": "k", "value": 1}
    for _ in range(depth - 1):
        wanted = {"type": "and", "filters": [wanted]}
    return wanted


def function(**fields: Any) -> Request:
    return assistant(tools=[{"type": "function", "function": fields}])


OF_BOTH = [
    Reason(
        "the id is of no object",
        get("/assistants/asst_x"),
        r"No (assistant|thread|message|run|run step|upload|vector store( file( batch)?)?) found with id '.*'\.",
        status=404,
    ),
    Reason(
        "the id is of no file",
        get("/files/x"),
        r"No such File object: .*",
        "id",
        status=404,
    ),
    Reason(
        "the id is of no file that could be put into a vector store",
        batch(file_ids=["x"]),
        r"No such File object: .*",
        "file_id",
        status=404,
    ),
    Reason(
        "the upload has no such parts",
        post(f"{UPLOAD}/complete", part_ids=["part_x"]),
        r"(No part of this upload found with id '.*'|Each part may be named once in 'part_ids')\.",
        "part_ids",
    ),
    Reason(
        "the cursor is no file",
        get("/files", "after=x"),
        r"Resource not found\.",
        "after",
        status=404,
    ),
    Reason(
        "the id is of another kind",
        get("/threads/x"),
        r"Invalid '\w+_id': '.*'\. Expected an ID that begins with '(asst|thread|msg|run|step|upload|vs_|vsfb_)'\.",
        r"\w+_id",
        "invalid_value",
    ),
    Reason(
        "a batch is of files in one of two ways",
        batch(file_ids=["x"], files=[{"file_id": "x"}]),
        r"Exactly one of 'file_ids' and 'files' has to be given, each with at least one file\.",
        code="invalid_value",
    ),
    Reason(
        "more than half of a chunk would overlap",
        chunked(100, 51),
        r"Invalid '.*': chunk_overlap_tokens must not exceed half of max_chunk_size_tokens, but .*",
        r".*chunking_strategy\.static",
        "invalid_value",
    ),
    Reason(
        "lists are for `in` and `nin`, and nothing else is",
        search(filters={"type": "in", "key": "k", "value": 1}),
        r"Invalid 'filters.*': the comparison '\w+' wants (an array|a string, a number or a boolean) as its value\.",
        r"filters.*",
        "invalid_value",
    ),
    Reason(
        "filters end somewhere",
        search(filters=nested(17)),
        r"Invalid 'filters': there may be 1000 filters, nested 16 levels deep, but these are \d+ in \d+ levels\.",
        "filters",
        "invalid_value",
    ),
    Reason(
        "the database keeps no integers of more than 64 bits",
        batch(file_ids=["x"], attributes={"k": 2**64}),
        r"Invalid '.*attributes': integers must fit into 64 bits\.",
        r".*attributes",
        "invalid_value",
    ),
    Reason(
        "the model is none",
        get("/models/none"),
        r"The model '.*' does not exist",
        "model",
        "model_not_found",
        status=404,
    ),
    Reason(
        "the run has ended",
        Request("POST", f"{RUN}/cancel".format(**REAL)),
        r"Cannot cancel run with status 'completed'\.",
    ),
    Reason(
        "the run waits for no outputs",
        post(f"{RUN}/submit_tool_outputs", tool_outputs=[]),
        r"Runs in status \"completed\" do not accept tool outputs\.",
    ),
    Reason(
        "the choice is of a tool that the run does not have",
        run(tool_choice={"type": "function", "function": {"name": "f"}}),
        r"Invalid value for 'tool_choice': .* is (not among the tools of this run|only allowed when 'tools' are .*)\.",
        "tool_choice",
        "invalid_value",
    ),
    Reason(
        "the database keeps no NUL characters",
        message(content="\0"),
        r"Strings must not hold the NUL character \(\\u0000\)\.",
        code="invalid_value",
    ),
    Reason(
        "the database keeps no NUL characters, so none is looked for",
        get("/assistants", "after=%00"),
        r"Paths and query strings must not hold the NUL character \(%00\)\.",
    ),
    Reason(
        "the database keeps no integers of more than 64 bits",
        function(name="f", parameters={"maximum": 2**64}),
        r"Invalid '.*': integers must fit into 64 bits\.",
        r".*(parameters|schema)",
        "invalid_value",
    ),
    Reason(
        "a decimal without a fraction is an integer for the schema only",
        run(max_prompt_tokens=300.0),
        r"Invalid type for '(.*)': expected an integer, but got a decimal instead\.",
        rf".*{WHOLE}",
        "invalid_type",
    ),
]
BY_DOCUMENT = [
    Reason(
        "a thread has one vector store, the server's own document says in prose only",
        post("/threads", tool_resources={"file_search": {"vector_store_ids": ["vs_x"], "vector_stores": [{}]}}),
        r"Invalid '(.*)': only one of 'vector_store_ids' and 'vector_stores' may name a vector store\.",
        r"(thread\.)?tool_resources\.file_search",
        "invalid_value",
    ),
]
BY_SCHEMA = [
    Reason(
        "the schema says how large an upload may be in prose only",
        upload(bytes=0),
        r"Invalid 'bytes': integer (above maximum|below minimum) value\. Expected a value (<= 8589934592|>= 1), but .*",
        "bytes",
        "integer_(above_max|below_min)_value",
    ),
    Reason(
        "nothing is made of no parts",
        post(f"{UPLOAD}/complete", part_ids=[]),
        r"Invalid 'part_ids': empty array\. Expected an array with minimum length 1, but got an empty array instead\.",
        "part_ids",
        "empty_array",
    ),
    Reason(
        "only a checksum is one",
        post(f"{UPLOAD}/complete", part_ids=["part_x"], md5=""),
        r"Invalid 'md5': string does not match pattern\. Expected a string that matches the pattern '.*'\.",
        "md5",
        "invalid_value",
    ),
    Reason(
        "the schema says that an output needs its id nowhere, the original's errors did",
        post(f"{RUN}/submit_tool_outputs", tool_outputs=[{}]),
        r"Missing required parameter: 'tool_outputs\[\d+\]\.tool_call_id'\.",
        r"tool_outputs\[\d+\]\.tool_call_id",
        "missing_required_parameter",
    ),
    Reason(
        "the schema says how much metadata there may be in prose only",
        assistant(metadata={str(number): "" for number in range(17)}),
        r"Invalid '(.*)': too many properties\. Expected an object with at most 16 properties, but got .*",
        r"(.*\.)?metadata",
        "object_above_max_properties",
    ),
    Reason(
        "the schema says how long metadata may be in prose only",
        assistant(metadata={"k": "v" * 513}),
        r"Invalid '(.*)': string too long\. Expected a string with maximum length 512, but got .*",
        r"(.*\.)?metadata\..*",
        "string_above_max_length",
    ),
    Reason(
        "the schema says how long names of metadata may be in prose only",
        assistant(metadata={"k" * 65: "v"}),
        r"Invalid property name in '.*': '.*' is too long\. Expected a string with maximum length 64, but got .*",
        r"(.*\.)?metadata\..*",
        "property_name_above_max_length",
    ),
    Reason(
        "the schema says what a limit may be in prose only",
        get("/assistants", "limit=101"),
        r"Invalid 'limit': integer (above maximum|below minimum) value\. Expected a value (<= 100|>= 1), but got .*",
        "limit",
        "integer_(above_max|below_min)_value",
    ),
    Reason(
        "the schema says what a limit of files may be in prose only",
        get("/files", "limit=10001"),
        r"limit must be between 1 and 10000\.",
        "limit",
    ),
    Reason(
        "the schema says what a name may be in prose only",
        function(name="no spaces"),
        r"Invalid '(.*)': string does not match pattern\. Expected a string that matches the pattern '.*'\.",
        r".*(function|json_schema)\.name",
        "invalid_value",
    ),
    Reason(
        "the schema says how long a name may be in prose only",
        function(name="n" * 65),
        r"Invalid '(.*)': string too long\. Expected a string with maximum length 64, but got .*",
        r".*(function|json_schema)\.name",
        "string_above_max_length",
    ),
    Reason(
        "a chunk overlaps by so much, the schema says in prose only",
        chunked(4096, -1),
        r"Invalid '.*': integer (above maximum|below minimum) value\. Expected a value (<= 2048|>= 0), but got .*",
        r".*\.chunk_overlap_tokens",
        "integer_(above_max|below_min)_value",
    ),
    Reason(
        "names and descriptions of vector stores end somewhere",
        store(name="n" * 513),
        r"Invalid '(name|description)': string too long\. Expected a string with maximum length 512, but got .*",
        "name|description",
        "string_above_max_length",
    ),
    Reason(
        "no id is so long",
        batch(file_ids=["x" * 257]),
        r"Invalid '.*': string too long\. Expected a string with maximum length 256, but got .*",
        r".*(file_id|file_ids\[\d+\])",
        "string_above_max_length",
    ),
    Reason(
        "nothing is looked for by nothing",
        search(query=[]),
        r"Invalid 'query.*': (empty array|string too short)\. Expected (an array|a string) with minimum length 1, .*",
        r"query.*",
        "empty_array|string_below_min_length",
    ),
    Reason(
        "queries end somewhere",
        search(query="x" * 4097),
        r"Invalid 'query.*': (array|string) too long\. Expected an? (array|string) with maximum length (16|4096), .*",
        r"query.*",
        "(array|string)_above_max_length",
    ),
    Reason(
        "no attribute is so long as to equal that",
        search(filters={"type": "eq", "key": "k", "value": "v" * 513}),
        r"Invalid 'filters.*': string too long\. Expected a string with maximum length (64|512), but got .*",
        r"filters.*",
        "string_above_max_length",
    ),
    Reason(
        "lists of filters end somewhere",
        search(filters={"type": "and", "filters": [nested(1)] * 101}),
        r"Invalid 'filters.*': array too long\. Expected an array with maximum length 100, but got .*",
        r"filters.*",
        "array_above_max_length",
    ),
    Reason(
        "nothing is named by an empty string",
        run(model=""),
        r"Invalid '(.*)': string too short\. Expected a string with minimum length 1, but got an empty string.*",
        r"(.*\.)?(model|assistant_id|file_id|file_ids\[\d+\]|filename|mime_type|url)",
        "string_below_min_length",
    ),
    Reason(
        "the database's integers end somewhere",
        run(max_completion_tokens=MAX_INTEGER + 1),
        rf"Invalid '.*': integer above maximum value\. Expected a value <= {MAX_INTEGER}, but got .*",
        r"max_(prompt|completion)_tokens|truncation_strategy\.last_messages",
        "integer_above_max_value",
    ),
    Reason(
        "the schema says of the array of attachments what is required of each",
        message(attachments=[{"tools": []}]),
        r"Missing required parameter: '.*attachments\[\d+\]\.(file_id|tools)'\.",
        r"(.*\.)?attachments\[\d+\]\.(file_id|tools)",
        "missing_required_parameter",
    ),
    Reason(
        "only a function is named by `tool_choice.function`",
        run(tool_choice={"type": "file_search", "function": {"name": "f"}}),
        r"Unknown parameter: 'tool_choice\.function'\.",
        r"tool_choice\.function",
        "unknown_parameter",
    ),
    Reason(
        "a function is named by `tool_choice.function` only",
        run(tool_choice={"type": "function"}),
        r"Missing required parameter: 'tool_choice\.function'\.",
        r"tool_choice\.function",
        "missing_required_parameter",
    ),
]
