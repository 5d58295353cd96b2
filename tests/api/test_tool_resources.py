"""What tools of assistants and threads work with: stores that are named or made, and attachments of messages."""

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI
from sqlalchemy import text

from tests.api.test_vector_stores import send, settled, store_of
from tests.conftest import Server

Json = dict[str, Any]
DAY_S = 86_400
SEARCH, CODE = {"type": "file_search"}, {"type": "code_interpreter"}


def post(http: httpx.Client, path: str, **body: Any) -> Json:
    answer: Json = http.post(path, json=body).raise_for_status().json()
    return answer


def attaching(file_id: str, *tools: Json) -> Json:
    return {"role": "user", "content": "Look", "attachments": [{"file_id": file_id, "tools": list(tools)}]}


def stores_of(owner: Json) -> list[str]:
    ids: list[str] = owner["tool_resources"].get("file_search", {}).get("vector_store_ids", [])
    return ids


def files_in(http: httpx.Client, store_id: str) -> list[str]:
    listed = http.get(f"/vector_stores/{store_id}/files", params={"order": "asc"}).json()["data"]
    return [file["id"] for file in listed]


def expire(server: Server, store_id: str) -> None:
    """Let a store's last use be longer ago than it may be."""
    statement = text("UPDATE vector_stores SET expires_after_days = 1, last_active_at = 1000 WHERE id = :by_id")
    server.loop.run(server.resources.database.fetch(statement, by_id=store_id))


# --- Stores that are made or named with their owner


@pytest.mark.parametrize(("path", "days"), [("/assistants", None), ("/threads", 7)])
def test_the_helper_makes_a_store_of_files(http: httpx.Client, path: str, days: int | None) -> None:
    file_id = send(http, "Notes")
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 50}}
    helper = {"file_ids": [file_id], "chunking_strategy": chunking, "metadata": {"kind": "made"}}
    model = {"model": "m", "tools": [SEARCH]} if path == "/assistants" else {}
    owner = post(http, path, tool_resources={"file_search": {"vector_stores": [helper]}}, **model)
    [store_id] = stores_of(owner)
    store = settled(http, store_id)
    assert store["metadata"] == {"kind": "made"}
    assert store["expires_after"] == (days and {"anchor": "last_active_at", "days": days})
    assert store["expires_at"] == (days and store["last_active_at"] + days * DAY_S)
    [file] = http.get(f"/vector_stores/{store_id}/files").json()["data"]
    assert (file["id"], file["chunking_strategy"]) == (file_id, chunking)
    assert http.get(f"{path}/{owner['id']}").json()["tool_resources"]["file_search"] == {"vector_store_ids": [store_id]}


@pytest.mark.parametrize("path", ["/assistants", "/threads", "/threads/runs", "/assistants/{}", "/threads/{}"])
def test_a_store_that_is_named_has_to_be_there(http: httpx.Client, path: str) -> None:
    assistant = post(http, "/assistants", model="m")["id"]
    owner = post(http, "/threads")["id"] if path == "/threads/{}" else assistant
    body: Json = {"tool_resources": {"file_search": {"vector_store_ids": ["vs_none"]}}}
    body |= {"/assistants": {"model": "m"}, "/threads/runs": {"assistant_id": assistant}}.get(path, {})
    refused = http.post(path.format(owner), json=body)
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "No vector store found with id 'vs_none'."


def test_a_store_of_another_project_is_not_there(http: httpx.Client, server: Server, sdk: OpenAI) -> None:
    with httpx.Client(base_url=server.base_url, headers={"Authorization": "Bearer key-3999"}) as other:
        theirs = store_of(other)
    refused = http.post("/threads", json={"tool_resources": {"file_search": {"vector_store_ids": [theirs]}}})
    assert refused.status_code == 404


