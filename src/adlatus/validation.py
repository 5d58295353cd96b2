"""What pydantic found wrong with a request, in the original's words.

Knows the types of pydantic's errors, a row for each; nothing of the models that they are of.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from adlatus.errors import BAD_JSON, MAX_NAME, InvalidRequest, noun, shortened

MAX_JUDGED = 200
"""Errors that are compared with one another, which is quadratic: what is told of a request is among its first."""

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
