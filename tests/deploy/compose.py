"""docker-compose.yml as Compose reads it, as far as the file makes use of it: merged, with the values of an `.env`."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
EXAMPLE = ROOT / ".env.example"
Json = dict[str, Any]
_REFERENCE = re.compile(r"\$(?:\$|\{(?P<name>\w+)(?:(?P<how>:-|:\?)(?P<other>[^}]*))?\})")


class MissingValueError(Exception):
    """A value without which Compose starts nothing."""


def written() -> Json:
    """The file as it is written, merged."""
    content: Json = yaml.safe_load(FILE.read_text("utf-8"))
    return content


def read(values: Mapping[str, str]) -> Json:
    """The file with these values. Raises `MissingValueError` with what the file says of it."""
    content: Json = _filled(written(), values)
    return content


def referenced() -> set[str]:
    """The values that the file asks for."""
    return {name for found in _REFERENCE.finditer(FILE.read_text("utf-8")) if (name := found["name"])}


def example(*, comments: bool = False) -> dict[str, str]:
    """The values of `.env.example`; with `comments` also those that are commented out."""
    pattern = rf"^{'#?' if comments else ''}(\w+)=(.*)$"
    return dict(re.findall(pattern, EXAMPLE.read_text("utf-8"), re.M))


def _filled(value: Any, values: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _REFERENCE.sub(lambda found: _value(found, values), value)
        case list():
            return [_filled(one, values) for one in value]
        case dict():
            return {name: _filled(one, values) for name, one in value.items()}
        case _:
            return value


def _value(found: re.Match[str], values: Mapping[str, str]) -> str:
    if found["name"] is None:
        return "$"
    if value := values.get(found["name"], ""):
        return value
    if found["how"] == ":?":
        raise MissingValueError(f"{found['name']}: {found['other']}")
    return found["other"] or ""