@pytest.mark.parametrize(
    ("file_search", "message"),
    [
        ({"vector_stores": [{}, {}]}, "array too long"),
        ({"vector_stores": [{"file_ids": ["file-none"]}]}, "No such File object: file-none"),
        ({"vector_stores": [{}], "vector_store_ids": ["vs_1"]}, "only one of 'vector_store_ids' and 'vector_stores'"),
        ({"vector_stores": [{"name": "n"}]}, "Unknown parameter: 'tool_resources.file_search.vector_stores[0].name'"),
    ],
)
def test_a_wrong_helper_is_refused_and_nothing_is_made(http: httpx.Client, file_search: Json, message: str) -> None:
    refused = http.post("/threads", json={"tool_resources": {"file_search": file_search}})
    assert refused.status_code in (400, 404)
    assert message in refused.json()["error"]["message"]
    assert http.get("/vector_stores").json()["data"] == []
    assert http.get("/threads").json()["data"] == []


def test_a_file_of_a_type_that_cannot_be_searched_is_refused(http: httpx.Client) -> None:
    file_id = send(http, "a,b", name="table.csv")
    refused = http.post(
        "/threads", json={"tool_resources": {"file_search": {"vector_stores": [{"file_ids": [file_id]}]}}}
    )
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == (
        "Files with extensions [.csv] are not supported for retrieval. See "
        "https://platform.openai.com/docs/assistants/tools/file-search/supported-files"
    )
    assert refused.json()["error"]["code"] == "unsupported_file"


# --- Attachments


def test_an_attachment_makes_the_store_of_its_thread(http: httpx.Client) -> None:
    thread = post(http, "/threads")
    file_id = send(http, "Notes")
    message = post(http, f"/threads/{thread['id']}/messages", **attaching(file_id, SEARCH))
    assert message["attachments"] == [{"file_id": file_id, "tools": [SEARCH]}]
    [store_id] = stores_of(http.get(f"/threads/{thread['id']}").json())
    store = settled(http, store_id)
    assert store["expires_after"] == {"anchor": "last_active_at", "days": 7}
    assert files_in(http, store_id) == [file_id]


def test_later_attachments_extend_the_store_of_the_thread(http: httpx.Client) -> None:
    first, second, third = (send(http, f"Notes {number}") for number in range(3))
    thread = post(http, "/threads", messages=[attaching(first, SEARCH)])
    [store_id] = stores_of(thread)
    post(http, f"/threads/{thread['id']}/messages", **attaching(second, SEARCH))
    assistant = post(http, "/assistants", model="m")["id"]
    post(
        http,
        f"/threads/{thread['id']}/runs",
        assistant_id=assistant,
        additional_messages=[attaching(third, SEARCH), attaching(third, SEARCH)],
    )
    assert stores_of(http.get(f"/threads/{thread['id']}").json()) == [store_id]
    assert files_in(http, store_id) == [first, second, third]


def test_an_attachment_goes_into_the_store_that_the_thread_was_given(http: httpx.Client) -> None:
    store_id = store_of(http)
    thread = post(http, "/threads", tool_resources={"file_search": {"vector_store_ids": [store_id]}})
    file_id = send(http, "Notes")
    post(http, f"/threads/{thread['id']}/messages", **attaching(file_id, SEARCH))
    assert files_in(http, store_id) == [file_id]


@pytest.mark.parametrize("how", ["expired", "deleted"])
def test_a_store_that_cannot_be_used_any_more_is_replaced_by_an_attachment(
    http: httpx.Client, server: Server, how: str
) -> None:
    thread = post(http, "/threads", messages=[attaching(send(http, "Old"), SEARCH)])
    [old] = stores_of(thread)
    if how == "expired":
        expire(server, old)
    else:
        http.delete(f"/vector_stores/{old}").raise_for_status()
    file_id = send(http, "New")
    post(http, f"/threads/{thread['id']}/messages", **attaching(file_id, SEARCH))
    [new] = stores_of(http.get(f"/threads/{thread['id']}").json())
    assert new != old
    assert files_in(http, new) == [file_id]


