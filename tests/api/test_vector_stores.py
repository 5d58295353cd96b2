"""Vector stores over HTTP and by the SDK: what is made, shown, listed, changed and deleted, and how they expire."""

import re
import time
from typing import Any

import httpx
import pytest
from openai import BadRequestError, NotFoundError, OpenAI
from sqlalchemy import text

from adlatus.retrieval.index import KEYWORDS
from adlatus.retrieval.sweeping import sweep
from tests.conftest import Server

Json = dict[str, Any]
DEADLINE_S = 60
DAY_S = 86_400
NO_FILES = {"in_progress": 0, "completed": 0, "failed": 0, "cancelled": 0, "total": 0}
FOODS = "The favorite food of several people:\n- Summanus Ferdinand: tacos\n- Filip Carola: cake"
EXPIRY = {"anchor": "last_active_at", "days": 3}


def send(http: httpx.Client, text: str | bytes, name: str = "notes.txt", purpose: str = "assistants") -> str:
    content = text.encode() if isinstance(text, str) else text
    response = http.post("/files", data={"purpose": purpose}, files={"file": (name, content)})
    response.raise_for_status()
    file_id: str = response.json()["id"]
    return file_id


def settled(http: httpx.Client, store_id: str) -> Json:
    """The store once none of its files is in progress."""
    give_up_at = time.monotonic() + DEADLINE_S
    while (store := http.get(f"/vector_stores/{store_id}").json())["file_counts"]["in_progress"]:
        assert time.monotonic() < give_up_at
        time.sleep(0.02)
    shown: Json = store
    return shown


def store_of(http: httpx.Client, *file_ids: str, **fields: Any) -> str:
    response = http.post("/vector_stores", json={"file_ids": list(file_ids), **fields})
    response.raise_for_status()
    store_id: str = response.json()["id"]
    settled(http, store_id)
    return store_id


def refusal(response: httpx.Response) -> tuple[int, str, str | None, str | None]:
    """Status, message, param and code of a refusal, whose shape is checked."""
    assert list(response.json()) == ["error"]
    shown = response.json()["error"]
    assert list(shown) == ["message", "type", "param", "code"]
    assert shown["type"] == "invalid_request_error"
    return response.status_code, shown["message"], shown["param"], shown["code"]


def expire(server: Server, store_id: str) -> None:
    """Let a store's last use be longer ago than it may be."""
    statement = text("UPDATE vector_stores SET expires_after_days = 1, last_active_at = 1000 WHERE id = :by_id")
    server.loop.run(server.resources.database.fetch(statement, by_id=store_id))


def chunks_left(server: Server, store_id: str) -> int:
    """How many chunks of a store are in the index, once what is due has been swept."""
    server.loop.run(sweep(server.resources))
    embedder = server.resources.embedder
    assert embedder is None, "the tests' server finds files by their words"
    return server.loop.run(server.resources.index.count(KEYWORDS, store_id))


# --- Made and shown


def test_a_file_that_is_put_into_a_store_can_be_searched(sdk: OpenAI) -> None:
    store = sdk.vector_stores.create(name="Foods", metadata={"kind": "foods"})
    assert store.status == "completed"
    file = sdk.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("foods.txt", FOODS.encode()))
    assert file.status == "completed", file
    assert file.usage_bytes == len(FOODS) + 1024
    found = sdk.vector_stores.search(store.id, query="What does Filip like to eat?")
    [result] = found.data
    assert (result.file_id, result.filename) == (file.id, "foods.txt")
    assert [part.text for part in result.content] == [FOODS]
    assert 0 <= result.score <= 1
    content = sdk.vector_stores.files.content(file.id, vector_store_id=store.id)
    assert [page.text for page in content] == [FOODS]


