"""Validation errors in the original's words, and the shape of every error."""

from typing import Annotated, Any, Literal

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError
from pydantic_core import PydanticCustomError

from adlatus import errors
from adlatus.errors import ApiError, InvalidRequest, noun
from adlatus.validation import from_validation

Key = Annotated[str, StringConstraints(max_length=4)]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class Plain(Strict):
    type: Literal["plain"]


class Inner(Strict):
    name: Annotated[str, StringConstraints(pattern="^[a-z]+$", min_length=2)]
    number: Annotated[int, Field(ge=1, le=9)] = 1


class Named(Strict):
    type: Literal["named"]
    named: Inner


class Text(Strict):
    type: Literal["text"]
    text: str


def _refuse(value: Any) -> Any:
    if value == "forbidden":
        raise PydanticCustomError("own_code", "'$param' must not be {what}.", {"what": value})
    return value


class Body(Strict):
    required: bool = True
    text: Annotated[str, StringConstraints(max_length=3)] | None = None
    whole: Annotated[int, Field(ge=1, le=100)] | None = None
    decimal: Annotated[float, Field(ge=0, le=2, allow_inf_nan=False)] | None = None
    above: Annotated[float, Field(gt=0.5, lt=1.5)] | None = None
    choice: Literal["a", "b"] | None = None
    one_choice: Literal["a"] | None = None
    choices: list[Literal["a", "b", "c"]] = []
    pairs: Annotated[dict[Key, Annotated[str, StringConstraints(max_length=5)]], Field(max_length=2)] | None = None
    parts: Annotated[
        list[Annotated[Plain | Named | Text, Field(discriminator="type")]] | None, Field(min_length=1, max_length=2)
    ] = None
    either: Literal["auto", "none"] | Annotated[Plain | Named, Field(discriminator="type")] | None = None
    own: Annotated[str, BeforeValidator(_refuse)] | None = None


class Needy(Strict):
    needed: str
    inner: Inner | None = None


def translated(model: type[BaseModel], value: Any) -> InvalidRequest:
    """The error for a body, with locations as FastAPI gives them."""
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(model).validate_python(value)
    return from_validation([{**error, "loc": ("body", *error["loc"])} for error in caught.value.errors()], value)


WRONG_TYPES = [
    ({"text": 5}, "text", "a string", "an integer"),
    ({"text": 1.5}, "text", "a string", "a decimal"),
    ({"text": True}, "text", "a string", "a boolean"),
    ({"text": []}, "text", "a string", "an array"),
    ({"text": {}}, "text", "a string", "an object"),
    ({"required": None}, "required", "a boolean", "null"),
    ({"required": "yes"}, "required", "a boolean", "a string"),
    ({"whole": "5"}, "whole", "an integer", "a string"),
    ({"whole": 5.0}, "whole", "an integer", "a decimal"),
    ({"whole": True}, "whole", "an integer", "a boolean"),
    ({"decimal": "1"}, "decimal", "a decimal", "a string"),
    ({"decimal": float("nan")}, "decimal", "a decimal", "a decimal"),
    ({"choice": 5}, "choice", "a string", "an integer"),
    ({"choices": {}}, "choices", "an array", "an object"),
    ({"choices": ["a", None]}, "choices[1]", "a string", "null"),
    ({"pairs": []}, "pairs", "an object", "an array"),
    ({"pairs": {"k": 1}}, "pairs.k", "a string", "an integer"),
    ({"parts": {}}, "parts", "an array", "an object"),
    ({"parts": ["x"]}, "parts[0]", "an object", "a string"),
    ({"parts": [{"type": None}]}, "parts[0].type", "a string", "null"),
    ({"parts": [{"type": ["plain"]}]}, "parts[0].type", "a string", "an array"),
    ({"parts": [{"type": "named", "named": "x"}]}, "parts[0].named", "an object", "a string"),
    ({"parts": [{"type": "text", "text": {"value": "x"}}]}, "parts[0].text", "a string", "an object"),
    ({"parts": [{"type": "named", "named": {"name": 5}}]}, "parts[0].named.name", "a string", "an integer"),
    ({"either": 5}, "either", "one of a string or object", "an integer"),
    ({"either": {"type": 5}}, "either.type", "a string", "an integer"),
    ({"either": {"type": "named", "named": 5}}, "either.named", "an object", "an integer"),
]


@pytest.mark.parametrize(("value", "param", "expected", "got"), WRONG_TYPES)
def test_a_wrong_type_is_named_with_what_was_expected_and_got(value: Any, param: str, expected: str, got: str) -> None:
    error = translated(Body, value)
    assert error.message == f"Invalid type for '{param}': expected {expected}, but got {got} instead."
    assert (error.param, error.code) == (param, "invalid_type")


