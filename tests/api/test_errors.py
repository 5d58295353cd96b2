"""Bad input: every refusal has OpenAI's shape, says what is wrong, and nothing brings the server down."""

import copy
import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI

from adlatus.api.routers import MAX_BODY_BYTES
from adlatus.errors import BAD_JSON
from tests.api.placeholders import filled_in
from tests.conftest import Server

ASSISTANT, THREAD, MESSAGE, RUN, STEP = "asst_nothing", "thread_nothing", "msg_nothing", "run_nothing", "step_nothing"
FUNCTION = {"type": "function", "function": {"name": "f"}}
MAX_INTEGER = 2_147_483_647
REFUSALS = {400, 401, 403, 404, 405, 413, 415, 422}


Table = list[tuple[dict[str, Any], dict[str, Any]]]
"""Fields of a request, and the error that they bring."""


def error(message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    return {"error": {"message": message, "type": "invalid_request_error", "param": param, "code": code}}


def missing(param: str) -> dict[str, Any]:
    return error(f"Missing required parameter: '{param}'.", param, "missing_required_parameter")


def unknown(param: str) -> dict[str, Any]:
    return error(f"Unknown parameter: '{param}'.", param, "unknown_parameter")


def wrong_type(param: str, expected: str, got: str) -> dict[str, Any]:
    return error(f"Invalid type for '{param}': expected {expected}, but got {got} instead.", param, "invalid_type")


def no_value(param: str, value: str, supported: str) -> dict[str, Any]:
    return error(f"Invalid value: '{value}'. Supported values are: {supported}.", param, "invalid_value")


def too_long(param: str, limit: int, length: int) -> dict[str, Any]:
    return error(
        f"Invalid '{param}': string too long. Expected a string with maximum length {limit}, "
        f"but got a string with length {length} instead.",
        param,
        "string_above_max_length",
    )


def too_many(param: str, limit: int, length: int) -> dict[str, Any]:
    return error(
        f"Invalid '{param}': array too long. Expected an array with maximum length {limit}, "
        f"but got an array with length {length} instead.",
        param,
        "array_above_max_length",
    )


def above(param: str, number: str, limit: object, got: object) -> dict[str, Any]:
    return error(
        f"Invalid '{param}': {number} above maximum value. Expected a value <= {limit}, but got {got} instead.",
        param,
        f"{number}_above_max_value",
    )


def below(param: str, number: str, limit: object, got: object) -> dict[str, Any]:
    return error(
        f"Invalid '{param}': {number} below minimum value. Expected a value >= {limit}, but got {got} instead.",
        param,
        f"{number}_below_min_value",
    )


OF_ASSISTANTS: Table = [
    ({"model": None}, wrong_type("model", "a string", "null")),
    ({"model": 4}, wrong_type("model", "a string", "an integer")),
    (
        {"model": ""},
        error(
            "Invalid 'model': string too short. Expected a string with minimum length 1, "
            "but got an empty string instead.",
            "model",
            "string_below_min_length",
        ),
    ),
    ({"foo": 1}, unknown("foo")),
    ({"": 1}, unknown("")),
    ({"n" * 256: 1}, unknown("n" * 256)),
    ({"n" * 100_000: 1}, unknown("n" * 124 + "..." + "n" * 124)),
    ({"file_ids": []}, unknown("file_ids")),
    ({"tool_resources": {"foo": {}}}, unknown("tool_resources.foo")),
    ({"tool_resources": {"code_interpreter": {"foo": 1}}}, unknown("tool_resources.code_interpreter.foo")),
    ({"tools": [{"type": "code_interpreter", "foo": 1}]}, unknown("tools[0].foo")),
    ({"tools": [FUNCTION, {"type": "function", "function": {"name": "f", "x": 1}}]}, unknown("tools[1].function.x")),
    ({"name": "n" * 257}, too_long("name", 256, 257)),
    ({"description": "d" * 513}, too_long("description", 512, 513)),
    ({"instructions": "😀" * 256_001}, too_long("instructions", 256_000, 256_001)),
    ({"name": ["n"]}, wrong_type("name", "a string", "an array")),
    ({"temperature": "1"}, wrong_type("temperature", "a decimal", "a string")),
    ({"temperature": True}, wrong_type("temperature", "a decimal", "a boolean")),
    ({"temperature": 2.5}, above("temperature", "decimal", 2, 2.5)),
    ({"temperature": 1e300}, above("temperature", "decimal", 2, "1e+300")),
    ({"temperature": 10**30}, above("temperature", "decimal", 2, 10**30)),
    (
        {"tools": [{"type": "file_search", "file_search": {"max_num_results": 10**30}}]},
        above("tools[0].file_search.max_num_results", "integer", 50, 10**30),
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": [{"y": 2**64}]}}}]},
        error(
            "Invalid 'tools[0].function.parameters': integers must fit into 64 bits.",
            "tools[0].function.parameters",
            "invalid_value",
        ),
    ),
    ({"temperature": -1}, below("temperature", "decimal", 0, -1)),
    ({"top_p": 1.01}, above("top_p", "decimal", 1, 1.01)),
    ({"tools": "code_interpreter"}, wrong_type("tools", "an array", "a string")),
    ({"tools": ["code_interpreter"]}, wrong_type("tools[0]", "an object", "a string")),
    ({"tools": [{}]}, missing("tools[0].type")),
    ({"tools": [{"type": 5}]}, wrong_type("tools[0].type", "a string", "an integer")),
    (
        {"tools": [{"type": "retrieval"}]},
        no_value("tools[0].type", "retrieval", "'code_interpreter', 'function', and 'file_search'"),
    ),
    ({"tools": [{"type": "function"}]}, missing("tools[0].function")),
    ({"tools": [{"type": "function", "function": {}}]}, missing("tools[0].function.name")),
    (
        {"tools": [{"type": "function", "function": {"name": "no spaces"}}]},
        error(
            "Invalid 'tools[0].function.name': string does not match pattern. "
            "Expected a string that matches the pattern '^[a-zA-Z0-9_-]+$'.",
            "tools[0].function.name",
            "invalid_value",
        ),
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f" * 65}}]},
        too_long("tools[0].function.name", 64, 65),
    ),
    (
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": []}}]},
        wrong_type("tools[0].function.parameters", "an object", "an array"),
    ),
    ({"tools": [FUNCTION] * 129}, too_many("tools", 128, 129)),
    (
        {"tools": [{"type": "file_search", "file_search": {"max_num_results": 51}}]},
        above("tools[0].file_search.max_num_results", "integer", 50, 51),
    ),
    (
        {"tools": [{"type": "file_search", "file_search": {"ranking_options": {"score_threshold": -0.5}}}]},
        below("tools[0].file_search.ranking_options.score_threshold", "decimal", 0, -0.5),
    ),
    (
        {"tool_resources": {"code_interpreter": {"file_ids": ["file-1"] * 21}}},
        too_many("tool_resources.code_interpreter.file_ids", 20, 21),
    ),
    (
        {"tool_resources": {"file_search": {"vector_store_ids": ["vs_1", "vs_2"]}}},
        too_many("tool_resources.file_search.vector_store_ids", 1, 2),
    ),
    (
        {"tool_resources": {"code_interpreter": {"file_ids": [5]}}},
        wrong_type("tool_resources.code_interpreter.file_ids[0]", "a string", "an integer"),
    ),
    (
        {"reasoning_effort": "extreme"},
        no_value("reasoning_effort", "extreme", "'none', 'minimal', 'low', 'medium', 'high', 'xhigh', and 'max'"),
    ),
    ({"response_format": 5}, wrong_type("response_format", "one of a string or object", "an integer")),
    ({"response_format": {}}, missing("response_format.type")),
    (
        {"response_format": {"type": "xml"}},
        no_value("response_format.type", "xml", "'text', 'json_object', and 'json_schema'"),
    ),
    ({"response_format": {"type": "json_schema"}}, missing("response_format.json_schema")),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"schema": {}}}},
        missing("response_format.json_schema.name"),
    ),
    (
        {"response_format": "json_object"},
        error("Invalid value: 'json_object'. Value must be 'auto'.", "response_format", "invalid_value"),
    ),
]
OF_METADATA: Table = [
    ({"metadata": "x"}, wrong_type("metadata", "an object", "a string")),
    ({"metadata": []}, wrong_type("metadata", "an object", "an array")),
    ({"metadata": {"k": 1}}, wrong_type("metadata.k", "a string", "an integer")),
    ({"metadata": {"k": None}}, wrong_type("metadata.k", "a string", "null")),
    ({"metadata": {"k": {"deep": "er"}}}, wrong_type("metadata.k", "a string", "an object")),
    ({"metadata": {"k": "v" * 513}}, too_long("metadata.k", 512, 513)),
    (
        {"metadata": {str(number): "" for number in range(17)}},
        error(
            "Invalid 'metadata': too many properties. Expected an object with at most 16 properties, "
            "but got an object with 17 properties instead.",
            "metadata",
            "object_above_max_properties",
        ),
    ),
    (
        {"metadata": {"k" * 70: "v"}},
        error(
            f"Invalid property name in 'metadata': '{'k' * 28}...{'k' * 28}' is too long. "
            "Expected a string with maximum length 64, but got a string with length 70 instead.",
            f"metadata.{'k' * 70}",
            "property_name_above_max_length",
        ),
    ),
]
OF_MESSAGES: Table = [
    ({"role": None}, wrong_type("role", "a string", "null")),
    ({"role": "system"}, no_value("role", "system", "'user' and 'assistant'")),
    ({"content": None}, wrong_type("content", "one of a string or array of objects", "null")),
    ({"content": 5}, wrong_type("content", "one of a string or array of objects", "an integer")),
    ({"content": True}, wrong_type("content", "one of a string or array of objects", "a boolean")),
    ({"content": {}}, wrong_type("content", "one of a string or array of objects", "an object")),
    (
        {"content": []},
        error(
            "Invalid 'content': empty array. Expected an array with minimum length 1, but got an empty array instead.",
            "content",
            "empty_array",
        ),
    ),
    ({"content": [{"type": "text", "text": ""}] * 1001}, too_many("content", 1000, 1001)),
    ({"content": "😀" * 256_001}, too_long("content", 256_000, 256_001)),
    ({"content": [{"type": "text", "text": "x" * 256_001}]}, too_long("content[0].text", 256_000, 256_001)),
    ({"content": ["x"]}, wrong_type("content[0]", "an object", "a string")),
    ({"content": [{"text": "x"}]}, missing("content[0].type")),
    ({"content": [{"type": "text"}]}, missing("content[0].text")),
    ({"content": [{"type": "text", "text": {"value": "x"}}]}, wrong_type("content[0].text", "a string", "an object")),
    (
        {"content": [{"type": "video"}]},
        no_value("content[0].type", "video", "'text', 'image_url', and 'image_file'"),
    ),
    ({"content": [{"type": "image_url"}]}, missing("content[0].image_url")),
    ({"content": [{"type": "image_url", "image_url": {}}]}, missing("content[0].image_url.url")),
    (
        {"content": [{"type": "image_url", "image_url": "https://x"}]},
        wrong_type("content[0].image_url", "an object", "a string"),
    ),
    (
        {"content": [{"type": "image_url", "image_url": {"url": "https://x", "detail": "huge"}}]},
        no_value("content[0].image_url.detail", "huge", "'auto', 'low', and 'high'"),
    ),
    ({"content": [{"type": "image_file", "image_file": {}}]}, missing("content[0].image_file.file_id")),
    ({"attachments": {}}, wrong_type("attachments", "an array", "an object")),
    ({"attachments": [{}]}, missing("attachments[0].file_id")),
    ({"attachments": [{"file_id": "file-1"}]}, missing("attachments[0].tools")),
    (
        {"attachments": [{"file_id": "file-1", "tools": [{"type": "function"}]}]},
        no_value("attachments[0].tools[0].type", "function", "'code_interpreter' and 'file_search'"),
    ),
    ({"run_id": "run_1"}, unknown("run_id")),
    ({"status": "completed"}, unknown("status")),
]
OF_THREADS: Table = [
    ({"messages": 5}, wrong_type("messages", "an array", "an integer")),
    ({"messages": [5]}, wrong_type("messages[0]", "an object", "an integer")),
    ({"messages": [{"role": "user"}]}, missing("messages[0].content")),
    ({"messages": [{"content": "x"}]}, missing("messages[0].role")),
    (
        {"messages": [{"role": "user", "content": "x"}, {"role": "user", "content": "x", "foo": 1}]},
        unknown("messages[1].foo"),
    ),
    ({"messages": [{"role": "user", "content": "x" * 256_001}]}, too_long("messages[0].content", 256_000, 256_001)),
    (
        {"messages": [{"role": "user", "content": "x", "metadata": {"k": 1}}]},
        wrong_type("messages[0].metadata.k", "a string", "an integer"),
    ),
    ({"tool_resources": []}, wrong_type("tool_resources", "an object", "an array")),
]
OF_RUNS: Table = [
    ({"assistant_id": 5}, wrong_type("assistant_id", "a string", "an integer")),
    ({"assistant_id": None}, wrong_type("assistant_id", "a string", "null")),
    ({"stream": "yes"}, wrong_type("stream", "a boolean", "a string")),
    ({"parallel_tool_calls": 1}, wrong_type("parallel_tool_calls", "a boolean", "an integer")),
    ({"max_prompt_tokens": 255}, below("max_prompt_tokens", "integer", 256, 255)),
    ({"max_completion_tokens": 300.0}, wrong_type("max_completion_tokens", "an integer", "a decimal")),
    ({"max_prompt_tokens": MAX_INTEGER + 1}, above("max_prompt_tokens", "integer", MAX_INTEGER, MAX_INTEGER + 1)),
    ({"max_completion_tokens": 2**63}, above("max_completion_tokens", "integer", MAX_INTEGER, 2**63)),
    ({"truncation_strategy": {}}, missing("truncation_strategy.type")),
    (
        {"truncation_strategy": {"type": "last_messages", "last_messages": 10**30}},
        above("truncation_strategy.last_messages", "integer", MAX_INTEGER, 10**30),
    ),
    (
        {"truncation_strategy": {"type": "last_messages", "last_messages": 0}},
        below("truncation_strategy.last_messages", "integer", 1, 0),
    ),
    (
        {"truncation_strategy": {"type": "none"}},
        no_value("truncation_strategy.type", "none", "'auto' and 'last_messages'"),
    ),
    ({"tool_choice": "any"}, no_value("tool_choice", "any", "'none', 'auto', and 'required'")),
    ({"tool_choice": {"type": "function"}}, missing("tool_choice.function")),
    ({"tool_choice": {"type": "function", "function": {}}}, missing("tool_choice.function.name")),
    ({"foo": None}, unknown("foo")),
]


