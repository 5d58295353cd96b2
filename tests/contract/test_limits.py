"""Every limit on what clients send: the server's own document against OpenAI's schema, difference by difference."""

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.contract.operations import EXTENSIONS
from tests.contract.schema import Json, Schema
from tests.contract.tour import Operation

LIMITS = (
    *("format", "maxItems", "maxLength", "maxProperties", "maximum", "minItems", "minLength", "minimum", "pattern"),
    *("exclusiveMaximum", "exclusiveMinimum", "minProperties", "multipleOf", "uniqueItems"),
)


PROSE = "the schema says it in prose only"
AGAINST_ABUSE = "the original's limit is not known; without one a single request could keep the server busy"
BY_TYPE = "the schema leaves open which type goes with `function`; here only `function` does, and needs it"

DIFFERENCES = {
    r"\+ .* is closed|- .* is open": "unknown parameters are refused wherever they are, as the original did",
    r"\+ .* may be null": "null means the same as absent",
    r"\+ .*metadata: maxProperties 16": PROSE,
    r"\+ .*metadata\.(\*: maxLength 512|<name>: (string|maxLength 64))": PROSE,
    r"\+ .*\.name: (maxLength 64|pattern .*)": PROSE,
    r"\+ GET .* \?limit: (minimum 1|maximum 100(00)?)": PROSE,
    r"\+ .*(content|text): maxLength 256000": "users of the original were told so by its errors",
    r"\+ .*instructions: maxLength 256000": "those of an assistant are as long at most",
    r"\+ .*(messages: maxItems 100000|(attachments|content|tool_outputs): maxItems 1000)": AGAINST_ABUSE,
    r"\+ .*tool_outputs\[\]\.tool_call_id is required": "users of the original were told so by its errors",
    r"\+ .*(file_id|file_ids\[\]|assistant_id): maxLength 256|\+ .*\.model: maxLength 512": AGAINST_ABUSE,
    r"\+ .*\.(model|assistant_id|file_id|file_ids\[\]|url): minLength 1": "nothing is named by an empty string",
    r"- .*image_url\.url: format uri": "the model endpoint says which addresses it can read, with words of its own",
    r"\+ .*\.(max_(prompt|completion)_tokens|last_messages): maximum 2147483647": "the database's integers end there",
    r"\+ POST /uploads \.purpose may be '(user_data|evals)'": "as of files, as an error of the original lists them",
    r"\+ POST /uploads \.bytes: (minimum 1|maximum 8589934592)": PROSE,
    r"\+ .*\.md5: pattern .*": "no other string is a checksum",
    r"\+ .*(filename: maxLength 4096|mime_type: maxLength 256|part_ids: maxItems 10000)": AGAINST_ABUSE,
    r"\+ .*part_ids: minItems 1|\+ .*\.(filename|mime_type): minLength 1": "nothing is made of nothing",
    r"\+ POST /vector_stores.* \.(name|description): maxLength 512": AGAINST_ABUSE,
    r"\+ .*\.chunk_overlap_tokens: (minimum 0|maximum 2048)": PROSE,
    r"\+ .*(attributes\.\*|\.value(\[\])?): integer": "an integer is a number",
    r"\+ .*\.filters.*: (maxItems 100|maxLength (64|512))": "attributes are not longer, and a request ends somewhere",
    r"\+ .*\.value\[\]: boolean": "an attribute may be a boolean, so `in` may be given some",
    r"\+ .*\.query(\[\])?: (maxItems 16|maxLength 4096)": AGAINST_ABUSE,
    r"\+ .*\.query(\[\])?: (minItems|minLength) 1": "nothing is looked for by nothing",
    r"- .*\.query\[\]: minItems 1": "the schema says of each query what it means of their array",
    r"- .*\.model may be '.*'": "any model may stand behind any name",
    r"- POST .*runs \.tools: maxItems 20|\+ POST .*runs \.tools: maxItems 128": (
        "an assistant with 128 tools must run, and a run may name those of its assistant"
    ),
    r"\+ .*attachments\[\]\.(file_id|tools) is required": "the schema says it of the array by mistake",
    r"[+-] .*\.tool_choice.*": BY_TYPE,
    r"- .*\.score_threshold is required": "it has a default, which is recorded",
    r"\+ .*\.hybrid_search.*": "recorded assistants have it, and may be sent back as they are",
    r"\+ POST /threads/runs \.reasoning_effort.*": "both ways to create a run take the same settings",
    r"[+-] .*\.vector_stores\[\]\.file_ids: maxItems .*": "nobody could send the 100,000,000 of the schema",
}
"""Sentences of `limits` that only the server has (+), or only the schema (-), and why. The first that fits counts."""