WRONG_VALUES = [
    ({"foo": 1}, "foo", "unknown_parameter", "Unknown parameter: 'foo'."),
    ({"parts": [{"type": "plain", "x": 1}]}, "parts[0].x", "unknown_parameter", "Unknown parameter: 'parts[0].x'."),
    ({"either": {"type": "plain", "x": 1}}, "either.x", "unknown_parameter", "Unknown parameter: 'either.x'."),
    ({"parts": [{}]}, "parts[0].type", "missing_required_parameter", "Missing required parameter: 'parts[0].type'."),
    (
        {"parts": [{"type": "plain"}, {"type": "named"}]},
        "parts[1].named",
        "missing_required_parameter",
        "Missing required parameter: 'parts[1].named'.",
    ),
    (
        {"parts": [{"type": "text"}]},
        "parts[0].text",
        "missing_required_parameter",
        "Missing required parameter: 'parts[0].text'.",
    ),
    (
        {"either": {"type": "named", "named": {}}},
        "either.named.name",
        "missing_required_parameter",
        "Missing required parameter: 'either.named.name'.",
    ),
    ({"either": {}}, "either.type", "missing_required_parameter", "Missing required parameter: 'either.type'."),
    ({"choice": "c"}, "choice", "invalid_value", "Invalid value: 'c'. Supported values are: 'a' and 'b'."),
    ({"one_choice": "c"}, "one_choice", "invalid_value", "Invalid value: 'c'. Value must be 'a'."),
    (
        {"choices": ["a", "d"]},
        "choices[1]",
        "invalid_value",
        "Invalid value: 'd'. Supported values are: 'a', 'b', and 'c'.",
    ),
    (
        {"choice": "x" * 100},
        "choice",
        "invalid_value",
        f"Invalid value: '{'x' * 28}...{'x' * 28}'. Supported values are: 'a' and 'b'.",
    ),
    (
        {"parts": [{"type": "odd"}]},
        "parts[0].type",
        "invalid_value",
        "Invalid value: 'odd'. Supported values are: 'plain', 'named', and 'text'.",
    ),
    ({"either": "odd"}, "either", "invalid_value", "Invalid value: 'odd'. Supported values are: 'auto' and 'none'."),
    (
        {"either": {"type": "odd"}},
        "either.type",
        "invalid_value",
        "Invalid value: 'odd'. Supported values are: 'plain' and 'named'.",
    ),
    (
        {"text": "😀" * 4},
        "text",
        "string_above_max_length",
        "Invalid 'text': string too long. Expected a string with maximum length 3, "
        "but got a string with length 4 instead.",
    ),
    (
        {"parts": [{"type": "named", "named": {"name": ""}}]},
        "parts[0].named.name",
        "string_below_min_length",
        "Invalid 'parts[0].named.name': string too short. Expected a string with minimum length 2, "
        "but got an empty string instead.",
    ),
    (
        {"parts": [{"type": "named", "named": {"name": "a"}}]},
        "parts[0].named.name",
        "string_below_min_length",
        "Invalid 'parts[0].named.name': string too short. Expected a string with minimum length 2, "
        "but got a string with length 1 instead.",
    ),
    (
        {"parts": [{"type": "named", "named": {"name": "a b"}}]},
        "parts[0].named.name",
        "invalid_value",
        "Invalid 'parts[0].named.name': string does not match pattern. "
        "Expected a string that matches the pattern '^[a-z]+$'.",
    ),
    (
        {"whole": 101},
        "whole",
        "integer_above_max_value",
        "Invalid 'whole': integer above maximum value. Expected a value <= 100, but got 101 instead.",
    ),
    (
        {"whole": -5},
        "whole",
        "integer_below_min_value",
        "Invalid 'whole': integer below minimum value. Expected a value >= 1, but got -5 instead.",
    ),
    (
        {"decimal": 2.5},
        "decimal",
        "decimal_above_max_value",
        "Invalid 'decimal': decimal above maximum value. Expected a value <= 2, but got 2.5 instead.",
    ),
    (
        {"decimal": 3},
        "decimal",
        "decimal_above_max_value",
        "Invalid 'decimal': decimal above maximum value. Expected a value <= 2, but got 3 instead.",
    ),
    (
        {"decimal": -0.1},
        "decimal",
        "decimal_below_min_value",
        "Invalid 'decimal': decimal below minimum value. Expected a value >= 0, but got -0.1 instead.",
    ),
    (
        {"above": 0.5},
        "above",
        "decimal_below_min_value",
        "Invalid 'above': decimal below minimum value. Expected a value > 0.5, but got 0.5 instead.",
    ),
    (
        {"above": 1.5},
        "above",
        "decimal_above_max_value",
        "Invalid 'above': decimal above maximum value. Expected a value < 1.5, but got 1.5 instead.",
    ),
    (
        {"parts": []},
        "parts",
        "empty_array",
        "Invalid 'parts': empty array. Expected an array with minimum length 1, but got an empty array instead.",
    ),
    (
        {"parts": [{"type": "plain"}] * 3},
        "parts",
        "array_above_max_length",
        "Invalid 'parts': array too long. Expected an array with maximum length 2, "
        "but got an array with length 3 instead.",
    ),
    (
        {"pairs": {"a": "", "b": "", "c": ""}},
        "pairs",
        "object_above_max_properties",
        "Invalid 'pairs': too many properties. Expected an object with at most 2 properties, "
        "but got an object with 3 properties instead.",
    ),
    (
        {"pairs": {"abcde": ""}},
        "pairs.abcde",
        "property_name_above_max_length",
        "Invalid property name in 'pairs': 'abcde' is too long. Expected a string with maximum length 4, "
        "but got a string with length 5 instead.",
    ),
    (
        {"pairs": {"a.b": "123456"}},
        "pairs.a.b",
        "string_above_max_length",
        "Invalid 'pairs.a.b': string too long. Expected a string with maximum length 5, "
        "but got a string with length 6 instead.",
    ),
    ({"own": "forbidden"}, "own", "own_code", "'own' must not be forbidden."),
]