@pytest.mark.parametrize(("fields", "expected"), OF_ASSISTANTS + OF_METADATA)
def test_a_bad_assistant_is_refused_on_creation_and_on_change(
    http: httpx.Client, fields: dict[str, Any], expected: dict[str, Any]
) -> None:
    made = http.post("/assistants", json={"model": "m"}).json()
    response = http.post("/assistants", json={"model": "m"} | fields)
    assert (response.status_code, response.json()) == (400, expected)
    if fields != {"model": None}:  # means no change
        changed = http.post(f"/assistants/{made['id']}", json=fields)
        assert (changed.status_code, changed.json()) == (400, expected)
    assert http.get("/assistants").json()["data"] == [made]


@pytest.mark.parametrize(("fields", "expected"), OF_THREADS + OF_METADATA)
def test_a_bad_thread_is_refused(http: httpx.Client, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    for path, body, prefix in (("/threads", fields, ""), ("/threads/runs", {"thread": fields}, "thread.")):
        response = http.post(path, json=body | ({"assistant_id": ASSISTANT} if prefix else {}))
        assert response.status_code == 400
        param = expected["error"]["param"]
        assert response.json()["error"]["param"] == f"{prefix}{param}"
        assert response.json()["error"]["code"] == expected["error"]["code"]
        if not prefix:
            assert response.json() == expected


@pytest.mark.parametrize(("fields", "expected"), OF_MESSAGES + OF_METADATA)
def test_a_bad_message_is_refused(http: httpx.Client, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    thread_id = http.post("/threads").json()["id"]
    response = http.post(f"/threads/{thread_id}/messages", json={"role": "user", "content": "x"} | fields)
    assert (response.status_code, response.json()) == (400, expected)
    assert http.get(f"/threads/{thread_id}/messages").json()["data"] == []


@pytest.mark.parametrize(("fields", "expected"), OF_RUNS + OF_METADATA)
def test_a_bad_run_is_refused(http: httpx.Client, fields: dict[str, Any], expected: dict[str, Any]) -> None:
    thread_id = http.post("/threads").json()["id"]
    for path in (f"/threads/{thread_id}/runs", "/threads/runs"):
        response = http.post(path, json={"assistant_id": ASSISTANT} | fields)
        assert (response.status_code, response.json()) == (400, expected)
    assert http.get(f"/threads/{thread_id}/runs").json()["data"] == []


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/assistants", "model"),
        (f"/threads/{THREAD}/messages", "role"),
        (f"/threads/{THREAD}/runs", "assistant_id"),
        ("/threads/runs", "assistant_id"),
    ],
)
def test_an_empty_body_lacks_what_is_required(http: httpx.Client, path: str, param: str) -> None:
    for body in (b"", b"  ", b"{}"):
        response = http.post(path, content=body, headers={"content-type": "application/json"})
        assert (response.status_code, response.json()) == (400, missing(param))