def limits(schema: Schema, described: Json, place: str, within: tuple[str, ...] = ()) -> Iterator[str]:
    """One sentence for each thing that a schema demands of a value or lets it be, whatever shape says so.

    A place is a path such as `tools[]<function>.function.name`, where `<function>` is a branch of a union. `within` are
    the references that lead there: what holds its own kind, as filters do, is described once.
    """
    if (reference := described.get("$ref")) in within:
        yield f"{place} may be nested"
        return
    within = (*within, reference) if reference else within
    described = schema.resolved(described)
    branches = None if "properties" in described else described.get("anyOf") or described.get("oneOf")
    if branches:
        for branch in branches:
            yield from limits(schema, branch, f"{place}{_tag(schema.resolved(branch), len(branches))}", within)
        return
    kind = described["type"]
    yield f"{place} may be {kind}" if kind == "null" else f"{place}: {kind}"
    values = [described["const"]] if "const" in described else described.get("enum", [])
    yield from (f"{place} may be {value!r}" for value in values)
    yield from (f"{place}: {name} {_plain(described[name])}" for name in LIMITS if name in described)
    if "items" in described:
        yield from limits(schema, described["items"], f"{place}[]", within)
    if kind == "object":
        yield from _of_object(schema, described, place, within)


def _of_object(schema: Schema, described: Json, place: str, within: tuple[str, ...]) -> Iterator[str]:
    for name in described.get("required", ()):
        yield f"{place}.{name} is required"
    for name, of_property in described.get("properties", {}).items():
        yield from limits(schema, of_property, f"{place}.{name}", within)
    match described.get("additionalProperties", True):
        case dict() as of_others:
            yield from limits(schema, of_others, f"{place}.*", within)
        case bool(allowed):
            yield f"{place} is {'open' if allowed else 'closed'}"
    if "propertyNames" in described:
        yield from limits(schema, {"type": "string"} | described["propertyNames"], f"{place}.<name>")


def _tag(branch: Json, branches: int) -> str:
    """How a branch of a union is told from the others: by its `type`, where that has one value."""
    values = branch.get("properties", {}).get("type", {})
    names = [values["const"]] if "const" in values else values.get("enum", [])
    return f"<{names[0]}>" if branches > 1 and len(names) == 1 else ""


def _plain(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _of_operations(schema: Schema, operations: set[Operation]) -> Iterator[str]:
    for operation in operations:
        name = " ".join(operation)
        if body := schema.body(operation):
            yield from limits(schema, body, f"{name} ")
        for parameter, described in schema.query(operation).items():
            yield from limits(schema, described, f"{name} ?{parameter}")


def _reason(difference: str) -> str:
    return next((pattern for pattern in DIFFERENCES if re.fullmatch(pattern, difference)), difference)


def test_every_limit_is_that_of_the_schema_but_for_the_list(
    schema: Schema, own_schema: Schema, offered: set[Operation]
) -> None:
    both = offered - set(EXTENSIONS)
    theirs, ours = (set(_of_operations(each, both)) for each in (schema, own_schema))
    found = {f"+ {limit}" for limit in ours - theirs} | {f"- {limit}" for limit in theirs - ours}
    assert {_reason(difference) for difference in found} == set(DIFFERENCES)


def test_the_server_describes_what_is_in_its_paths_and_how_it_refuses(own_schema: Schema) -> None:
    for path, methods in own_schema.document["paths"].items():
        for described in methods.values():
            named = {each["name"] for each in described.get("parameters", []) if each["in"] == "path"}
            assert named == set(re.findall(r"{(\w+)}", path)), path
            assert set(described["responses"]) == {"200", "default"}
            error = described["responses"]["default"]["content"]["application/json"]["schema"]
            assert error == {"$ref": "#/components/schemas/ErrorResponse"}


@pytest.mark.parametrize(
    ("described", "said"),
    [
        ({"type": "string", "maxLength": 2}, {"x: string", "x: maxLength 2"}),
        ({"type": "integer", "maximum": 2.0}, {"x: integer", "x: maximum 2"}),
        (
            {"anyOf": [{"type": "null"}, {"const": "a", "type": "string"}]},
            {"x may be null", "x: string", "x may be 'a'"},
        ),
        ({"type": "array", "items": {"type": "string"}, "maxItems": 1}, {"x: array", "x: maxItems 1", "x[]: string"}),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]},
            {"x: object", "x is open", "x.a: string", "x.a is required"},
        ),
    ],
)
def test_limits_are_read_out_of_every_shape_of_a_schema(described: Json, said: set[str]) -> None:
    assert set(limits(Schema({}), described, "x")) == said