@pytest.mark.parametrize(("value", "param", "code", "message"), WRONG_VALUES)
def test_a_wrong_value_is_told_in_the_words_of_the_original(value: Any, param: str, code: str, message: str) -> None:
    error = translated(Body, value)
    assert error.message == message
    assert (error.param, error.code) == (param, code)
    assert error.status == 400


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "Missing required parameter: 'needed'."),
        ({"inner": {}}, "Missing required parameter: 'needed'."),
        ({"needed": "x", "inner": {"name": "ab", "number": 10, "odd": 1}}, "Invalid 'inner.number': integer above"),
        ({"needed": 1, "inner": 5}, "Invalid type for 'needed': expected a string"),
    ],
)
def test_of_several_errors_the_first_is_told(value: Any, message: str) -> None:
    assert translated(Needy, value).message.startswith(message)


def test_the_body_itself_may_be_of_the_wrong_type() -> None:
    error = translated(Needy, [1])
    assert error.message == "Invalid type for the request body: expected an object, but got an array instead."
    assert (error.param, error.code) == (None, "invalid_type")


def test_parameters_of_the_query_are_named_without_their_source() -> None:
    late: dict[str, Any] = {"type": "int_parsing", "loc": ("query", "limit"), "input": "x"}
    assert from_validation([late], None).param == "limit"
    early: dict[str, Any] = {"type": "less_than_equal", "loc": ("query", "limit"), "input": "101", "ctx": {"le": 100}}
    error = from_validation([early], None)
    assert error.message == (
        "Invalid 'limit': integer above maximum value. Expected a value <= 100, but got 101 instead."
    )
    assert error.code == "integer_above_max_value"


def test_json_that_is_none_has_its_own_words() -> None:
    broken: dict[str, Any] = {"type": "json_invalid", "loc": ("body", 3), "input": {}}
    assert errors.body(from_validation([broken], "{"))["error"] == {
        "message": errors.BAD_JSON,
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "null"),
        (False, "a boolean"),
        (0, "an integer"),
        (0.0, "a decimal"),
        ("", "a string"),
        ([], "an array"),
        ({}, "an object"),
    ],
)
def test_json_types_have_names(value: object, name: str) -> None:
    assert noun(value) == name


def _kinds(kind: type[ApiError]) -> list[type[ApiError]]:
    return [kind, *(found for below in kind.__subclasses__() for found in _kinds(below))]


def test_no_error_but_those_of_limits_has_a_status_that_makes_clients_repeat_a_refused_request() -> None:
    statuses = {kind: kind.status for kind in _kinds(ApiError)}
    assert {kind for kind, status in statuses.items() if status in (408, 409, 429)} == {
        errors.RateLimited,
        errors.QuotaExceeded,
    }
    assert {kind for kind, status in statuses.items() if status >= 500} == {
        errors.BadGateway,
        errors.DatabaseUnavailable,
        errors.InternalError,
        errors.Unavailable,
    }


def test_an_error_has_four_fields_in_order() -> None:
    shown = errors.body(InvalidRequest("No.", param="p", code="c"))
    assert list(shown) == ["error"]
    assert list(shown["error"].items()) == [
        ("message", "No."),
        ("type", "invalid_request_error"),
        ("param", "p"),
        ("code", "c"),
    ]
    assert errors.body(errors.InternalError())["error"]["type"] == "server_error"
    assert errors.not_found("thread", "thread_1").message == "No thread found with id 'thread_1'."
    assert errors.Unavailable("Later.").headers == {"retry-after": "1"}
