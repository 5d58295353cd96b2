"""The errors of Adlatus and their one shape on the wire.

Owns every error body, message and code that a client can see; knows nothing of HTTP frameworks, rows or runs.
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

BAD_JSON = (
    "We could not parse the JSON body of your request. (HINT: This likely means you aren't using your HTTP library "
    "correctly. The OpenAI API expects a JSON payload, but what was sent was not valid JSON. If you have trouble "
    "figuring out how to fix this, please contact us through our help center at help.openai.com.)"
)

CLIENT_LEFT = "The client left before the end of its request."


class StartupError(Exception):
    """A component cannot be used; the message tells the operator what to do. Ends the process with exit code 1."""


class ApiError(Exception):
    """An error that the client sees: HTTP status and the four fields of OpenAI's error object."""

    status = 400
    type = "invalid_request_error"
    twofold = False
    """Whether the body says it twice, as only endpoints of files did. *Source*: recorded errors."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code
        self.headers = headers or {}


class InvalidRequest(ApiError):  # noqa: N818 - the wire's own noun
    """The request is wrong: 400. Never 409, which every SDK would send again."""


class Unauthorized(ApiError):  # noqa: N818
    """No key, or one that is not known: 401."""

    status = 401


class Forbidden(ApiError):  # noqa: N818
    """The guards of a server without keys say no: 403."""

    status = 403


class NotFound(ApiError):  # noqa: N818
    """The object does not exist in the caller's project: 404."""

    status = 404


class RateLimited(ApiError):  # noqa: N818
    """The project has reached a limit: 429. `kind` is `requests` or `tokens`; `retry_s` is when to come again."""

    status = 429

    def __init__(self, message: str, *, kind: Literal["requests", "tokens"], retry_s: float) -> None:
        milliseconds = max(1, math.ceil(retry_s * 1000))
        headers = {"retry-after-ms": str(milliseconds), "retry-after": str(math.ceil(milliseconds / 1000))}
        super().__init__(message, code="rate_limit_exceeded", headers=headers)
        self.type = kind


class QuotaExceeded(ApiError):  # noqa: N818
    """There is no room for more until something is deleted: 429, which the SDKs are told not to repeat."""

    status = 429
    type = "insufficient_quota"

    def __init__(self, message: str) -> None:
        super().__init__(message, code="storage_quota_exceeded", headers={"x-should-retry": "false"})


class Unavailable(ApiError):  # noqa: N818
    """A backend does not answer at the moment: 503 with `retry-after`."""

    status = 503
    type = "server_error"

    def __init__(self, message: str) -> None:
        super().__init__(message, headers={"retry-after": "1"})


class DatabaseUnavailable(Unavailable):
    """The database does not answer: nothing can be kept, and nobody can say what is."""


class BadGateway(ApiError):  # noqa: N818
    """A model endpoint does not take this server's key, or does not answer as one: 502. Only the operator can help."""

    status = 502
    type = "server_error"


class ContentTooLarge(ApiError):  # noqa: N818
    """The request body is longer than this server reads: 413."""

    status = 413


class UrlTooLong(ApiError):  # noqa: N818
    """The URL is longer than this server reads: 414."""

    status = 414


class HeadTooLarge(ApiError):  # noqa: N818
    """The headers are more, or longer, than this server reads: 431."""

    status = 431


class RangeNotSatisfiable(ApiError):  # noqa: N818
    """No byte of the range that is asked for exists: 416."""

    status = 416


class InvalidFile(InvalidRequest):
    """What was sent is not as a file of that purpose has to be."""

    twofold = True


class FileNotFound(NotFound):
    """The file, or the file that a list should go on after, does not exist in the caller's project."""

    twofold = True


class GatewayError(ApiError):
    """What Azure's gateway refuses before the service hears of it, in its own shape of two fields."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message, code=code)
        self.status = status


class InternalError(ApiError):
    """A fault of ours: 500. The details are in the log only."""

    status = 500
    type = "server_error"

    def __init__(self) -> None:
        super().__init__(
            "The server had an error while processing your request. Sorry about that! "
            "The log of the server has the details under this response's x-request-id."
        )


class MethodNotAllowed(ApiError):  # noqa: N818
    """The path exists, the method does not: 405."""

    status = 405


def not_found(noun: str, object_id: str) -> NotFound:
    """The original's 404 for a `noun` such as `assistant`, `thread`, `run`. Source: field reports."""
    return NotFound(f"No {noun} found with id '{object_id}'.")


def unknown_model(model: str) -> NotFound:
    """The 404 of the original's other APIs, which say it in other words than *retrieve model*."""
    return NotFound(
        f"The model `{shortened(model, MAX_NAME)}` does not exist or you do not have access to it.",
        code="model_not_found",
    )


def no_such_file(file_id: str) -> FileNotFound:
    """*Source*: recorded errors."""
    return FileNotFound(f"No such File object: {file_id}", param="id")


