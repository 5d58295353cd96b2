"""Assistants that call functions, as tests see them: two functions, what they give, and the parts of transcripts."""

from typing import Any

import httpx

from tests.runs.transcripts import DONE, Conversation, converse

Json = dict[str, Any]

QUEUED_AGAIN = [
    "thread.run.step.completed completed",
    "thread.run.queued queued",
    "thread.run.in_progress in_progress",
]
ENDED = [
    "thread.message.completed completed",
    "thread.run.step.completed completed",
    "thread.run.completed completed",
    DONE,
]
WAITS = ["thread.run.requires_action requires_action", DONE]
OUTPUTS = {"add": "7", "multiply": "12"}


def function(name: str, **definition: Any) -> Json:
    return {"type": "function", "function": {"name": name, **definition}}


TOOLS = [function("add"), function("multiply")]


def calculator(http: httpx.Client, content: str, **assistant: Any) -> Conversation:
    """A conversation with an assistant that may add and multiply."""
    return converse(http, content, **{"tools": TOOLS, **assistant})


def calls_of(run: Json) -> list[Json]:
    """The calls that a run waits for."""
    calls: list[Json] = run["required_action"]["submit_tool_outputs"]["tool_calls"]
    return calls


def message_of(response: httpx.Response) -> str:
    """What a refusal says."""
    assert response.status_code == 400, response.text
    error = response.json()["error"]
    assert error == {"message": error["message"], "type": "invalid_request_error", "param": None, "code": None}
    message: str = error["message"]
    return message