def test_a_store_is_shown_as_recorded(http: httpx.Client) -> None:
    store = http.post("/vector_stores", json={}).json()
    assert list(store) == [
        *("id", "object", "created_at", "name", "description", "usage_bytes", "file_counts", "status"),
        *("expires_after", "expires_at", "last_active_at", "metadata"),
    ]
    assert re.fullmatch(r"vs_[0-9a-f]{32}", store["id"])
    assert store["last_active_at"] == store["created_at"]
    assert {name: store[name] for name in ("object", "usage_bytes", "file_counts", "status", "metadata")} == {
        "object": "vector_store",
        "usage_bytes": 0,
        "file_counts": NO_FILES,
        "status": "completed",
        "metadata": {},
    }
    assert [store[name] for name in ("name", "description", "expires_after", "expires_at")] == [None] * 4
    assert http.get(f"/vector_stores/{store['id']}").json() == store


@pytest.mark.parametrize("body", [b"", b"{}", b'{"file_ids": [], "metadata": null, "name": null}'])
def test_a_store_needs_nothing(http: httpx.Client, body: bytes) -> None:
    made = http.post("/vector_stores", content=body, headers={"content-type": "application/json"})
    assert (made.status_code, made.json()["file_counts"]) == (200, NO_FILES)


def test_a_store_is_made_with_everything_and_its_files_are_counted(http: httpx.Client) -> None:
    file_ids = [send(http, f"Number {number}") for number in range(3)]
    chunking = {"type": "static", "static": {"max_chunk_size_tokens": 200, "chunk_overlap_tokens": 100}}
    body = {
        "file_ids": file_ids,
        "name": "Whole",
        "description": "Has everything",
        "expires_after": EXPIRY,
        "chunking_strategy": chunking,
        "metadata": {"kind": "whole"},
    }
    made = http.post("/vector_stores", json=body).json()
    assert (made["status"], made["usage_bytes"]) == ("in_progress", 0)
    assert made["file_counts"] == NO_FILES | {"in_progress": 3, "total": 3}
    assert (made["name"], made["description"], made["metadata"]) == ("Whole", "Has everything", {"kind": "whole"})
    assert (made["expires_after"], made["expires_at"]) == (EXPIRY, made["last_active_at"] + 3 * DAY_S)
    done = settled(http, made["id"])
    assert (done["status"], done["usage_bytes"]) == ("completed", 3 * (len("Number 0") + 1024))
    assert done["file_counts"] == NO_FILES | {"completed": 3, "total": 3}
    files = http.get(f"/vector_stores/{made['id']}/files", params={"order": "asc"}).json()["data"]
    assert [(file["id"], file["chunking_strategy"]) for file in files] == [(each, chunking) for each in file_ids]


def test_a_file_that_is_named_twice_is_there_once(http: httpx.Client) -> None:
    file_id = send(http, "Once")
    made = http.post("/vector_stores", json={"file_ids": [file_id, file_id]}).json()
    assert made["file_counts"]["total"] == 1


def test_the_answer_tells_polling_helpers_to_come_back_soon(http: httpx.Client) -> None:
    file_id = send(http, "Soon")
    store_id = store_of(http, file_id)
    for path in (f"/vector_stores/{store_id}", f"/vector_stores/{store_id}/files/{file_id}"):
        assert http.get(path).headers["openai-poll-after-ms"] == "100"


def test_no_beta_header_is_wanted(http: httpx.Client) -> None:
    del http.headers["OpenAI-Beta"]
    assert http.get(f"/vector_stores/{store_of(http)}").status_code == 200


# --- Refused


def chunking(size: Any, overlap: Any) -> Json:
    sizes = {"max_chunk_size_tokens": size, "chunk_overlap_tokens": overlap}
    return {"chunking_strategy": {"type": "static", "static": sizes}}