NO_OBJECT = {"null": "null", "[]": "an array", "[{}]": "an array", "5": "an integer", "1.5": "a decimal",
             '"{}"': "a string", "true": "a boolean"}  # fmt: skip
NO_JSON = [
    b"{",
    b"{}{}",
    b'{"model": "m"',
    b"{'model': 'm'}",
    b'{"model": "m",}',
    b"model=m",
    b"\xff\xfe",
    b"\x00",
    b'\xef\xbb\xbf{"model": "m"}',
    b'{"model": "\xed\xa0\x80"}',
    b'{"model": "\\ud800"}',
    b'{"model": "\\udc00\\ud800"}',
    b'{"model": "m", "temperature": NaN}',
    b'{"model": "m", "temperature": Infinity}',
    b'{"model": "m", "temperature": 1e999}',
    b'{"model": "m", "temperature": ' + b"9" * 5000 + b"}",
    b'{"model": "m\n"}',
    b"[" * 100_000,
    b'{"model":' * 2000 + b"1" + b"}" * 2000,
]


@pytest.mark.parametrize("body", NO_JSON)
def test_a_body_that_is_no_json_is_refused(http: httpx.Client, body: bytes) -> None:
    response = http.post("/assistants", content=body, headers={"content-type": "application/json"})
    assert (response.status_code, response.json()) == (400, error(BAD_JSON))


