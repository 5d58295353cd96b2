"""A chat-completions request as far as the rehearsal model looks at it. Pure; knows neither scripts nor HTTP."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import orjson

ROLES = ("system", "developer", "user", "assistant", "tool", "function")


class BadRequestError(Exception):
    """The request cannot be answered: HTTP status 400, `param` names the culprit."""

    def __init__(self, message: str, param: str | None = None, code: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code


@dataclass(frozen=True)
class ChatRequest:
    """A request whose parts that matter here have the right types. `body` is the whole of it."""

    body: dict[str, Any]
    model: str
    messages: list[dict[str, Any]]
    stream: bool
    include_usage: bool
    most_tokens: int | None

    @cached_property
    def asked(self) -> str:
        """The text of the last user message."""
        return next((text_of(message) for message in reversed(self.messages) if message["role"] == "user"), "")

    @cached_property
    def system(self) -> str:
        """The texts of the system and developer messages, one per line."""
        return "\n".join(text_of(message) for message in self.messages if message["role"] in ("system", "developer"))

    @cached_property
    def offered(self) -> frozenset[str]:
        """The names of the functions that may be called."""
        return frozenset(tool["function"]["name"] for tool in self.body.get("tools") or () if "function" in tool)

    @cached_property
    def is_helped(self) -> bool:
        """Whether tools have given something since the last user message."""
        return bool(self._results_after("user"))

    @cached_property
    def results(self) -> dict[str, list[str]]:
        """What tools have given at the end of the conversation, by the names of the functions that were called."""
        calls = [call for message in self.messages for call in message.get("tool_calls") or ()]
        names = {call["id"]: call["function"]["name"] for call in calls if "function" in call}
        given: dict[str, list[str]] = {}
        for message in self._results_after("user", "assistant"):
            given.setdefault(names.get(message["tool_call_id"], ""), []).append(text_of(message))
        return given

    def _results_after(self, *roles: str) -> list[dict[str, Any]]:
        start = max((at for at, message in enumerate(self.messages, 1) if message["role"] in roles), default=0)
        return [message for message in self.messages[start:] if message["role"] == "tool"]


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
    stream = optional(body, "stream", bool) or False
    options = optional(body, "stream_options", dict) or {}
    if options and not stream:
        raise BadRequestError(
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.", "stream_options"
        )
    if optional(body, "n", int) not in (None, 1):
        raise BadRequestError("The rehearsal model gives one choice only: 'n' must be 1.", "n")
    limits = [optional(body, name, int) for name in ("max_completion_tokens", "max_tokens")]
    if any(limit is not None and limit < 1 for limit in limits):
        raise BadRequestError("The limit of completion tokens must be at least 1.", "max_completion_tokens")
    _check_functions(optional(body, "tools", list) or [], "tools", "name")
    return ChatRequest(
        body=body,
        model=required(body, "model", str),
        messages=_messages(body),
        stream=stream,
        include_usage=optional(options, "include_usage", bool) or False,
        most_tokens=next((limit for limit in limits if limit is not None), None),
    )


def text_of(message: dict[str, Any]) -> str:
    """The text of a message; text parts stand on lines of their own."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _messages(body: dict[str, Any]) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = required(body, "messages", list)
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
        calls = optional(message, "tool_calls", list, f"{where}.") or []
        _check_functions(calls, f"{where}.tool_calls", "name", "arguments")
        for call_position, call in enumerate(calls):
            required(call, "id", str, f"{where}.tool_calls[{call_position}].")
        if message["role"] == "tool":
            required(message, "tool_call_id", str, f"{where}.")
    return messages


def _check_functions(listed: list[Any], where: str, *fields: str) -> None:
    """Tools and tool calls may be of other kinds; those that are functions need these fields."""
    for position, entry in enumerate(listed):
        at = f"{where}[{position}]"
        if not isinstance(entry, dict):
            raise BadRequestError(f"Invalid '{at}': an object is needed.", at)
        if entry.get("type") == "function" or "function" in entry:
            function = required(entry, "function", dict, f"{at}.")
            for field in fields:
                required(function, field, str, f"{at}.function.")


def _is_content(content: object, *, optional: bool) -> bool:
    if isinstance(content, list):
        return all(
            isinstance(part, dict)
            and isinstance(part.get("type"), str)
            and (part["type"] != "text" or isinstance(part.get("text"), str))
            for part in content
        )
    return isinstance(content, str) or (optional and content is None)


def required(body: dict[str, Any], name: str, kind: type, within: str = "") -> Any:
    """A value of this type. Raises BadRequestError if it is absent or something else."""
    if (value := optional(body, name, kind, within)) is None:
        raise BadRequestError(f"Missing required parameter: '{within}{name}'.", within + name)
    return value


def optional(body: dict[str, Any], name: str, kind: type, within: str = "") -> Any:
    """A value of this type, or None if it is absent. Raises BadRequestError. `within`: the path of `body`."""
    value = body.get(name)
    if value is not None and type(value) is not kind:  # not isinstance: True is no number
        got = type(value).__name__
        raise BadRequestError(f"Invalid type for '{within}{name}': expected {kind.__name__}, got {got}.", within + name)
    return value
