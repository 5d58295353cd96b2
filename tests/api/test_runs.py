"""The settings of runs: what is filled in, what an override does, what retrieving a run tells pollers."""

from typing import Any

import httpx
import pytest

FILLED_IN: dict[str, Any] = {
    "instructions": None,
    "tools": [],
    "tool_resources": {},
    "metadata": {},
    "temperature": 1.0,
    "top_p": 1.0,
    "reasoning_effort": None,
    "max_completion_tokens": None,
    "max_prompt_tokens": None,
    "truncation_strategy": {"type": "auto", "last_messages": None},
    "incomplete_details": None,
    "response_format": "auto",
    "tool_choice": "auto",
    "parallel_tool_calls": True,
}
"""*Source*: semantics, section 0."""


F = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": True}}


def _run(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    response = http.post("/threads/runs", json={"assistant_id": assistant_id} | fields)
    assert response.status_code == 200, response.text
    shown: dict[str, Any] = response.json()
    return shown


@pytest.mark.parametrize("sent", [{}, dict.fromkeys(FILLED_IN.keys() - {"incomplete_details"})])
def test_what_is_not_sent_with_a_run_or_is_null_is_filled_in(http: httpx.Client, sent: dict[str, Any]) -> None:
    run = _run(http, **sent)
    assert {field: run[field] for field in FILLED_IN} == FILLED_IN
    assert run["model"] == "m"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ({"truncation_strategy": {"type": "auto"}}, {"truncation_strategy": {"type": "auto", "last_messages": None}}),
        ({"truncation_strategy": {"type": "last_messages", "last_messages": 1}}, None),
        ({"tools": [F], "tool_choice": {"type": "function", "function": {"name": "f"}}}, None),
        ({"tools": [F, {"type": "code_interpreter"}], "tool_choice": {"type": "code_interpreter"}}, None),
        ({"tools": [F], "tool_choice": "required"}, None),
        ({"parallel_tool_calls": False}, None),
        ({"temperature": 0, "top_p": 0}, {"temperature": 0.0, "top_p": 0.0}),
        ({"max_prompt_tokens": 256, "max_completion_tokens": 2_147_483_647}, None),
        ({"instructions": "", "tools": [{"type": "code_interpreter"}] * 128}, {"instructions": None}),
        ({"metadata": {"k" * 64: "v" * 512}}, None),
    ],
)
def test_an_override_is_shown_as_it_was_sent(
    http: httpx.Client, sent: dict[str, Any], shown: dict[str, Any] | None
) -> None:
    expected = sent | (shown or {})
    run = _run(http, **sent)
    assert {field: run[field] for field in expected} == expected


def test_pollers_are_told_to_come_back_soon(http: httpx.Client) -> None:
    run = _run(http)
    response = http.get(f"/threads/{run['thread_id']}/runs/{run['id']}")
    assert response.headers["openai-poll-after-ms"] == "100"