@pytest.mark.parametrize(("body", "noun"), NO_OBJECT.items())
def test_a_body_that_is_no_object_is_refused(http: httpx.Client, body: str, noun: str) -> None:
    response = http.post("/threads", content=body, headers={"content-type": "application/json"})
    message = f"Invalid type for the request body: expected an object, but got {noun} instead."
    assert (response.status_code, response.json()) == (400, error(message, None, "invalid_type"))


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"a": value}
    return value


def test_a_body_may_be_nested_a_hundred_levels_deep_and_no_deeper(http: httpx.Client) -> None:
    def assistant(depth: int) -> dict[str, Any]:  # tools, tool, function, parameters are levels too
        function = {"name": "f", "parameters": nested(depth - 4)}
        return {"model": "m", "tools": [{"type": "function", "function": function}]}

    deepest = http.post("/assistants", json=assistant(100))
    assert deepest.status_code == 200
    assert deepest.json()["tools"][0]["function"]["parameters"] == nested(96)
    for depth in (101, 260, 500, 900):
        response = http.post("/assistants", json=assistant(depth))
        message = "The request body is nested deeper than 100 levels."
        assert (response.status_code, response.json()) == (400, error(message, None, "invalid_value")), depth


@pytest.mark.parametrize(
    "body",
    [
        '{"model": "a\\u0000b"}',
        '{"a\\u0000b": 1, "model": "m"}',
        '{"model": "m", "metadata": {"k": "\\u0000"}}',
        '{"model": "m", "metadata": {"\\u0000": "v"}}',
        '{"model": "m", "tools": [{"type": "function", "function": {"name": "f", "parameters": {"x": ["\\u0000"]}}}]}',
    ],
)
def test_nul_characters_in_a_body_are_refused(http: httpx.Client, body: str) -> None:
    response = http.post("/assistants", content=body, headers={"content-type": "application/json"})
    message = "Strings must not hold the NUL character (\\u0000)."
    assert (response.status_code, response.json()) == (400, error(message, None, "invalid_value"))


def test_an_escaped_backslash_before_u0000_is_no_nul_character(http: httpx.Client) -> None:
    response = http.post("/assistants", json={"model": "a\\u0000b"})
    assert response.json()["model"] == "a\\u0000b"