def no_file_to_attach(file_id: str) -> NotFound:
    """The same of a file that a request names in its body. Source: inference from the one above."""
    return NotFound(f"No such File object: {file_id}", param="file_id")


def body(error: ApiError) -> dict[str, dict[str, str | None]]:
    """The JSON body of an error response, and of the data of an `error` event."""
    if isinstance(error, GatewayError):
        return {"error": {"code": error.code, "message": error.message}}
    told: dict[str, dict[str, str | None]] = {
        "error": {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    }
    if error.twofold:
        told["detail"] = {"message": error.message, "code": error.code}
    return told


# --- What pydantic found, in the original's words. One row per pydantic error type.

_EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "int_parsing": "an integer",
    "int_from_float": "an integer",
    "int_parsing_size": "an integer",
    "float_type": "a decimal",
    "float_parsing": "a decimal",
    "bool_type": "a boolean",
    "bool_parsing": "a boolean",
    "list_type": "an array",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
    "none_required": "null",
}
_BOUNDS = {
    "less_than_equal": ("above maximum", "above_max", "<=", "le"),
    "less_than": ("above maximum", "above_max", "<", "lt"),
    "greater_than_equal": ("below minimum", "below_min", ">=", "ge"),
    "greater_than": ("below minimum", "below_min", ">", "gt"),
}


def from_validation(errors: Sequence[Mapping[str, Any]], sent: object) -> InvalidRequest:
    """The one error to answer with for the pydantic `errors` of the value `sent`.

    Where the branches of a union disagree, the branch that got furthest is the one that the client meant.
    """
    found = [(_path(error, sent), _misfit(error), error) for error in errors[:MAX_JUDGED]]
    kept = [
        (path, misfit, error)
        for path, misfit, error in found
        if not (misfit and any(len(p) > len(path) and p[: len(path)] == path for p, _, _ in found))
    ]
    path = kept[0][0]
    misfits = [misfit for p, misfit, _ in kept if p == path and misfit]
    for p, misfit, error in kept:
        if p == path and not misfit:
            return _translate(error, _dotted(path))
    return _invalid_type(_dotted(path), list(dict.fromkeys(expected for expected, _ in misfits)), misfits[0][1])


def _misfit(error: Mapping[str, Any]) -> tuple[str, object] | None:
    """What was expected and what was got, where the value is of the wrong JSON type."""
    match error:
        case {"type": "union_tag_invalid", "input": {"type": tag}} if not isinstance(tag, str):
            return "a string", tag
        case {"type": "literal_error", "input": value} if not isinstance(value, str):
            return "a string", value
        case {"type": "finite_number", "input": value}:
            return "a decimal", value
        case {"type": kind, "input": value} if kind in _EXPECTED:
            return _EXPECTED[kind], value
    return None


def _translate(error: Mapping[str, Any], param: str) -> InvalidRequest:
    kind, value, ctx = error["type"], error["input"], error.get("ctx", {})
    match kind:
        case "missing" | "union_tag_not_found":
            return InvalidRequest(
                f"Missing required parameter: '{param}'.", param=param, code="missing_required_parameter"
            )
        case "extra_forbidden":
            return InvalidRequest(f"Unknown parameter: '{param}'.", param=param, code="unknown_parameter")
        case "union_tag_invalid":
            return _invalid_value(param, ctx["tag"], ctx["expected_tags"])
        case "literal_error" | "enum":
            return _invalid_value(param, value, ctx["expected"])
        case "string_too_long" if error["loc"] and error["loc"][-1] == "[key]":
            return _long_property_name(param, str(value), ctx["max_length"])
        case "string_too_long":
            return InvalidRequest(
                f"Invalid '{param}': string too long. Expected a string with maximum length {ctx['max_length']}, "
                f"but got a string with length {len(value)} instead.",
                param=param,
                code="string_above_max_length",
            )
        case "string_too_short":
            got = f"a string with length {len(value)}" if value else "an empty string"
            return InvalidRequest(
                f"Invalid '{param}': string too short. Expected a string with minimum length {ctx['min_length']}, "
                f"but got {got} instead.",
                param=param,
                code="string_below_min_length",
            )
        case "string_pattern_mismatch":
            return InvalidRequest(
                f"Invalid '{param}': string does not match pattern. "
                f"Expected a string that matches the pattern '{ctx['pattern']}'.",
                param=param,
                code="invalid_value",
            )
        case "too_long" | "too_short":
            return _wrong_size(param, kind, value, ctx)
        case _ if kind in _BOUNDS:
            return _out_of_bounds(param, kind, value, ctx)
        case "json_invalid":
            return InvalidRequest(BAD_JSON)
        case _:  # raised by a validator of ours as PydanticCustomError(code, message)
            return InvalidRequest(error["msg"].replace("$param", param), param=param or None, code=kind)


