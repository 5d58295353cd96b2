"""A chat-completions request as far as the rehearsal model looks at it. Pure; knows neither scripts nor HTTP."""

from dataclasses import dataclass
from typing import Any

import orjson

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class BadRequestError(Exception):
    """The request cannot be answered: HTTP status 400, `param` names the culprit."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request whose parts that matter here have the right types. `body` is the whole of it."""

    body: dict[str, Any]
    model: str
    messages: list[dict[str, Any]]
    stream: bool
    include_usage: bool
    most_tokens: int | None


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object of a request's body. Raises BadRequestError."""
    try:
        body = orjson.loads(raw)
        orjson.dumps(body)  # its nesting limit is lower than that of loads
    except (orjson.JSONDecodeError, orjson.JSONEncodeError) as exc:
        raise BadRequestError(f"We could not parse the JSON body of your request: {exc}.") from exc
    if not isinstance(body, dict):
        raise BadRequestError("The JSON body of the request must be an object.")
    return body


def read(body: dict[str, Any]) -> ChatRequest:
    """Check what matters here. Raises BadRequestError."""
    stream = _optional(body, "stream", bool) or False
    options = _optional(body, "stream_options", dict) or {}
    if options and not stream:
        raise BadRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    if _optional(body, "n", int) not in (None, 1):
        raise BadRequestError("The rehearsal model gives one choice only: 'n' must be 1.", "n")
    limits = [_optional(body, name, int) for name in ("max_completion_tokens", "max_tokens")]
    if any(limit is not None and limit < 1 for limit in limits):
        raise BadRequestError("The limit of completion tokens must be at least 1.", "max_completion_tokens")
    return ChatRequest(
        body=body,
        model=_required(body, "model", str),
        messages=_messages(body),
        stream=stream,
        include_usage=_optional(options, "include_usage", bool) or False,
        most_tokens=next((limit for limit in limits if limit is not None), None),
    )


def text_of(message: dict[str, Any]) -> str:
    """The text of a message; text parts stand on lines of their own."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = _required(body, "messages", list)
    if not messages:
        raise BadRequestError("Invalid 'messages': empty array. At least one message is needed.", "messages")
    for position, message in enumerate(messages):
        where = f"messages[{position}]"
        if not isinstance(message, dict) or message.get("role") not in ROLES:
            raise BadRequestError(f"Invalid '{where}': an object with a 'role' of {', '.join(ROLES)} is needed.", where)
        if not _is_content(message.get("content"), optional=message["role"] in ("assistant", "function")):
            raise BadRequestError(
                f"Invalid '{where}.content': a string or an array of parts is needed.", f"{where}.content"
            )
    return messages


def _is_content(content: object, *, optional: bool) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(part, dict)
            and isinstance(part.get("type"), str)
            and (part["type"] != "text" or isinstance(part.get("text"), str))
            for part in content
        )
    return isinstance(content, str) or (optional and content is None)


def _required(body: dict[str, Any], name: str, kind: type) -> Any:
    if (value := _optional(body, name, kind)) is None:
        raise BadRequestError(f"Missing required parameter: '{name}'.", name)
    return value


def _optional(body: dict[str, Any], name: str, kind: type) -> Any:
    value = body.get(name)
    if value is not None and type(value) is not kind:  # not isinstance: True is no number
        raise BadRequestError(f"Invalid type for '{name}': expected {kind.__name__}, got {type(value).__name__}.", name)
    return value