@pytest.mark.parametrize(
    "path",
    [
        "/assistants/asst_%00",
        "/threads/thread_a%00b/messages",
        "/%00",
        "/assistants?after=%00",
        "/assistants?%00=1",
        "/threads/thread_1/messages?run_id=a%00",
    ],
)
def test_nul_characters_in_paths_and_queries_are_refused(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    expected = error("Paths and query strings must not hold the NUL character (%00).")
    assert (response.status_code, response.json()) == (400, expected)


@pytest.mark.parametrize(
    "content_type",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json", "*/*"],
)
def test_a_body_that_is_not_called_json_is_refused(http: httpx.Client, content_type: str) -> None:
    response = http.post("/threads", content=b"{}", headers={"content-type": content_type})
    named = content_type.partition(";")[0] or "none"
    assert response.status_code == 400
    assert response.json() == error(
        f"Invalid Content-Type header ({named}), expected application/json. (HINT: If you're using curl, you can pass "
        "-H 'Content-Type: application/json')"
    )


@pytest.mark.parametrize(
    "content_type", ["application/json", "Application/JSON; charset=UTF-8", "application/vnd.api+json"]
)
def test_json_may_be_called_json_in_several_ways(http: httpx.Client, content_type: str) -> None:
    response = http.post("/threads", content=b'{"metadata": {"a": "b"}}', headers={"content-type": content_type})
    assert response.json()["metadata"] == {"a": "b"}


def test_a_body_that_never_ends_is_not_read_to_its_end(http: httpx.Client) -> None:
    piece = b" " * 2**20

    def pieces() -> Iterator[bytes]:
        for _ in range(MAX_BODY_BYTES // len(piece) + 1):
            yield piece

    for path in ("/threads", "/assistants"):
        response = http.post(path, content=pieces(), headers={"content-type": "application/json"})
        assert response.status_code == 413
        assert list(response.json()["error"]) == ["message", "type", "param", "code"]
    assert http.post("/threads", content=piece, headers={"content-type": "application/json"}).status_code == 200


NO_ID = [
    ("GET", "/assistants/{}", "assistant_id", "asst", "assistant"),
    ("POST", "/assistants/{}", "assistant_id", "asst", "assistant"),
    ("DELETE", "/assistants/{}", "assistant_id", "asst", "assistant"),
    ("GET", "/threads/{}", "thread_id", "thread", "thread"),
    ("POST", "/threads/{}", "thread_id", "thread", "thread"),
    ("DELETE", "/threads/{}", "thread_id", "thread", "thread"),
    ("GET", "/threads/{}/messages", "thread_id", "thread", "thread"),
    ("GET", "/threads/{}/runs", "thread_id", "thread", "thread"),
    ("GET", f"/threads/{THREAD}/messages/{{}}", "message_id", "msg", "message"),
    ("POST", f"/threads/{THREAD}/messages/{{}}", "message_id", "msg", "message"),
    ("DELETE", f"/threads/{THREAD}/messages/{{}}", "message_id", "msg", "message"),
    ("GET", f"/threads/{THREAD}/runs/{{}}", "run_id", "run", "run"),
    ("POST", f"/threads/{THREAD}/runs/{{}}", "run_id", "run", "run"),
    ("POST", f"/threads/{THREAD}/runs/{{}}/cancel", "run_id", "run", "run"),
    ("POST", f"/threads/{THREAD}/runs/{{}}/submit_tool_outputs", "run_id", "run", "run"),
    ("GET", f"/threads/{THREAD}/runs/{{}}/steps", "run_id", "run", "run"),
    ("GET", f"/threads/{THREAD}/runs/{RUN}/steps/{{}}", "step_id", "step", "run step"),
    ("GET", "/vector_stores/{}", "vector_store_id", "vs_", "vector store"),
    ("POST", "/vector_stores/{}/search", "vector_store_id", "vs_", "vector store"),
    ("GET", "/vector_stores/{}/files", "vector_store_id", "vs_", "vector store"),
]


BODIES: dict[str, Any] = {"submit_tool_outputs": {"tool_outputs": []}, "search": {"query": "x"}}
"""What must be sent along, by the end of the path."""


@pytest.mark.parametrize(("method", "path", "param", "prefix", "noun"), NO_ID)
def test_ids_of_the_wrong_kind_are_told_from_ids_of_nothing(
    http: httpx.Client, method: str, path: str, param: str, prefix: str, noun: str
) -> None:
    for wrong in ("1234", "file-1", "x" * 100, "😀", "null"):
        response = http.request(method, path.format(wrong))
        message = f"Invalid '{param}': '{wrong}'. Expected an ID that begins with '{prefix}'."
        assert (response.status_code, response.json()) == (400, error(message, param, "invalid_value"))
    prefix = prefix.removesuffix("_")
    for nothing in (f"{prefix}_nothing", f"{prefix}_é'\"<>", f"{prefix}_{'x' * 3000}"):
        response = http.request(method, path.format(nothing), json=BODIES.get(path.rpartition("/")[2]))
        message = f"No {noun} found with id '{nothing}'."
        assert (response.status_code, response.json()) == (404, error(message))


@pytest.mark.parametrize("path", ["/threads/runs", "/threads/{thread}/runs"])
def test_a_run_of_an_assistant_that_does_not_exist_is_refused(http: httpx.Client, path: str) -> None:
    thread_id = http.post("/threads").json()["id"]
    response = http.post(path.format(thread=thread_id), json={"assistant_id": ASSISTANT})
    assert (response.status_code, response.json()) == (404, error(f"No assistant found with id '{ASSISTANT}'."))
    assert [thread["id"] for thread in http.get("/threads").json()["data"]] == [thread_id]


@pytest.mark.parametrize(
    "path",
    [
        f"/threads/{THREAD}",
        f"/threads/{THREAD}/messages",
        f"/threads/{THREAD}/messages/{MESSAGE}",
        f"/threads/{THREAD}/runs",
        f"/threads/{THREAD}/runs/{RUN}",
    ],
)
def test_what_is_below_a_thread_that_does_not_exist_is_refused(http: httpx.Client, path: str) -> None:
    body = {"role": "user", "content": "x"} if path.endswith("messages") else {}
    if path.endswith("runs"):
        body = {"assistant_id": http.post("/assistants", json={"model": "m"}).json()["id"]}
    assert http.post(path, json=body).status_code == 404


RESULTS = "step_details.tool_calls[*].file_search.results[*].content"


@pytest.mark.parametrize("brackets", ["[]", "%5B%5D", "%5b%5d"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "runs"), ("GET", f"runs/{RUN}/steps"), ("GET", f"runs/{RUN}/steps/{STEP}")]
)
def test_what_may_be_included_is_checked_however_its_brackets_are_written(
    http: httpx.Client, server: Server, method: str, path: str, brackets: str
) -> None:
    url = f"{server.base_url}/threads/{THREAD}/{path}"
    body = {"assistant_id": ASSISTANT} if method == "POST" else None
    for included in (RESULTS, f"{RESULTS}&include{brackets}={RESULTS}"):
        response = http.request(method, f"{url}?include{brackets}={included}", json=body)
        assert response.status_code == 404, "past the query, to the thread that does not exist"
    for included, index in (("content", 0), ("", 0), (f"{RESULTS}&include{brackets}=content", 1)):
        response = http.request(method, f"{url}?include{brackets}={included}", json=body)
        value = included.rpartition("=")[2]
        expected = error(f"Invalid value: '{value}'. Value must be '{RESULTS}'.", f"include[{index}]", "invalid_value")
        assert (response.status_code, response.json()) == (400, expected)


@pytest.mark.parametrize("limit", ["5.0", "1_0", "%205", "%2B5", "", "x", "%D9%A3", "9" * 5000])
def test_a_limit_is_written_in_digits(http: httpx.Client, limit: str) -> None:
    response = http.get(f"/assistants?limit={limit}")
    assert (response.status_code, response.json()) == (400, wrong_type("limit", "an integer", "a string"))


@pytest.mark.parametrize(
    "query", ["foo=1", "include=x", "api-version=2024-05-01-preview", "%5B%5D", "&&=&", "limit[]=x"]
)
def test_query_parameters_that_nobody_knows_are_passed_over(http: httpx.Client, query: str) -> None:
    assert http.get(f"/assistants?{query}").json()["data"] == []
    assert http.post(f"/threads?{query}").status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/assistants"),
        ("DELETE", "/assistants"),
        ("PATCH", f"/assistants/{ASSISTANT}"),
        ("PUT", f"/threads/{THREAD}"),
        ("DELETE", f"/threads/{THREAD}/runs/{RUN}"),
        ("PUT", f"/threads/{THREAD}/messages"),
        ("OPTIONS", "/assistants"),
        ("TRACE", "/assistants"),
    ],
)
def test_a_method_that_a_path_does_not_have_is_refused(http: httpx.Client, method: str, path: str) -> None:
    response = http.request(method, path)
    shown = response.json()["error"]
    assert response.status_code == 405
    assert shown["message"].startswith(f"Not allowed to {method} on /v1{path}")
    assert (shown["type"], shown["param"], shown["code"]) == ("invalid_request_error", None, None)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("GET", "/"),
        ("GET", "/nothing"),
        ("POST", "/audio/speech"),
        ("GET", "/assistants/"),
        ("GET", "//assistants"),
        ("GET", f"/assistants/{ASSISTANT}/files"),
        ("DELETE", f"/threads/{THREAD}/runs/{RUN}/steps/{STEP}/x"),
    ],
)
def test_a_route_that_does_not_exist_is_told_with_a_hint(
    http: httpx.Client, server: Server, method: str, path: str
) -> None:
    response = http.request(method, f"{server.url}/v1{path}")
    message = (
        f"Invalid URL ({method} /v1{path}) (HINT: this server does not offer that endpoint; "
        "/docs lists those that it does)."
    )
    assert (response.status_code, response.json()) == (404, error(message))


@pytest.mark.parametrize("path", ["/", "/assistants", "/threads/thread_1/messages", "/v2/assistants", "/v1x"])
def test_a_path_without_v1_is_told_where_the_api_lives(http: httpx.Client, server: Server, path: str) -> None:
    response = http.get(f"{server.url}{path}")
    message = f"Invalid URL (GET {path}) (HINT: the API lives under /v1: set base_url to {server.url}/v1)."
    assert (response.status_code, response.json()) == (404, error(message))


BETA_REFUSALS = {
    None: "You must provide the 'OpenAI-Beta' header to access the Assistants API. Please try again by setting the "
    "header 'OpenAI-Beta: assistants=v2'.",
    "": "Invalid beta header provided: ''. The header should be in the format 'OpenAI-Beta: example_beta=v1'.",
    "v1": "Invalid beta header provided: 'v1'. The header should be in the format 'OpenAI-Beta: example_beta=v1'.",
    "assistants": "Invalid beta header provided: 'assistants'. "
    "The header should be in the format 'OpenAI-Beta: example_beta=v1'.",
    "assistants=": "Invalid beta header provided: 'assistants='. "
    "The header should be in the format 'OpenAI-Beta: example_beta=v1'.",
    "assistants=v1": "The v1 Assistants API has been deprecated. See the migration guide for more information: "
    "https://platform.openai.com/docs/assistants/migration.",
    "assistants=v3": "Unknown beta requested: 'assistants'.",
    "vector_stores=v1": "Unknown beta requested: 'vector_stores'.",
    "assistants=v2, realtime=v1": "Unknown beta requested: 'realtime'.",
}


@pytest.mark.parametrize(("header", "message"), BETA_REFUSALS.items())
@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/assistants"), ("POST", "/threads"), ("GET", f"/threads/{THREAD}/runs/{RUN}/steps")]
)
def test_the_beta_header_must_ask_for_version_two(
    http: httpx.Client, method: str, path: str, header: str | None, message: str
) -> None:
    del http.headers["OpenAI-Beta"]
    response = http.request(method, path, headers={} if header is None else {"OpenAI-Beta": header})
    assert (response.status_code, response.json()) == (400, error(message, None, "invalid_beta"))


def test_models_need_no_beta_header(http: httpx.Client) -> None:
    del http.headers["OpenAI-Beta"]
    assert http.get("/models").status_code == 200


def test_a_model_that_does_not_exist_is_told_by_name(http: httpx.Client) -> None:
    response = http.get("/models/no/such:model")
    expected = error("The model 'no/such:model' does not exist", "model", "model_not_found")
    assert (response.status_code, response.json()) == (404, expected)


def test_the_sdk_raises_its_own_errors(sdk: OpenAI) -> None:
    with pytest.raises(BadRequestError) as refused:
        sdk.beta.assistants.create(model="m", temperature=3)
    assert (refused.value.param, refused.value.code) == ("temperature", "decimal_above_max_value")
    assert refused.value.request_id is not None
    with pytest.raises(NotFoundError) as absent:
        sdk.beta.threads.runs.retrieve(RUN, thread_id=THREAD)
    assert absent.value.body == error(f"No run found with id '{RUN}'.")["error"]


# --- Every route that takes a body, under fire

RUN_SETTINGS: dict[str, Any] = {
    "assistant_id": ASSISTANT,
    "model": "m",
    "instructions": "i",
    "tools": [FUNCTION],
    "metadata": {"k": "v"},
    "temperature": 1,
    "top_p": 1,
    "stream": False,
    "max_prompt_tokens": 256,
    "max_completion_tokens": 256,
    "truncation_strategy": {"type": "last_messages", "last_messages": 3},
    "tool_choice": {"type": "function", "function": {"name": "f"}},
    "parallel_tool_calls": True,
    "response_format": {"type": "json_object"},
    "reasoning_effort": "low",
}
VALID: dict[str, dict[str, Any]] = {
    "/v1/assistants": {
        "model": "m",
        "name": "n",
        "description": "d",
        "instructions": "i",
        "tools": [{"type": "file_search", "file_search": {"max_num_results": 5}}, FUNCTION],
        "tool_resources": {
            "code_interpreter": {"file_ids": ["file-1"]},
            "file_search": {"vector_store_ids": ["vs_1"]},
        },
        "metadata": {"k": "v"},
        "temperature": 1,
        "top_p": 1,
        "reasoning_effort": "low",
        "response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
    },
    "/v1/threads": {
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}],
        "tool_resources": {"code_interpreter": {"file_ids": ["file-1"]}},
        "metadata": {"k": "v"},
    },
    "/v1/threads/{thread_id}": {
        "tool_resources": {"code_interpreter": {"file_ids": ["file-1"]}},
        "metadata": {"k": "v"},
    },
    "/v1/threads/{thread_id}/messages": {
        "role": "user",
        "content": [
            {"type": "text", "text": "x"},
            {"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}},
            {"type": "image_file", "image_file": {"file_id": "file-1"}},
        ],
        "attachments": [{"file_id": "file-1", "tools": [{"type": "code_interpreter"}]}],
        "metadata": {"k": "v"},
    },
    "/v1/threads/{thread_id}/messages/{message_id}": {"metadata": {"k": "v"}},
    "/v1/threads/{thread_id}/runs": {
        **RUN_SETTINGS,
        "additional_instructions": "a",
        "additional_messages": [{"role": "user", "content": "x", "attachments": [], "metadata": {}}],
    },
    "/v1/threads/{thread_id}/runs/{run_id}": {"metadata": {"k": "v"}},
    "/v1/threads/{thread_id}/runs/{run_id}/cancel": {},
    "/v1/threads/{thread_id}/runs/{run_id}/submit_tool_outputs": {
        "tool_outputs": [{"tool_call_id": "call_x", "output": "x"}],
        "stream": False,
    },
}
VALID["/v1/assistants/{assistant_id}"] = VALID["/v1/assistants"]
VALID["/v1/threads/runs"] = {
    **RUN_SETTINGS,
    "thread": VALID["/v1/threads"],
    "tool_resources": {"code_interpreter": {"file_ids": []}},
}
VALID |= {
    "/v1/chat/completions": {"model": "m", "messages": [{"role": "user", "content": "x"}], "stream": False},
    "/v1/completions": {"model": "m", "prompt": "x"},
    "/v1/embeddings": {"model": "m", "input": "x"},
    "/v1/moderations": {"model": "m", "input": "x"},
    "/v1/responses": {"model": "m", "input": "x"},
}
VALID |= {
    "/v1/uploads": {
        **{"purpose": "vision", "filename": "a", "bytes": 1, "mime_type": "text/plain"},
        "expires_after": {"anchor": "created_at", "seconds": 3600},
    },
    "/v1/uploads/{upload_id}/complete": {"part_ids": ["part_x"], "md5": "0" * 32},
    "/v1/uploads/{upload_id}/cancel": {},
}
STATIC = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
VALID |= {
    "/v1/vector_stores": {
        "file_ids": ["file-1"],
        "name": "n",
        "description": "d",
        "expires_after": {"anchor": "last_active_at", "days": 3},
        "chunking_strategy": STATIC,
        "metadata": {"k": "v"},
    },
    "/v1/vector_stores/{vector_store_id}": {
        "name": "n",
        "expires_after": {"anchor": "last_active_at", "days": 3},
        "metadata": {"k": "v"},
    },
    "/v1/vector_stores/{vector_store_id}/files": {
        "file_id": "file-1",
        "chunking_strategy": STATIC,
        "attributes": {"k": "v", "n": 1.5, "b": True},
    },
    "/v1/vector_stores/{vector_store_id}/files/{file_id}": {"attributes": {"k": "v", "n": 1.5, "b": True}},
    "/v1/vector_stores/{vector_store_id}/file_batches": {
        "files": [{"file_id": "file-1", "chunking_strategy": STATIC, "attributes": {"k": 1}}],
        "chunking_strategy": {"type": "auto"},
        "attributes": {"k": "v"},
    },
    "/v1/vector_stores/{vector_store_id}/file_batches/{batch_id}/cancel": {},
    "/v1/vector_stores/{vector_store_id}/search": {
        "query": ["q"],
        "rewrite_query": False,
        "max_num_results": 5,
        "filters": {
            "type": "and",
            "filters": [{"type": "in", "key": "k", "value": ["v", 1]}, {"type": "gt", "key": "n", "value": 1}],
        },
        "ranking_options": {"ranker": "auto", "score_threshold": 0.5},
    },
}
HOSTILE: list[Any] = [
    *(0, -1, 2**31, 2**63, 2**64, 10**30, 1e308, -0.0, 5e-324, True, False, None),
    *("", " ", "\ud800", "\0", "a" * 300_000, "😀" * 600, "../../etc/passwd", "'; DROP TABLE runs; --", "{{7*7}}"),
    *("%s%n", "asst_", "\r\nX-Evil: 1", [], [[]], [None], ["x"] * 2000, {}, {"": ""}, {"__proto__": {}}, {"$ref": "#"}),
    *({"type": None}, {"type": {}}, {"type": "text"}, {"type": "function", "function": {"name": "\0"}}, nested(300)),
]


def _places(value: Any, at: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Every place in a JSON value, the whole included."""
    yield at
    if isinstance(value, dict):
        for key, item in value.items():
            yield from _places(item, (*at, key))
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from _places(item, (*at, index))


def _replaced(value: Any, at: tuple[str | int, ...], by: Any) -> Any:
    if not at:
        return by
    changed = copy.deepcopy(value)
    inside = changed
    for step in at[:-1]:
        inside = inside[step]
    inside[at[-1]] = by
    return changed


def _hostile_bodies(valid: dict[str, Any]) -> Iterator[bytes]:
    """Some two hundred, no two alike: in each place some of the hostile values, in turn."""
    places = list(_places(valid))
    each = min(len(HOSTILE), max(1, 200 // len(places)))
    for number, place in enumerate(places):
        for turn in range(each):
            value = HOSTILE[(number * each + turn) % len(HOSTILE)]
            yield json.dumps(_replaced(valid, place, value)).encode()


def test_every_route_that_takes_a_body_is_under_fire(http: httpx.Client, server: Server) -> None:
    paths = http.get(f"{server.url}/openapi.json").json()["paths"]
    forms = {"/v1/files", "/v1/uploads/{upload_id}/parts"}  # no JSON: test_files.py, test_uploads.py
    assert {path for path, methods in paths.items() if "post" in methods} == set(VALID) | forms


@pytest.mark.parametrize("path", VALID)
def test_hostile_bodies_are_refused_or_understood_but_never_break_the_server(http: httpx.Client, path: str) -> None:
    thread_id = http.post("/threads").json()["id"]
    message = {"role": "user", "content": "x"}
    ids = {
        "assistant_id": http.post("/assistants", json={"model": "m"}).json()["id"],
        "thread_id": thread_id,
        "message_id": http.post(f"/threads/{thread_id}/messages", json=message).json()["id"],
        "run_id": RUN,
        "upload_id": "upload_x",
        "vector_store_id": http.post("/vector_stores").json()["id"],
        "batch_id": "vsfb_x",
    }
    file = {"file": ("notes.txt", b"Notes")}
    ids["file_id"] = http.post("/files", data={"purpose": "assistants"}, files=file).json()["id"]
    http.post(f"/vector_stores/{ids['vector_store_id']}/files", json={"file_id": ids["file_id"]})
    refused = 0
    own = {"assistant_id": ids["assistant_id"]} if "assistant_id" in VALID[path] else {}
    for body in _hostile_bodies(filled_in(http)(VALID[path] | own)):
        response = http.post(
            path.removeprefix("/v1").format(**ids), content=body, headers={"content-type": "application/json"}
        )
        if response.status_code == 200:
            continue
        refused += 1
        assert response.status_code in REFUSALS, (response.status_code, body[:500])
        shown = response.json()["error"]
        assert list(shown) == ["message", "type", "param", "code"], body[:500]
        assert shown["message"], body[:500]
        assert shown["type"] == "invalid_request_error", body[:500]
        assert len(shown["message"]) < 1000, body[:500]
    assert refused >= 25


@pytest.mark.parametrize(
    "path",
    [
        "/assistants/%",
        "/assistants/asst_%ff%fe",
        "/assistants/asst_%ed%a0%80",
        "/assistants/..%2f..%2fetc%2fpasswd",
        "/assistants/asst_%0d%0aX-Evil:%201",
        "/threads/thread_1;drop/messages",
        "/threads/thread_1%27%20OR%201=1--/messages",
        f"/threads/{'thread_' + 'a' * 20_000}",
        "/threads/thread_1/runs/run_1/steps/step_1/%2e%2e",
        "/assistants?limit=1&limit=x",
        "/assistants?after=%ff",
        "/assistants?after=" + "a" * 20_000,
        "/assistants?limit=" + "9" * 10_000,
        "/assistants?limit=%D9%A3",
        "/assistants?order[]=asc&order=",
        f"/threads/{THREAD}/messages?run_id=%ed%a0%80",
        "/models/%2e%2e/%ff",
    ],
)
def test_hostile_paths_are_refused(http: httpx.Client, path: str) -> None:
    response = http.get(path)
    assert response.status_code in REFUSALS
    assert list(response.json()["error"]) == ["message", "type", "param", "code"]
    assert "x-evil" not in response.headers


def test_the_server_is_well_after_all_that(http: httpx.Client, server: Server) -> None:
    assert http.get(f"{server.url}/readyz").json()["components"] == dict.fromkeys(
        ("database", "storage", "index", "executor", "code"), "ok"
    )
