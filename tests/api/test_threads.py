"""/v1/threads: how a thread begins, changes and ends, and what ends with it."""

import json
import re
import time
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.api.placeholders import filled_in

CODE_INTERPRETER: dict[str, Any] = {"code_interpreter": {"file_ids": []}}


def compact(value: object) -> str:
    """JSON as the wire has it: without spaces, keys in order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def create(http: httpx.Client, **fields: Any) -> dict[str, Any]:
    response = http.post("/threads", json=fields)
    assert response.status_code == 200, response.text
    thread: dict[str, Any] = response.json()
    return thread


@pytest.mark.parametrize("body", [b"", b"{}", b"  \n", b'{"messages":null,"metadata":null,"tool_resources":null}'])
def test_a_thread_needs_nothing(http: httpx.Client, body: bytes) -> None:
    response = http.post("/threads", content=body, headers={"content-type": "application/json"})
    thread = response.json()
    assert response.status_code == 200
    assert response.text == compact(
        {
            "id": thread["id"],
            "object": "thread",
            "created_at": thread["created_at"],
            "metadata": {},
            "tool_resources": {},
        }
    )
    assert re.fullmatch(r"thread_[A-Za-z0-9]{24}", thread["id"])
    assert abs(thread["created_at"] - time.time()) < 60
    assert http.get(f"/threads/{thread['id']}/messages").json()["data"] == []


def test_a_thread_needs_no_content_type_where_there_is_no_body(http: httpx.Client) -> None:
    response = http.post("/threads")
    assert "content-type" not in response.request.headers
    assert response.status_code == 200


@pytest.mark.parametrize(
    ("sent", "created", "retrieved"),
    [
        (None, {}, CODE_INTERPRETER),
        ({}, {}, CODE_INTERPRETER),
        ({"code_interpreter": {}}, CODE_INTERPRETER, CODE_INTERPRETER),
        (
            {"code_interpreter": {"file_ids": ["file-1"]}},
            {"code_interpreter": {"file_ids": ["file-1"]}},
            {"code_interpreter": {"file_ids": ["file-1"]}},
        ),
        (
            {"file_search": {"vector_store_ids": ["vs_1"]}},
            {"file_search": {"vector_store_ids": ["vs_1"]}},
            CODE_INTERPRETER | {"file_search": {"vector_store_ids": ["vs_1"]}},
        ),
    ],
)
def test_tool_resources_gain_the_code_interpreter_when_a_thread_is_retrieved(
    http: httpx.Client, sent: object, created: object, retrieved: object
) -> None:
    fill = filled_in(http)
    thread = create(http, tool_resources=fill(sent))
    assert compact(thread["tool_resources"]) == compact(fill(created))
    response = http.get(f"/threads/{thread['id']}")
    assert response.text == compact(thread | {"tool_resources": fill(retrieved)})
    modified = http.post(f"/threads/{thread['id']}", json={"metadata": {}})
    assert modified.text == compact(thread)


def test_first_messages_are_added_in_their_order(http: httpx.Client) -> None:
    sent = [
        {"role": ("user", "assistant")[n % 2], "content": f"number {n}", "metadata": {"n": str(n)}} for n in range(25)
    ]
    thread = create(http, messages=sent)
    listed = http.get(f"/threads/{thread['id']}/messages", params={"order": "asc", "limit": 100}).json()["data"]
    assert [
        {"role": message["role"], "content": message["content"][0]["text"]["value"], "metadata": message["metadata"]}
        for message in listed
    ] == sent
    assert {message["thread_id"] for message in listed} == {thread["id"]}


def test_a_thread_with_a_bad_message_is_not_created(http: httpx.Client) -> None:
    response = http.post("/threads", json={"messages": [{"role": "user", "content": "good"}, {"role": "user"}]})
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "messages[1].content"
    assert http.get("/threads").json()["data"] == []


@pytest.mark.parametrize(
    ("change", "becomes"),
    [
        ({}, {}),
        ({"metadata": {"new": "1"}}, {"metadata": {"new": "1"}}),
        ({"metadata": {}}, {"metadata": {}}),
        ({"metadata": None}, {"metadata": {}}),
        ({"tool_resources": None}, {"tool_resources": {}}),
        ({"tool_resources": {}}, {"tool_resources": {}}),
        (
            {"tool_resources": {"file_search": {"vector_store_ids": ["vs_2"]}}},
            {"tool_resources": {"file_search": {"vector_store_ids": ["vs_2"]}}},
        ),
        (
            {"metadata": {"a": "b"}, "tool_resources": {"code_interpreter": {"file_ids": []}}},
            {"metadata": {"a": "b"}, "tool_resources": {"code_interpreter": {"file_ids": []}}},
        ),
    ],
)
def test_a_change_touches_only_what_is_sent_and_null_restores_the_default(
    http: httpx.Client, change: dict[str, Any], becomes: dict[str, Any]
) -> None:
    fill = filled_in(http)
    resources = fill({"code_interpreter": {"file_ids": ["file-1"]}, "file_search": {"vector_store_ids": ["vs_1"]}})
    change, becomes = fill(change), fill(becomes)
    before = create(http, metadata={"one": "1", "two": "2"}, tool_resources=resources)
    response = http.post(f"/threads/{before['id']}", json=change)
    assert response.status_code == 200
    assert response.text == compact(before | becomes)
    after = http.get(f"/threads/{before['id']}").json()
    assert after["metadata"] == (before | becomes)["metadata"]
    assert after["tool_resources"] == CODE_INTERPRETER | (before | becomes)["tool_resources"]


def test_a_change_without_a_body_changes_nothing(http: httpx.Client) -> None:
    before = create(http, metadata={"one": "1"})
    assert http.post(f"/threads/{before['id']}").json() == before


def test_a_deleted_thread_takes_its_messages_runs_and_steps_along(http: httpx.Client) -> None:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    thread_id = create(http, messages=[{"role": "user", "content": "[[say: Hi]]"}])["id"]
    other_id = create(http, messages=[{"role": "user", "content": "stays"}])["id"]
    http.post(f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id, "stream": True}).raise_for_status()
    message_id = http.get(f"/threads/{thread_id}/messages").json()["first_id"]
    run_id = http.get(f"/threads/{thread_id}/runs").json()["first_id"]
    step_id = http.get(f"/threads/{thread_id}/runs/{run_id}/steps").json()["first_id"]
    paths = {
        f"/threads/{thread_id}": ("thread", thread_id),
        f"/threads/{thread_id}/messages": ("thread", thread_id),
        f"/threads/{thread_id}/messages/{message_id}": ("message", message_id),
        f"/threads/{thread_id}/runs": ("thread", thread_id),
        f"/threads/{thread_id}/runs/{run_id}": ("run", run_id),
        f"/threads/{thread_id}/runs/{run_id}/steps": ("run", run_id),
        f"/threads/{thread_id}/runs/{run_id}/steps/{step_id}": ("run step", step_id),
    }
    assert [http.get(path).status_code for path in paths] == [200] * len(paths)

    deleted = http.delete(f"/threads/{thread_id}")
    assert deleted.text == compact({"id": thread_id, "object": "thread.deleted", "deleted": True})

    for path, (noun, object_id) in paths.items():
        gone = http.get(path)
        assert gone.status_code == 404, path
        assert gone.json()["error"]["message"] == f"No {noun} found with id '{object_id}'."
    assert http.delete(f"/threads/{thread_id}").status_code == 404
    assert http.post(f"/threads/{thread_id}", json={}).status_code == 404
    assert http.post(f"/threads/{thread_id}/messages", json={"role": "user", "content": "x"}).status_code == 404
    assert http.post(f"/threads/{thread_id}/runs", json={"assistant_id": assistant_id}).status_code == 404
    assert len(http.get(f"/threads/{other_id}/messages").json()["data"]) == 1
    assert http.get(f"/assistants/{assistant_id}").status_code == 200


def test_threads_can_be_listed_which_the_original_could_not(http: httpx.Client) -> None:
    assert http.get("/threads").text == compact(
        {"object": "list", "data": [], "first_id": None, "last_id": None, "has_more": False}
    )
    made = [create(http, metadata={"n": str(number)}) for number in range(3)]
    listed = http.get("/threads").json()
    assert listed["data"] == [thread | {"tool_resources": CODE_INTERPRETER} for thread in reversed(made)]
    assert (listed["first_id"], listed["last_id"]) == (made[2]["id"], made[0]["id"])


def test_the_sdk_creates_changes_and_deletes_threads(sdk: OpenAI) -> None:
    threads = sdk.beta.threads
    empty = threads.create()
    assert (empty.metadata, empty.object) == ({}, "thread")
    made = threads.create(
        messages=[{"role": "user", "content": "Hello"}],
        metadata={"user": "7"},
        tool_resources={"code_interpreter": {"file_ids": ["file-1"]}},
    )
    retrieved = threads.retrieve(made.id)
    assert retrieved.tool_resources is not None
    assert retrieved.tool_resources.code_interpreter is not None
    assert retrieved.tool_resources.code_interpreter.file_ids == ["file-1"]
    assert threads.update(made.id, metadata={"user": "8"}).metadata == {"user": "8"}
    assert threads.delete(made.id).deleted is True
    with pytest.raises(NotFoundError, match=f"No thread found with id '{made.id}'"):
        threads.retrieve(made.id)