BAD_STORES = [
    ({"name": "n" * 513}, "name", "string_above_max_length"),
    ({"description": "d" * 513}, "description", "string_above_max_length"),
    ({"name": 5}, "name", "invalid_type"),
    ({"file_ids": "file-1"}, "file_ids", "invalid_type"),
    ({"file_ids": [5]}, "file_ids[0]", "invalid_type"),
    ({"file_ids": ["f"] * 501}, "file_ids", "array_above_max_length"),
    ({"file_ids": [""]}, "file_ids[0]", "string_below_min_length"),
    ({"expires_after": {"days": 3}}, "expires_after.anchor", "missing_required_parameter"),
    ({"expires_after": {"anchor": "created_at", "days": 3}}, "expires_after.anchor", "invalid_value"),
    ({"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days", "integer_below_min_value"),
    ({"expires_after": {"anchor": "last_active_at", "days": 366}}, "expires_after.days", "integer_above_max_value"),
    ({"expires_after": {"anchor": "last_active_at", "days": 10**30}}, "expires_after.days", "integer_above_max_value"),
    ({"expires_after": {"anchor": "last_active_at", "days": 1.5}}, "expires_after.days", "invalid_type"),
    ({"chunking_strategy": {"type": "semantic"}}, "chunking_strategy.type", "invalid_value"),
    ({"chunking_strategy": {"type": "static"}}, "chunking_strategy.static", "missing_required_parameter"),
    (chunking(99, 0), "chunking_strategy.static.max_chunk_size_tokens", "integer_below_min_value"),
    (chunking(4097, 0), "chunking_strategy.static.max_chunk_size_tokens", "integer_above_max_value"),
    (chunking(100, -1), "chunking_strategy.static.chunk_overlap_tokens", "integer_below_min_value"),
    (chunking(101, 51), "chunking_strategy.static", "invalid_value"),
    ({"metadata": {str(n): "" for n in range(17)}}, "metadata", "object_above_max_properties"),
    ({"metadata": {"k": 1}}, "metadata.k", "invalid_type"),
    ({"files": []}, "files", "unknown_parameter"),
    ({"name": "\0"}, None, "invalid_value"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD_STORES)
def test_a_bad_store_is_refused_and_not_made(http: httpx.Client, fields: Json, param: str | None, code: str) -> None:
    status, message, *told = refusal(http.post("/vector_stores", json=fields))
    assert (status, told) == (400, [param, code]), message
    assert http.get("/vector_stores").json()["data"] == []


def test_an_overlap_of_half_a_chunk_is_the_most(http: httpx.Client) -> None:
    assert http.post("/vector_stores", json=chunking(101, 50)).status_code == 200
    message = refusal(http.post("/vector_stores", json=chunking(100, 51)))[1]
    assert message == (
        "Invalid 'chunking_strategy.static': chunk_overlap_tokens must not exceed half of max_chunk_size_tokens, but "
        "51 is more than half of 100."
    )


def test_files_of_types_that_cannot_be_searched_are_refused_with_the_original_words(http: httpx.Client) -> None:
    file_ids = [send(http, "a,b", name) for name in ("b.xlsx", "a.CSV", "fine.txt", "none")]
    expected = (
        "Files with extensions [, .csv, .xlsx] are not supported for retrieval. See "
        "https://platform.openai.com/docs/assistants/tools/file-search/supported-files"
    )
    refused = http.post("/vector_stores", json={"file_ids": file_ids})
    assert refusal(refused) == (400, expected, "file_ids", "unsupported_file")
    assert http.get("/vector_stores").json()["data"] == []
    store_id = store_of(http)
    refused = http.post(f"/vector_stores/{store_id}/file_batches", json={"file_ids": file_ids})
    assert refusal(refused) == (400, expected, "file_ids", "unsupported_file")


@pytest.mark.parametrize("purpose", ["vision", "batch", "fine-tune", "evals"])
def test_files_that_are_not_for_tools_are_refused(http: httpx.Client, purpose: str) -> None:
    file_id = send(http, "Text", purpose=purpose)
    store_id = store_of(http)
    for path, body in (
        ("/vector_stores", {"file_ids": [file_id]}),
        (f"/vector_stores/{store_id}/files", {"file_id": file_id}),
        (f"/vector_stores/{store_id}/file_batches", {"file_ids": [file_id]}),
    ):
        status, message, param, _ = refusal(http.post(path, json=body))
        assert (status, param) == (400, "file_ids")
        assert message.startswith(f"The file '{file_id}' has the purpose '{purpose}'. ")


def test_files_of_user_data_can_be_searched(http: httpx.Client) -> None:
    store_id = store_of(http, send(http, "Text", purpose="user_data"))
    assert settled(http, store_id)["file_counts"]["completed"] == 1


def test_files_that_do_not_exist_are_not_found(http: httpx.Client) -> None:
    store_id = store_of(http)
    deleted = send(http, "Gone")
    http.delete(f"/files/{deleted}").raise_for_status()
    for file_id in ("file-none", deleted, "x"):
        for path, body in (
            ("/vector_stores", {"file_ids": [file_id]}),
            (f"/vector_stores/{store_id}/files", {"file_id": file_id}),
            (f"/vector_stores/{store_id}/file_batches", {"file_ids": [send(http, "Here"), file_id]}),
        ):
            expected = (404, f"No such File object: {file_id}", "file_id", None)
            assert refusal(http.post(path, json=body)) == expected
    assert http.get(f"/vector_stores/{store_id}").json()["file_counts"] == NO_FILES


UNKNOWN = "vs_" + "0" * 32
BELOW: list[tuple[str, str, Json | None]] = [
    ("GET", "", None),
    ("POST", "", {"name": "n"}),
    ("POST", "", {}),
    ("DELETE", "", None),
    ("POST", "/search", {"query": "q"}),
    ("GET", "/files", None),
    ("POST", "/files", {"file_id": "file-none"}),
    ("GET", "/files/file-none", None),
    ("POST", "/files/file-none", {"attributes": {}}),
    ("DELETE", "/files/file-none", None),
    ("GET", "/files/file-none/content", None),
    ("POST", "/file_batches", {"file_ids": ["file-none"]}),
    ("GET", "/file_batches/vsfb_none", None),
    ("POST", "/file_batches/vsfb_none/cancel", None),
    ("GET", "/file_batches/vsfb_none/files", None),
]


@pytest.mark.parametrize(("method", "path", "body"), BELOW)
def test_a_store_that_does_not_exist_is_told_by_every_operation(
    http: httpx.Client, method: str, path: str, body: Json | None
) -> None:
    response = http.request(method, f"/vector_stores/{UNKNOWN}{path}", json=body)
    assert refusal(response) == (404, f"No vector store found with id '{UNKNOWN}'.", None, None)


@pytest.mark.parametrize(("method", "path", "body"), BELOW)
def test_an_id_of_another_kind_is_told_by_every_operation(
    http: httpx.Client, method: str, path: str, body: Json | None
) -> None:
    message = "Invalid 'vector_store_id': 'file-x'. Expected an ID that begins with 'vs_'."
    response = http.request(method, f"/vector_stores/file-x{path}", json=body)
    assert refusal(response) == (400, message, "vector_store_id", "invalid_value")


@pytest.mark.parametrize(("method", "path", "body"), BELOW)
def test_a_store_of_another_project_does_not_exist(
    http: httpx.Client, stranger: httpx.Client, method: str, path: str, body: Json | None
) -> None:
    store = http.get(f"/vector_stores/{store_of(http)}").json()
    own = send(stranger, "Mine")
    body = json_with(body, own)
    response = stranger.request(method, f"/vector_stores/{store['id']}{path}", json=body)
    assert refusal(response) == (404, f"No vector store found with id '{store['id']}'.", None, None)
    assert http.get(f"/vector_stores/{store['id']}").json() == store


def json_with(body: Json | None, file_id: str) -> Json | None:
    """The body with a file that exists in place of the one that does not."""
    match body:
        case {"file_id": _}:
            return {"file_id": file_id}
        case {"file_ids": _}:
            return {"file_ids": [file_id]}
    return body


def test_a_file_of_another_project_does_not_exist(http: httpx.Client, stranger: httpx.Client) -> None:
    file_id = send(stranger, "Theirs")
    store_id = store_of(http)
    for path, body in (
        ("/vector_stores", {"file_ids": [file_id]}),
        (f"/vector_stores/{store_id}/files", {"file_id": file_id}),
        (f"/vector_stores/{store_id}/file_batches", {"files": [{"file_id": file_id}]}),
    ):
        assert refusal(http.post(path, json=body))[:2] == (404, f"No such File object: {file_id}")


# --- Changed and deleted


def test_only_what_is_sent_changes_and_null_takes_it_away(http: httpx.Client) -> None:
    body = {"name": "Before", "description": "Stays", "expires_after": EXPIRY, "metadata": {"a": "1", "b": "2"}}
    made = http.post("/vector_stores", json=body).json()
    path = f"/vector_stores/{made['id']}"

    def changed(**fields: Any) -> Json:
        shown: Json = http.post(path, json=fields).raise_for_status().json()
        assert http.get(path).json() == shown
        return shown

    assert changed() == made
    assert changed(name="After") == made | {"name": "After"}
    assert changed(metadata={"c": "3"})["metadata"] == {"c": "3"}
    longer = {"anchor": "last_active_at", "days": 365}
    assert changed(expires_after=longer)["expires_at"] == made["last_active_at"] + 365 * DAY_S
    bare = changed(name=None, expires_after=None, metadata=None)
    assert bare == made | {"name": None, "expires_after": None, "expires_at": None, "metadata": {}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"description": "d"}, "description"),
        ({"file_ids": []}, "file_ids"),
        ({"name": "n" * 513}, "name"),
        ({"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
        ({"metadata": {"k": None}}, "metadata.k"),
    ],
)
def test_a_bad_change_is_refused_and_changes_nothing(http: httpx.Client, fields: Json, param: str) -> None:
    before = http.get(f"/vector_stores/{store_of(http, name='Before')}").json()
    status, _, told, _ = refusal(http.post(f"/vector_stores/{before['id']}", json={"name": "After"} | fields))
    assert (status, told) == (400, param)
    assert http.get(f"/vector_stores/{before['id']}").json() == before


def test_a_deleted_store_is_gone_with_its_chunks_and_its_files_stay_files(http: httpx.Client, server: Server) -> None:
    file_id = send(http, FOODS)
    store_id, other = store_of(http, file_id), store_of(http, file_id)
    assert chunks_left(server, store_id) == 1
    deleted = http.delete(f"/vector_stores/{store_id}")
    assert deleted.json() == {"id": store_id, "object": "vector_store.deleted", "deleted": True}
    assert refusal(http.delete(f"/vector_stores/{store_id}"))[0] == 404
    assert [store["id"] for store in http.get("/vector_stores").json()["data"]] == [other]
    assert http.get(f"/files/{file_id}").status_code == 200
    assert (chunks_left(server, store_id), chunks_left(server, other)) == (0, 1)


# --- Expiry


def test_an_expired_store_shows_its_files_and_does_nothing_more(http: httpx.Client, server: Server) -> None:
    file_id, more = send(http, FOODS), send(http, "More")
    store_id = store_of(http, file_id)
    path = f"/vector_stores/{store_id}"
    batch = http.post(f"{path}/file_batches", json={"file_ids": [file_id]}).json()["id"]
    before = settled(http, store_id)
    expire(server, store_id)
    expired = http.get(path).json()
    assert (expired["status"], expired["expires_at"]) == ("expired", 1000 + DAY_S)
    assert expired["file_counts"] == before["file_counts"]
    for where, body in (
        ("/search", {"query": "cake"}),
        ("/files", {"file_id": more}),
        ("/files", {"file_id": file_id}),
        ("/file_batches", {"file_ids": [more]}),
        ("", {"name": "Later"}),
        ("", {"expires_after": {"anchor": "last_active_at", "days": 365}}),
    ):
        status, message, *_ = refusal(http.post(f"{path}{where}", json=body))
        assert status == 400
        assert re.search(r"Vector store 'vs_\w+' has expired", message), message
    assert http.get(path).json() == expired
    assert [file["id"] for file in http.get(f"{path}/files").json()["data"]] == [file_id]
    assert [file["id"] for file in http.get(f"{path}/file_batches/{batch}/files").json()["data"]] == [file_id]
    assert [store["status"] for store in http.get("/vector_stores").json()["data"]] == ["expired"]
    assert http.delete(path).status_code == 200


def test_the_chunks_of_an_expired_store_leave_the_index(http: httpx.Client, server: Server) -> None:
    file_id = send(http, FOODS)
    expired, other = store_of(http, file_id), store_of(http, file_id)
    expire(server, expired)
    assert (chunks_left(server, expired), chunks_left(server, other)) == (0, 1)
    status, message, *_ = refusal(http.get(f"/vector_stores/{expired}/files/{file_id}/content"))
    assert status == 400
    assert message.startswith(f"Vector store '{expired}' has expired")
    assert http.delete(f"/vector_stores/{expired}/files/{file_id}").status_code == 200
    fresh = store_of(http, file_id)
    assert http.post(f"/vector_stores/{fresh}/search", json={"query": "cake"}).json()["data"]


def test_a_search_is_a_use_from_which_the_expiry_counts(http: httpx.Client, server: Server) -> None:
    store_id = store_of(http, expires_after=EXPIRY)
    earlier = text("UPDATE vector_stores SET last_active_at = last_active_at - 86400 WHERE id = :by_id")
    server.loop.run(server.resources.database.fetch(earlier, by_id=store_id))
    before = http.get(f"/vector_stores/{store_id}").json()
    http.post(f"/vector_stores/{store_id}/search", json={"query": "cake"}).raise_for_status()
    after = http.get(f"/vector_stores/{store_id}").json()
    assert after["last_active_at"] >= before["last_active_at"] + DAY_S
    assert after["expires_at"] == after["last_active_at"] + 3 * DAY_S


# --- Lists and the SDK


def test_stores_are_listed_with_what_they_hold(http: httpx.Client) -> None:
    file_id = send(http, "Counted")
    ids = [store_of(http), store_of(http, file_id), store_of(http)]
    listed = http.get("/vector_stores").json()
    assert [store["id"] for store in listed["data"]] == ids[::-1]
    assert [store["file_counts"]["total"] for store in listed["data"]] == [0, 1, 0]
    for store in listed["data"]:
        assert http.get(f"/vector_stores/{store['id']}").json() == store


def test_the_sdk_makes_changes_lists_and_deletes_stores(sdk: OpenAI) -> None:
    made = [sdk.vector_stores.create(name=f"Store {number}") for number in range(5)]
    assert [store.id for store in sdk.vector_stores.list(limit=2, order="asc")] == [store.id for store in made]
    changed = sdk.vector_stores.update(
        made[0].id, name="Changed", expires_after={"anchor": "last_active_at", "days": 1}
    )
    assert (changed.name, changed.expires_after and changed.expires_after.days) == ("Changed", 1)
    assert sdk.vector_stores.retrieve(made[0].id) == changed
    assert sdk.vector_stores.delete(made[0].id).deleted
    with pytest.raises(NotFoundError):
        sdk.vector_stores.retrieve(made[0].id)
    with pytest.raises(BadRequestError, match="integer above maximum value"):
        sdk.vector_stores.create(expires_after={"anchor": "last_active_at", "days": 366})


def test_the_documentation_tells_of_every_operation_in_a_sentence(http: httpx.Client, server: Server) -> None:
    paths = http.get(f"{server.url}/openapi.json").json()["paths"]
    of_stores = [methods for path, methods in paths.items() if path.startswith("/v1/vector_stores")]
    described = [operation for methods in of_stores for operation in methods.values()]
    assert len(described) == 16
    for operation in described:
        assert operation["description"].endswith(".")
        assert "schema" in operation["responses"]["200"]["content"]["application/json"]
