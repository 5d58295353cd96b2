"""/v1/threads/{thread_id}/messages: content in all its forms, and what may be changed afterwards."""

import json
import re
import time
from typing import Any

import httpx
import pytest
from openai import NotFoundError, OpenAI

from tests.api.placeholders import filled_in

URL = "https://example.com/cat.png"


def compact(value: object) -> str:
    """JSON as the wire has it: without spaces, keys in order."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def text(value: str) -> dict[str, Any]:
    return {"type": "text", "text": {"value": value, "annotations": []}}


@pytest.fixture
def thread(http: httpx.Client) -> str:
    """The path of a thread without messages."""
    return f"/threads/{http.post('/threads').json()['id']}"


def create(http: httpx.Client, thread: str, **fields: Any) -> dict[str, Any]:
    response = http.post(f"{thread}/messages", json={"role": "user", "content": "Hello", **fields})
    assert response.status_code == 200, response.text
    message: dict[str, Any] = response.json()
    return message


@pytest.mark.parametrize("role", ["user", "assistant"])
def test_a_message_is_complete_from_the_start(http: httpx.Client, thread: str, role: str) -> None:
    response = http.post(f"{thread}/messages", json={"role": role, "content": "Hello"})
    message = response.json()
    assert response.status_code == 200
    assert response.text == compact(
        {
            "id": message["id"],
            "object": "thread.message",
            "created_at": message["created_at"],
            "assistant_id": None,
            "thread_id": thread.removeprefix("/threads/"),
            "run_id": None,
            "status": "completed",
            "incomplete_details": None,
            "incomplete_at": None,
            "completed_at": message["created_at"],
            "role": role,
            "content": [text("Hello")],
            "attachments": [],
            "metadata": {},
        }
    )
    assert re.fullmatch(r"msg_[A-Za-z0-9]{24}", message["id"])
    assert abs(message["created_at"] - time.time()) < 60
    assert http.get(f"{thread}/messages/{message['id']}").text == response.text


@pytest.mark.parametrize(
    ("sent", "stored"),
    [
        ("plain", [text("plain")]),
        (
            "\u202e \u2028 \ufffe 😀 e\u0301 \\u0041 \x7f \x01",
            [text("\u202e \u2028 \ufffe 😀 e\u0301 \\u0041 \x7f \x01")],
        ),
        ('{"json": "in a string"}', [text('{"json": "in a string"}')]),
        ([{"type": "text", "text": "a part"}], [text("a part")]),
        ([{"type": "text", "text": "one"}, {"type": "text", "text": "two"}], [text("one"), text("two")]),
        (
            [{"type": "image_url", "image_url": {"url": URL}}],
            [{"type": "image_url", "image_url": {"url": URL, "detail": "auto"}}],
        ),
        (
            [{"type": "image_url", "image_url": {"detail": None, "url": URL}}],
            [{"type": "image_url", "image_url": {"url": URL, "detail": "auto"}}],
        ),
        (
            [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}],
            [{"type": "image_url", "image_url": {"url": URL, "detail": "low"}}],
        ),
        (
            [{"type": "image_file", "image_file": {"file_id": "file-1"}}],
            [{"type": "image_file", "image_file": {"file_id": "file-1", "detail": "auto"}}],
        ),
        (
            [
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "high"}},
                {"type": "text", "text": "What is this?"},
                {"type": "image_url", "image_url": {"url": URL}},
            ],
            [
                {"type": "image_file", "image_file": {"file_id": "file-1", "detail": "high"}},
                text("What is this?"),
                {"type": "image_url", "image_url": {"url": URL, "detail": "auto"}},
            ],
        ),
    ],
)
def test_content_becomes_a_list_of_parts(http: httpx.Client, thread: str, sent: Any, stored: object) -> None:
    created = create(http, thread, content=sent)
    assert compact(created["content"]) == compact(stored)
    assert http.get(f"{thread}/messages/{created['id']}").json()["content"] == stored


def test_a_text_may_have_256000_characters_of_any_plane(http: httpx.Client, thread: str) -> None:
    for character in ("a", "😀"):
        long = character * 256_000
        assert create(http, thread, content=long)["content"] == [text(long)]


@pytest.mark.parametrize(
    "attachments",
    [
        [{"file_id": "file-1", "tools": [{"type": "file_search"}]}],
        [{"file_id": "file-1", "tools": [{"type": "code_interpreter"}, {"type": "file_search"}]}],
        [{"file_id": "file-2", "tools": []}, {"file_id": "file-1", "tools": [{"type": "code_interpreter"}]}],
        [],
    ],
)
def test_attachments_are_kept_as_they_were_sent(http: httpx.Client, thread: str, attachments: object) -> None:
    attachments = filled_in(http)(attachments)
    created = create(http, thread, attachments=attachments)
    assert compact(created["attachments"]) == compact(attachments)
    assert http.get(f"{thread}/messages/{created['id']}").json() == created


def test_null_means_the_same_as_absent_when_a_message_is_created(http: httpx.Client, thread: str) -> None:
    created = create(http, thread, attachments=None, metadata=None)
    assert (created["attachments"], created["metadata"]) == ([], {})


@pytest.mark.parametrize(
    ("change", "metadata"),
    [
        ({}, {"one": "1", "two": "2"}),
        ({"metadata": {"two": "3"}}, {"two": "3"}),
        ({"metadata": {}}, {}),
        ({"metadata": None}, {}),
    ],
)
def test_only_the_metadata_of_a_message_can_be_replaced(
    http: httpx.Client, thread: str, change: dict[str, Any], metadata: dict[str, str]
) -> None:
    before = create(
        http,
        thread,
        metadata={"one": "1", "two": "2"},
        attachments=filled_in(http)([{"file_id": "file-1", "tools": [{"type": "file_search"}]}]),
    )
    modified = http.post(f"{thread}/messages/{before['id']}", json=change)
    assert modified.status_code == 200
    assert modified.text == compact(before | {"metadata": metadata} | {"file_ids": []})
    assert http.get(f"{thread}/messages/{before['id']}").json() == before | {"metadata": metadata}


@pytest.mark.parametrize("field", ["role", "content", "attachments", "status", "id"])
def test_nothing_else_of_a_message_can_be_changed(http: httpx.Client, thread: str, field: str) -> None:
    before = create(http, thread)
    refused = http.post(f"{thread}/messages/{before['id']}", json={field: before[field]})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"] == f"Unknown parameter: '{field}'."
    assert http.get(f"{thread}/messages/{before['id']}").json() == before


def test_a_deleted_message_is_gone_and_the_others_stay(http: httpx.Client, thread: str) -> None:
    first, second, third = (create(http, thread, content=str(number)) for number in range(3))
    path = f"{thread}/messages/{second['id']}"
    response = http.delete(path)
    assert response.status_code == 200
    assert response.text == compact({"id": second["id"], "object": "thread.message.deleted", "deleted": True})
    for again in (http.get(path), http.post(path, json={"metadata": {}}), http.delete(path)):
        assert again.status_code == 404
        assert again.json()["error"]["message"] == f"No message found with id '{second['id']}'."
    assert http.get(f"{thread}/messages").json()["data"] == [third, first]


def test_a_message_is_found_on_its_own_thread_only(http: httpx.Client, thread: str) -> None:
    message = create(http, thread)
    elsewhere = f"/threads/{http.post('/threads').json()['id']}/messages/{message['id']}"
    for refused in (http.get(elsewhere), http.post(elsewhere, json={"metadata": {}}), http.delete(elsewhere)):
        assert refused.status_code == 404
        assert refused.json()["error"]["message"] == f"No message found with id '{message['id']}'."
    assert http.get(f"{thread}/messages/{message['id']}").json() == message


def test_a_message_of_a_run_names_its_run_and_assistant(http: httpx.Client, thread: str) -> None:
    assistant_id = http.post("/assistants", json={"model": "m"}).json()["id"]
    create(http, thread, content="[[say: Good day]]")
    http.post(f"{thread}/runs", json={"assistant_id": assistant_id, "stream": True}).raise_for_status()
    answer, question = http.get(f"{thread}/messages").json()["data"]
    [run] = http.get(f"{thread}/runs").json()["data"]
    assert list(answer) == list(question)
    assert (answer["role"], answer["status"], answer["content"]) == ("assistant", "completed", [text("Good day")])
    assert (answer["run_id"], answer["assistant_id"]) == (run["id"], assistant_id)
    assert (question["run_id"], question["assistant_id"]) == (None, None)
    modified = http.post(f"{thread}/messages/{answer['id']}", json={"metadata": {"liked": "yes"}}).json()
    assert modified == answer | {"metadata": {"liked": "yes"}, "file_ids": []}


def test_the_sdk_creates_changes_lists_and_deletes_messages(sdk: OpenAI) -> None:
    messages = sdk.beta.threads.messages
    thread_id = sdk.beta.threads.create().id
    file = sdk.files.create(file=("notes.txt", b"Notes"), purpose="assistants")
    made = messages.create(
        thread_id,
        role="user",
        content=[{"type": "text", "text": "Look"}, {"type": "image_url", "image_url": {"url": URL}}],
        attachments=[{"file_id": file.id, "tools": [{"type": "file_search"}]}],
    )
    words, image = made.content
    assert words.type == "text"
    assert words.text.value == "Look"
    assert image.type == "image_url"
    assert (image.image_url.url, image.image_url.detail) == (URL, "auto")
    assert messages.retrieve(made.id, thread_id=thread_id) == made
    assert messages.update(made.id, thread_id=thread_id, metadata={"a": "b"}).metadata == {"a": "b"}
    assert [listed.id for listed in messages.list(thread_id)] == [made.id]
    assert messages.delete(made.id, thread_id=thread_id).deleted is True
    with pytest.raises(NotFoundError, match=f"No message found with id '{made.id}'"):
        messages.retrieve(made.id, thread_id=thread_id)