def _invalid_type(param: str, alternatives: list[str], value: object) -> InvalidRequest:
    expected = alternatives[0]
    if len(alternatives) > 1:
        expected = "one of " + " or ".join([expected, *(other.split(" ", 1)[1] for other in alternatives[1:])])
    where = f"'{param}'" if param else "the request body"
    return InvalidRequest(
        f"Invalid type for {where}: expected {expected}, but got {noun(value)} instead.",
        param=param or None,
        code="invalid_type",
    )


def _invalid_value(param: str, value: object, expected: str) -> InvalidRequest:
    names = [f"'{name}'" for name in re.findall(r"'([^']*)'", expected)]
    match names:
        case [one]:
            listed = f"Value must be {one}"
        case [one, two]:
            listed = f"Supported values are: {one} and {two}"
        case _:
            listed = f"Supported values are: {', '.join(names[:-1])}, and {names[-1]}"
    return InvalidRequest(f"Invalid value: '{shortened(str(value))}'. {listed}.", param=param, code="invalid_value")


def _long_property_name(param: str, name: str, limit: int) -> InvalidRequest:
    return InvalidRequest(
        f"Invalid property name in '{param.split('.', 1)[0]}': '{shortened(name)}' is too long. "
        f"Expected a string with maximum length {limit}, but got a string with length {len(name)} instead.",
        param=param,
        code="property_name_above_max_length",
    )


def _wrong_size(param: str, kind: str, value: object, ctx: Mapping[str, Any]) -> InvalidRequest:
    size = len(value) if isinstance(value, list | dict | tuple) else ctx.get("actual_length")
    if isinstance(value, dict):
        return InvalidRequest(
            f"Invalid '{param}': too many properties. Expected an object with at most {ctx['max_length']} properties, "
            f"but got an object with {size} properties instead.",
            param=param,
            code="object_above_max_properties",
        )
    if kind == "too_short":
        return InvalidRequest(
            f"Invalid '{param}': empty array. Expected an array with minimum length {ctx['min_length']}, "
            "but got an empty array instead.",
            param=param,
            code="empty_array",
        )
    return InvalidRequest(
        f"Invalid '{param}': array too long. Expected an array with maximum length {ctx['max_length']}, "
        f"but got an array with length {size} instead.",
        param=param,
        code="array_above_max_length",
    )


def _out_of_bounds(param: str, kind: str, value: object, ctx: Mapping[str, Any]) -> InvalidRequest:
    words, code, sign, key = _BOUNDS[kind]
    bound = ctx[key]
    whole = isinstance(value, str) or (isinstance(value, int) and not isinstance(bound, float))
    number = "integer" if whole else "decimal"
    shown = int(bound) if isinstance(bound, float) and bound.is_integer() else bound
    return InvalidRequest(
        f"Invalid '{param}': {number} {words} value. Expected a value {sign} {shown}, but got {value} instead.",
        param=param,
        code=f"{number}_{code}_value",
    )


def noun(value: object) -> str:
    """The JSON type of a value with its article, as messages name it."""
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int():
            return "an integer"
        case float():
            return "a decimal"
        case str():
            return "a string"
        case list() | tuple():
            return "an array"
        case _:
            return "an object"


def shortened(text: str, limit: int = 64) -> str:
    """A text of a client as an error repeats it: its middle left out where it is long."""
    half = limit // 2 - 4
    return text if len(text) <= limit else f"{text[:half]}...{text[-half:]}"


def shortened_list(names: Sequence[str]) -> str:
    """Names as Python writes a list of them, in an error that must not be as long as the request."""
    shown = [shortened(name) for name in names[:MAX_LISTED]]
    return f"{shown}" if len(names) <= MAX_LISTED else f"{shown} and {len(names) - MAX_LISTED} more"


MAX_LISTED = 128
MAX_JUDGED = 200
"""Errors that are compared with one another, which is quadratic: what is told of a request is among its first."""
MAX_NAME = 256
"""The longest name of a client's property that is repeated whole: an error must not be as long as the request."""


def _path(error: Mapping[str, Any], sent: object) -> tuple[str | int, ...]:
    """Where in the JSON that was sent the error is: its `loc` without the source's name and the branches of unions."""
    loc, kind = error["loc"], error["type"]
    if loc and loc[0] in ("query", "path", "header"):
        return tuple(step.removesuffix("[]") if isinstance(step, str) else step for step in loc[1:])
    path: list[str | int] = []
    here = sent
    for index, step in enumerate(loc):
        if index == 0 and step == "body":
            continue
        if isinstance(step, int):
            path.append(step)
            here = here[step] if isinstance(here, list | tuple) and -len(here) <= step < len(here) else None
        elif isinstance(here, Mapping) and (step in here or (kind == "missing" and index == len(loc) - 1)):
            path.append(step)
            here = here.get(step)
    if kind.startswith("union_tag_"):
        path.append(error["ctx"]["discriminator"].strip("'"))
    return tuple(path)


def _dotted(path: tuple[str | int, ...]) -> str:
    text = ""
    for step in path:
        name = shortened(str(step), MAX_NAME)
        text += f"[{step}]" if isinstance(step, int) else f".{name}" if text else name
    return text
