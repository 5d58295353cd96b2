"""/v1/assistants: what is filled in, what a change touches, what comes back."""

import json
import re
import time
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.api.placeholders import filled_in

FILE_SEARCH_DEFAULTS = {
    "ranking_options": {"ranker": "default_2024_08_21", "score_threshold": 0.0, "hybrid_search": None}
}
NO_PARAMETERS = {"type": "object", "properties": {}}


def compact(value: object) -> str:
    """JSON as the wire has it: without spaces, keys in order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def create(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/assistants", json={"model": "gpt-4o", **fields})
    assert response.status_code == 200, response.text
    assistant: dict[str, Any] = response.json()
    return assistant


def test_a_model_is_all_that_an_assistant_needs_and_the_rest_is_filled_in(http: httpx.Client) -> None:
    response = http.post("/assistants", json={"model": "gpt-4o"})
    assistant = response.json()
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.text == compact(
        {
            "id": assistant["id"],
            "object": "assistant",
            "created_at": assistant["created_at"],
            "name": None,
            "description": None,
            "model": "gpt-4o",
            "instructions": None,
            "tools": [],
            "top_p": 1.0,
            "temperature": 1.0,
            "reasoning_effort": None,
            "tool_resources": {},
            "metadata": {},
            "response_format": "auto",
        }
    )
    assert re.fullmatch(r"asst_[A-Za-z0-9]{24}", assistant["id"])
    assert abs(assistant["created_at"] - time.time()) < 60


def test_null_means_the_same_as_absent_when_an_assistant_is_created(http: httpx.Client) -> None:
    plain = create(http)
    names = plain.keys() - {"id", "object", "created_at", "model"}
    nulled = create(http, **dict.fromkeys(names))
    assert {name: nulled[name] for name in names} == {name: plain[name] for name in names}


def test_every_field_comes_back_as_it_was_sent(http: httpx.Client) -> None:
    sent = {
        "model": "my/own model:7b",
        "name": "Größe 😀 \u2028",
        "description": 'quotes " and \\ and \n',
        "instructions": "\u202eright to left",
        "tools": [{"type": "code_interpreter"}],
        "top_p": 0.1,
        "temperature": 1.7,
        "reasoning_effort": "high",
        "tool_resources": {"code_interpreter": {"file_ids": ["file-1", "file-2"]}},
        "metadata": {"z": "1", "a": "", "": "empty key"},
        "response_format": {"type": "json_object"},
    }
    created = create(http, **sent)
    assert {name: created[name] for name in sent} == sent
    assert list(created["metadata"]) == ["z", "a", ""]
    assert http.get(f"/assistants/{created['id']}").json() == created


def test_whole_numbers_come_back_as_decimals_where_the_field_is_one(http: httpx.Client) -> None:
    response = http.post("/assistants", json={"model": "m", "temperature": 0, "top_p": 1})
    assert '"top_p":1.0,"temperature":0.0' in response.text


def test_values_at_their_limits_are_accepted(http: httpx.Client) -> None:
    sent: dict[str, Any] = {
        "name": "n" * 256,
        "description": "d" * 512,
        "instructions": "😀" * 256_000,
        "temperature": 2,
        "top_p": 0,
        "metadata": {f"{number:064}": "v" * 512 for number in range(16)},
        "tools": [{"type": "function", "function": {"name": f"f{number:063}"}} for number in range(128)],
        "tool_resources": {"code_interpreter": {"file_ids": [f"file-{number}" for number in range(20)]}},
    }
    created = create(http, **sent)
    assert created["instructions"] == sent["instructions"]
    assert created["metadata"] == sent["metadata"]
    assert len(created["tools"]) == 128
    assert created["tool_resources"] == sent["tool_resources"]


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ({"type": "code_interpreter"}, {"type": "code_interpreter"}),
        ({"type": "file_search"}, {"type": "file_search", "file_search": FILE_SEARCH_DEFAULTS}),
        (
            {"type": "file_search", "file_search": {"max_num_results": 7}},
            {"type": "file_search", "file_search": {"max_num_results": 7, **FILE_SEARCH_DEFAULTS}},
        ),
        (
            {"type": "file_search", "file_search": {"ranking_options": {"ranker": "auto", "score_threshold": 0.5}}},
            {
                "type": "file_search",
                "file_search": {"ranking_options": {"ranker": "auto", "score_threshold": 0.5, "hybrid_search": None}},
            },
        ),
        (
            {"type": "function", "function": {"name": "f"}},
            {"type": "function", "function": {"name": "f", "parameters": NO_PARAMETERS, "strict": False}},
        ),
        (
            {"type": "function", "function": {"name": "f", "description": "does", "strict": True, "parameters": {}}},
            {"type": "function", "function": {"name": "f", "description": "does", "parameters": {}, "strict": True}},
        ),
    ],
)
def test_tools_are_completed(http: httpx.Client, sent: object, stored: object) -> None:
    created = create(http, tools=[sent])
    assert compact(created["tools"]) == compact([stored])
    assert http.get(f"/assistants/{created['id']}").json()["tools"] == [stored]


def test_the_schema_of_a_function_keeps_every_key_in_its_order(http: httpx.Client) -> None:
    parameters = {
        "type": "object",
        "required": ["z", "a"],
        "properties": {
            "z": {"type": "string", "enum": ["b", "a", "é"]},
            "a": {"anyOf": [{"type": "null"}, {"x": 1.5}]},
        },
        "additionalProperties": False,
        "$defs": {"list": [[], {}, 0, -1, 12345678901234567, None, True]},
    }
    created = create(http, tools=[{"type": "function", "function": {"name": "f", "parameters": parameters}}])
    retrieved = http.get(f"/assistants/{created['id']}").json()
    assert compact(retrieved["tools"][0]["function"]["parameters"]) == compact(parameters)


@pytest.mark.parametrize(
    ("tools", "sent", "stored"),
    [
        (["code_interpreter"], None, {"code_interpreter": {"file_ids": []}}),
        (["code_interpreter"], {"code_interpreter": {}}, {"code_interpreter": {"file_ids": []}}),
        (
            ["code_interpreter"],
            {"code_interpreter": {"file_ids": ["file-1"]}},
            {"code_interpreter": {"file_ids": ["file-1"]}},
        ),
        (
            ["code_interpreter", "file_search"],
            {"file_search": {"vector_store_ids": ["vs_1"]}},
            {"code_interpreter": {"file_ids": []}, "file_search": {"vector_store_ids": ["vs_1"]}},
        ),
        (["file_search"], None, {}),
        ([], {}, {}),
        ([], {"code_interpreter": None, "file_search": None}, {}),
    ],
)
def test_a_code_interpreter_has_an_entry_in_the_tool_resources(
    http: httpx.Client, tools: list[str], sent: object, stored: object
) -> None:
    fill = filled_in(http)
    created = create(http, tools=[{"type": tool} for tool in tools], tool_resources=fill(sent))
    assert compact(created["tool_resources"]) == compact(fill(stored))


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("auto", "auto"),
        ({"type": "text"}, {"type": "text"}),
        ({"type": "json_object"}, {"type": "json_object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object", "b": 1, "a": 2}}},
            {
                "type": "json_schema",
                "json_schema": {"name": "n", "schema": {"type": "object", "b": 1, "a": 2}, "strict": False},
            },
        ),
    ],
)
def test_response_formats_are_kept(http: httpx.Client, sent: object, stored: object) -> None:
    created = create(http, response_format=sent)
    assert compact(http.get(f"/assistants/{created['id']}").json()["response_format"]) == compact(stored)


@pytest.mark.parametrize(
    ("change", "becomes"),
    [
        ({"name": "new"}, {"name": "new"}),
        ({"model": "other"}, {"model": "other"}),
        ({"description": None}, {"description": None}),
        ({"name": None, "instructions": None}, {"name": None, "instructions": None}),
        ({"instructions": ""}, {"instructions": ""}),
        ({"temperature": None, "top_p": None}, {"temperature": 1.0, "top_p": 1.0}),
        ({"temperature": 0}, {"temperature": 0.0}),
        ({"tools": None}, {"tools": []}),
        ({"tools": []}, {"tools": []}),
        (
            {"tools": [{"type": "file_search"}]},
            {"tools": [{"type": "file_search", "file_search": FILE_SEARCH_DEFAULTS}]},
        ),
        ({"tool_resources": None}, {"tool_resources": {}}),
        (
            {"tool_resources": {"code_interpreter": {"file_ids": ["file-9"]}}},
            {"tool_resources": {"code_interpreter": {"file_ids": ["file-9"]}}},
        ),
        ({"metadata": {"only": "this"}}, {"metadata": {"only": "this"}}),
        ({"metadata": {}}, {"metadata": {}}),
        ({"metadata": None}, {"metadata": {}}),
        ({"response_format": None}, {"response_format": "auto"}),
        ({"reasoning_effort": None}, {"reasoning_effort": None}),
        ({"model": None}, {}),
        ({}, {}),
    ],
)
def test_a_change_touches_only_what_is_sent_and_null_restores_the_default(
    http: httpx.Client, change: dict[str, Any], becomes: dict[str, Any]
) -> None:
    before = create(
        http,
        name="before",
        description="before",
        instructions="before",
        tools=[{"type": "code_interpreter"}],
        tool_resources={"code_interpreter": {"file_ids": ["file-1"]}},
        temperature=0.5,
        top_p=0.5,
        reasoning_effort="low",
        metadata={"one": "1", "two": "2"},
        response_format={"type": "json_object"},
    )
    response = http.post(f"/assistants/{before['id']}", json=change)
    assert response.status_code == 200
    assert response.text == compact(before | becomes)
    assert http.get(f"/assistants/{before['id']}").text == response.text


def test_a_change_without_a_body_changes_nothing(http: httpx.Client) -> None:
    before = create(http, name="before")
    assert http.post(f"/assistants/{before['id']}").json() == before


def test_a_deleted_assistant_is_gone(http: httpx.Client) -> None:
    assistant_id = create(http)["id"]
    response = http.delete(f"/assistants/{assistant_id}")
    assert response.status_code == 200
    assert response.text == compact({"id": assistant_id, "object": "assistant.deleted", "deleted": True})
    for again in (
        http.get(f"/assistants/{assistant_id}"),
        http.post(f"/assistants/{assistant_id}", json={"name": "x"}),
        http.delete(f"/assistants/{assistant_id}"),
    ):
        assert again.status_code == 404
        assert again.json()["error"]["message"] == f"No assistant found with id '{assistant_id}'."
    assert http.get("/assistants").json()["data"] == []


def test_a_deleted_assistant_leaves_its_runs_and_cannot_run_again(http: httpx.Client) -> None:
    assistant_id = create(http)["id"]
    thread_id = http.post("/threads", json={"messages": [{"role": "user", "content": "[[say: Hi]]"}]}).json()["id"]
    http.post(f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id, "stream": True}).raise_for_status()
    http.delete(f"/assistants/{assistant_id}").raise_for_status()
    [run] = http.get(f"/threads/{thread_id}/runs").json()["data"]
    assert (run["assistant_id"], run["status"]) == (assistant_id, "completed")
    refused = http.post(f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == f"No assistant found with id '{assistant_id}'."


def test_the_list_shows_the_same_objects_newest_first(http: httpx.Client) -> None:
    made = [create(http, name=str(number), tools=[{"type": "file_search"}]) for number in range(3)]
    response = http.get("/assistants")
    assert response.text == compact(
        {
            "object": "list",
            "data": made[::-1],
            "first_id": made[2]["id"],
            "last_id": made[0]["id"],
            "has_more": False,
        }
    )


def test_the_sdk_creates_changes_lists_and_deletes_assistants(sdk: OpenAI) -> None:
    assistants = sdk.beta.assistants
    made = assistants.create(
        model="gpt-4o",
        name="Math tutor",
        tools=[{"type": "function", "function": {"name": "f"}}, {"type": "file_search"}],
        response_format={"type": "json_schema", "json_schema": {"name": "n", "schema": {"type": "object"}}},
        metadata={"a": "b"},
    )
    assert made.tools[0].type == "function"
    assert made.tools[0].function.parameters == NO_PARAMETERS
    assert assistants.retrieve(made.id) == made
    changed = assistants.update(made.id, name="Tutor", metadata={})
    assert (changed.name, changed.metadata, changed.tools) == ("Tutor", {}, made.tools)
    assert [listed.id for listed in assistants.list()] == [made.id]
    assert assistants.delete(made.id).deleted is True
    with pytest.raises(NotFoundError, match=f"No assistant found with id '{made.id}'"):
        assistants.retrieve(made.id)