def test_attachments_for_code_are_listed_with_the_thread(http: httpx.Client) -> None:
    first, second = send(http, "a,b", name="a.csv"), send(http, "Notes")
    thread = post(http, "/threads", messages=[attaching(first, CODE)])
    post(http, f"/threads/{thread['id']}/messages", **attaching(second, CODE, SEARCH))
    post(http, f"/threads/{thread['id']}/messages", **attaching(first, CODE))
    resources = http.get(f"/threads/{thread['id']}").json()["tool_resources"]
    assert list(resources) == ["code_interpreter", "file_search"]
    assert resources["code_interpreter"] == {"file_ids": [first, second]}
    assert files_in(http, resources["file_search"]["vector_store_ids"][0]) == [second]


@pytest.mark.parametrize("tool", [SEARCH, CODE])
def test_an_attachment_that_is_no_file_is_refused_with_its_message(http: httpx.Client, tool: Json) -> None:
    thread = post(http, "/threads")
    refused = http.post(f"/threads/{thread['id']}/messages", json=attaching("file-none", tool))
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == "No such File object: file-none"
    assert http.get(f"/threads/{thread['id']}/messages").json()["data"] == []
    assert stores_of(http.get(f"/threads/{thread['id']}").json()) == []


# --- Deletion and expiry


def test_a_file_that_is_deleted_leaves_all_tools(http: httpx.Client) -> None:
    kept, gone = send(http, "Kept"), send(http, "Gone")
    store_id = store_of(http, kept, gone)
    resources = {"code_interpreter": {"file_ids": [gone, kept]}, "file_search": {"vector_store_ids": [store_id]}}
    owners = [
        f"/assistants/{post(http, '/assistants', model='m', tool_resources=resources)['id']}",
        f"/threads/{post(http, '/threads', tool_resources=resources)['id']}",
    ]
    untouched = post(http, "/threads", metadata={"kind": "untouched"})
    http.delete(f"/files/{gone}").raise_for_status()
    left = {"code_interpreter": {"file_ids": [kept]}, "file_search": {"vector_store_ids": [store_id]}}
    for owner in owners:
        assert json.dumps(http.get(owner).json()["tool_resources"]) == json.dumps(left)
    assert files_in(http, store_id) == [kept]
    assert http.get(f"/threads/{untouched['id']}").json()["metadata"] == {"kind": "untouched"}


def test_the_only_file_of_a_code_interpreter_leaves_an_empty_list(http: httpx.Client) -> None:
    gone = send(http, "Gone")
    thread = post(http, "/threads", tool_resources={"code_interpreter": {"file_ids": [gone]}})
    http.delete(f"/files/{gone}").raise_for_status()
    assert http.get(f"/threads/{thread['id']}").json()["tool_resources"] == {"code_interpreter": {"file_ids": []}}


@pytest.mark.parametrize("whose", ["assistant", "thread"])
def test_a_run_whose_store_has_expired_is_refused(http: httpx.Client, server: Server, whose: str) -> None:
    store_id = store_of(http)
    resources = {"file_search": {"vector_store_ids": [store_id]}}
    of_assistant, of_thread = (resources, {}) if whose == "assistant" else ({}, resources)
    assistant = post(http, "/assistants", model="m", tools=[SEARCH], tool_resources=of_assistant)["id"]
    plain = post(http, "/assistants", model="m")["id"]
    thread = post(http, "/threads", tool_resources=of_thread)["id"]
    expire(server, store_id)
    refused = http.post(f"/threads/{thread}/runs", json={"assistant_id": assistant})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(f"Vector store '{store_id}' has expired")
    assert http.post(f"/threads/{thread}/runs", json={"assistant_id": plain}).status_code == 200


def test_a_run_whose_store_is_gone_is_refused(http: httpx.Client) -> None:
    store_id = store_of(http)
    resources = {"file_search": {"vector_store_ids": [store_id]}}
    assistant = post(http, "/assistants", model="m", tools=[SEARCH], tool_resources=resources)["id"]
    http.delete(f"/vector_stores/{store_id}").raise_for_status()
    refused = http.post("/threads/runs", json={"assistant_id": assistant})
    assert refused.status_code == 404
    assert refused.json()["error"]["message"] == f"No vector store found with id '{store_id}'."
    assert http.get("/threads").json()["data"] == []
