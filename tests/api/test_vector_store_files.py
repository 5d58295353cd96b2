"""Files of vector stores: put in, shown, changed, read and taken out."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.api.test_vector_stores import FOODS, NO_FILES, chunks_left, refusal, send, settled, store_of
from tests.conftest import Server
from tests.runs.transcripts import eventually

Json = dict[str, Any]
SMALL = {"type": "static", "static": {"max_chunk_size_tokens": 100, "chunk_overlap_tokens": 50}}
DEFAULT = {"type": "static", "static": {"max_chunk_size_tokens": 800, "chunk_overlap_tokens": 400}}
LONG = "\n".join(f"Line {number}: naïve 👩‍👩‍👧‍👦 你好 {'x' * (number % 17)}" for number in range(600))
UNSUPPORTED = {"code": "unsupported_file", "message": "The file type is not supported."}


def attach(http: httpx.Client, store_id: str, file_id: str, **fields: Any) -> Json:
    response = http.post(f"/vector_stores/{store_id}/files", json={"file_id": file_id, **fields})
    shown: Json = response.raise_for_status().json()
    return shown


def shown(http: httpx.Client, store_id: str, file_id: str) -> Json:
    """The file once it is no longer in progress."""
    settled(http, store_id)
    file: Json = http.get(f"/vector_stores/{store_id}/files/{file_id}").raise_for_status().json()
    return file


def listed(http: httpx.Client, path: str, **params: Any) -> list[str]:
    """Ids, oldest first unless asked otherwise."""
    response = http.get(path, params={"order": "asc"} | params)
    return [file["id"] for file in response.raise_for_status().json()["data"]]


def found(http: httpx.Client, store_id: str, query: str, **fields: Any) -> list[str]:
    response = http.post(f"/vector_stores/{store_id}/search", json={"query": query, **fields})
    return [result["file_id"] for result in response.raise_for_status().json()["data"]]


# --- Put in


def test_a_file_is_shown_as_recorded_until_it_can_be_searched(idle: httpx.Client) -> None:
    file_id, store_id = send(idle, FOODS), idle.post("/vector_stores").json()["id"]
    file = attach(idle, store_id, file_id)
    assert list(file) == [
        *("id", "object", "usage_bytes", "created_at", "vector_store_id", "status", "last_error"),
        *("chunking_strategy", "attributes"),
    ]
    assert file == {
        "id": file_id,
        "object": "vector_store.file",
        "usage_bytes": 0,
        "created_at": file["created_at"],
        "vector_store_id": store_id,
        "status": "in_progress",
        "last_error": None,
        "chunking_strategy": DEFAULT,
        "attributes": {},
    }
    assert idle.get(f"/vector_stores/{store_id}/files/{file_id}").json() == file
    store = idle.get(f"/vector_stores/{store_id}").json()
    assert (store["status"], store["file_counts"]) == ("in_progress", NO_FILES | {"in_progress": 1, "total": 1})
    status, message, *_ = refusal(idle.get(f"/vector_stores/{store_id}/files/{file_id}/content"))
    assert (status, message) == (400, f"The content of '{file_id}' cannot be shown: its status is 'in_progress'.")
    assert found(idle, store_id, "cake") == []


def test_a_file_is_completed_with_its_settings(http: httpx.Client) -> None:
    file_id, store_id = send(http, FOODS), store_of(http)
    attributes = {"text": "x", "number": 1.5, "whole": 2, "yes": True, "": "", "k" * 64: "v" * 512}
    assert attach(http, store_id, file_id, chunking_strategy=SMALL, attributes=attributes)["attributes"] == attributes
    file = shown(http, store_id, file_id)
    assert (file["status"], file["usage_bytes"]) == ("completed", len(FOODS) + 1024)
    assert (file["chunking_strategy"], file["attributes"]) == (SMALL, attributes)


@pytest.mark.parametrize("strategy", [None, {"type": "auto"}])
def test_no_strategy_and_auto_are_shown_as_what_they_are(idle: httpx.Client, strategy: Json | None) -> None:
    store_id = idle.post("/vector_stores").json()["id"]
    assert attach(idle, store_id, send(idle, "x"), chunking_strategy=strategy)["chunking_strategy"] == DEFAULT


@pytest.mark.parametrize(
    ("name", "content", "error"),
    [
        ("table.csv", b"a,b", UNSUPPORTED),
        ("none", b"text", UNSUPPORTED),
        ("broken.pdf", b"no pdf", {"code": "invalid_file", "message": "The file could not be parsed."}),
        (
            "empty.txt",
            b"",
            {"code": "invalid_file", "message": "The file could not be parsed because it contains no text."},
        ),
    ],
)
def test_a_file_that_cannot_be_searched_fails_and_says_why(
    http: httpx.Client, name: str, content: bytes, error: Json
) -> None:
    file_id, store_id = send(http, content, name), store_of(http)
    assert attach(http, store_id, file_id)["status"] == "in_progress"
    file = shown(http, store_id, file_id)
    assert (file["status"], file["last_error"], file["usage_bytes"]) == ("failed", error, 0)
    store = http.get(f"/vector_stores/{store_id}").json()
    assert (store["status"], store["file_counts"]) == ("completed", NO_FILES | {"failed": 1, "total": 1})
    status, message, *_ = refusal(http.get(f"/vector_stores/{store_id}/files/{file_id}/content"))
    assert (status, message) == (400, f"The content of '{file_id}' cannot be shown: its status is 'failed'.")


BAD_FILES = [
    ({"file_id": None}, "file_id", "invalid_type"),
    ({"file_id": ""}, "file_id", "string_below_min_length"),
    ({"file_id": "f" * 257}, "file_id", "string_above_max_length"),
    ({"attributes": []}, "attributes", "invalid_type"),
    ({"attributes": {"k": None}}, "attributes.k", "invalid_type"),
    ({"attributes": {"k": []}}, "attributes.k", "invalid_type"),
    ({"attributes": {"k": {}}}, "attributes.k", "invalid_type"),
    ({"attributes": {"k": "v" * 513}}, "attributes.k", "string_above_max_length"),
    ({"attributes": {"k" * 65: 1}}, f"attributes.{'k' * 65}", "property_name_above_max_length"),
    ({"attributes": {str(n): n for n in range(17)}}, "attributes", "object_above_max_properties"),
    ({"attributes": {"k": 2**64}}, "attributes", "invalid_value"),
    ({"attributes": {"k": -(10**30)}}, "attributes", "invalid_value"),
    ({"attributes": {"k": "\0"}}, None, "invalid_value"),
    ({"attributes": {"\0": 1}}, None, "invalid_value"),
    ({"chunking_strategy": {"type": "other"}}, "chunking_strategy.type", "invalid_value"),
    ({"batch_id": "vsfb_x"}, "batch_id", "unknown_parameter"),
]


@pytest.mark.parametrize(("fields", "param", "code"), BAD_FILES)
def test_a_bad_file_is_refused_by_itself_and_in_a_batch(
    http: httpx.Client, fields: Json, param: str | None, code: str
) -> None:
    store_id, body = store_of(http), {"file_id": send(http, "x")} | fields
    status, message, *told = refusal(http.post(f"/vector_stores/{store_id}/files", json=body))
    assert (status, told) == (400, [param, code]), message
    response = http.post(f"/vector_stores/{store_id}/file_batches", json={"files": [body]})
    status, message, *told = refusal(response)
    assert (status, told) == (400, [param and f"files[0].{param}", code]), message
    assert http.get(f"/vector_stores/{store_id}").json()["file_counts"] == NO_FILES


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000])
def test_numbers_that_json_does_not_know_are_refused(http: httpx.Client, number: str) -> None:
    store_id = store_of(http)
    file_id = send(http, "x")
    attach(http, store_id, file_id)
    for path in ("files", f"files/{file_id}"):
        body = f'{{"file_id": "{file_id}", "attributes": {{"k": {number}}}}}'
        response = http.post(
            f"/vector_stores/{store_id}/{path}", content=body, headers={"content-type": "application/json"}
        )
        assert refusal(response)[0] == 400
    response = http.post(
        f"/vector_stores/{store_id}/search",
        content=f'{{"query": "x", "filters": {{"type": "eq", "key": "k", "value": {number}}}}}',
        headers={"content-type": "application/json"},
    )
    assert refusal(response)[0] == 400


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, -(2**63), 1e308, 5e-324, -0.0, 0.1, 10**15])
def test_great_and_small_numbers_come_back_as_they_are(http: httpx.Client, number: float) -> None:
    file_id, store_id = send(http, "x"), store_of(http)
    attach(http, store_id, file_id, attributes={"k": number})
    file = shown(http, store_id, file_id)
    assert (file["status"], repr(file["attributes"]["k"])) == ("completed", repr(number))
    path = f"/vector_stores/{store_id}/files/{file_id}"
    assert http.post(path, json={"attributes": {"k": number}}).json() == file
    assert found(http, store_id, "x", filters={"type": "eq", "key": "k", "value": number}) == [file_id]


# --- Put in again


def test_the_same_file_with_the_same_settings_stays_as_it_is(http: httpx.Client) -> None:
    file_id, store_id = send(http, FOODS), store_of(http)
    attach(http, store_id, file_id, attributes={"a": 1})
    before = shown(http, store_id, file_id)
    assert attach(http, store_id, file_id, attributes={"a": 1}) == before


def test_the_same_file_with_other_settings_is_put_in_anew(http: httpx.Client, server: Server) -> None:
    file_id, store_id = send(http, LONG), store_of(http)
    attach(http, store_id, file_id, attributes={"a": 1})
    before = shown(http, store_id, file_id)
    again = attach(http, store_id, file_id, attributes={"a": 2}, chunking_strategy=SMALL)
    assert (again["status"], again["attributes"], again["chunking_strategy"]) == ("in_progress", {"a": 2}, SMALL)
    after = shown(http, store_id, file_id)
    assert after["usage_bytes"] > before["usage_bytes"]
    assert chunks_left(server, store_id) == (after["usage_bytes"] - len(LONG.encode())) // 1024
    assert found(http, store_id, "Line", filters={"type": "eq", "key": "a", "value": 1}) == []
    assert set(found(http, store_id, "Line")) == {file_id}
    assert http.get(f"/vector_stores/{store_id}").json()["file_counts"]["total"] == 1


def test_a_file_that_failed_is_tried_again(http: httpx.Client) -> None:
    file_id, store_id = send(http, "a,b", "table.csv"), store_of(http)
    attach(http, store_id, file_id)
    assert shown(http, store_id, file_id)["status"] == "failed"
    again = attach(http, store_id, file_id)
    assert (again["status"], again["last_error"]) == ("in_progress", None)
    assert shown(http, store_id, file_id)["status"] == "failed"


def test_a_file_may_be_in_several_stores(http: httpx.Client) -> None:
    file_id = send(http, FOODS)
    one, other = store_of(http, file_id), store_of(http, file_id)
    http.delete(f"/vector_stores/{one}/files/{file_id}").raise_for_status()
    assert (found(http, one, "cake"), found(http, other, "cake")) == ([], [file_id])


# --- Lists


def test_lists_are_filtered_by_status_and_paged(http: httpx.Client) -> None:
    good = [send(http, f"Good {number}") for number in range(3)]
    bad = send(http, "a,b", "table.csv")
    store_id = store_of(http, *good)
    attach(http, store_id, bad)
    settled(http, store_id)
    path = f"/vector_stores/{store_id}/files"
    assert listed(http, path) == [*good, bad]
    assert listed(http, path, order="desc") == [bad, *good[::-1]]
    assert listed(http, path, filter="completed") == good
    assert listed(http, path, filter="failed") == [bad]
    assert listed(http, path, filter="in_progress") == listed(http, path, filter="cancelled") == []
    assert listed(http, path, filter="completed", limit=1, after=good[0]) == [good[1]]
    assert listed(http, path, filter="completed", order="desc", after=bad) == good[::-1]
    assert listed(http, path, filter="failed", after=good[1]) == [bad]
    assert listed(http, path, filter="completed", before=good[1]) == [good[0]]


@pytest.mark.parametrize("value", ["done", "Completed", ""])
def test_an_unknown_status_is_no_filter(http: httpx.Client, value: str) -> None:
    message = f"Invalid value: '{value}'. Supported values are: 'in_progress', 'completed', 'failed', and 'cancelled'."
    store_id = store_of(http, send(http, "x"))
    response = http.get(f"/vector_stores/{store_id}/files", params={"filter": value})
    assert refusal(response) == (400, message, "filter", "invalid_value")


def test_a_cursor_has_to_be_a_file_of_the_store(http: httpx.Client) -> None:
    elsewhere, here = send(http, "Elsewhere"), send(http, "Here")
    store_of(http, elsewhere)
    response = http.get(f"/vector_stores/{store_of(http, here)}/files", params={"after": elsewhere})
    assert refusal(response)[:2] == (404, f"No vector store file found with id '{elsewhere}'.")


# --- Attributes


def test_attributes_are_replaced_as_a_whole_and_filtered_on_at_once(http: httpx.Client) -> None:
    file_id, store_id = send(http, FOODS), store_of(http)
    attach(http, store_id, file_id, attributes={"year": 2024, "kind": "food"})
    before = shown(http, store_id, file_id)
    path = f"/vector_stores/{store_id}/files/{file_id}"
    old, new = ({"type": "eq", "key": "year", "value": year} for year in (2024, 2025))
    assert (found(http, store_id, "cake", filters=old), found(http, store_id, "cake", filters=new)) == ([file_id], [])
    changed = http.post(path, json={"attributes": {"year": 2025}}).json()
    assert changed == before | {"attributes": {"year": 2025}} == http.get(path).json()
    assert (found(http, store_id, "cake", filters=old), found(http, store_id, "cake", filters=new)) == ([], [file_id])
    result = http.post(f"/vector_stores/{store_id}/search", json={"query": "cake"}).json()["data"][0]
    assert result["attributes"] == {"year": 2025}
    assert http.post(path, json={"attributes": None}).json()["attributes"] == {}
    assert found(http, store_id, "cake", filters=new) == []


def test_attributes_of_a_file_in_progress_may_be_changed(idle: httpx.Client) -> None:
    file_id, store_id = send(idle, FOODS), idle.post("/vector_stores").json()["id"]
    attach(idle, store_id, file_id, attributes={"a": 1})
    changed = idle.post(f"/vector_stores/{store_id}/files/{file_id}", json={"attributes": {"a": 2}}).json()
    assert (changed["status"], changed["attributes"]) == ("in_progress", {"a": 2})


def test_attributes_that_change_while_a_file_is_indexed_are_those_that_it_has(http: httpx.Client) -> None:
    file_id, store_id = send(http, LONG * 4), store_of(http)
    attach(http, store_id, file_id, chunking_strategy=SMALL, attributes={"turn": -1})
    path = f"/vector_stores/{store_id}/files/{file_id}"
    statuses = [http.post(path, json={"attributes": {"turn": turn}}).json()["status"] for turn in range(25)]
    assert statuses[0] == "in_progress"
    turn = len(statuses) - 1
    assert shown(http, store_id, file_id)["attributes"] == {"turn": turn}
    of_turn = {"type": "eq", "key": "turn", "value": turn}
    assert set(found(http, store_id, "Line", filters=of_turn, max_num_results=50)) == {file_id}
    assert found(http, store_id, "Line", filters={"type": "ne", "key": "turn", "value": turn}) == []


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "attributes", "missing_required_parameter"),
        ({"attributes": {}, "chunking_strategy": SMALL}, "chunking_strategy", "unknown_parameter"),
        ({"attributes": {"k": "v" * 513}}, "attributes.k", "string_above_max_length"),
        ({"attributes": {"k": 10**30}}, "attributes", "invalid_value"),
    ],
)
def test_bad_attributes_are_refused_and_change_nothing(http: httpx.Client, body: Json, param: str, code: str) -> None:
    file_id = send(http, FOODS)
    store_id = store_of(http, file_id)
    before = shown(http, store_id, file_id)
    response = http.post(f"/vector_stores/{store_id}/files/{file_id}", json=body)
    status, _, *told = refusal(response)
    assert (status, told) == (400, [param, code])
    assert shown(http, store_id, file_id) == before


# --- Content


@pytest.mark.parametrize("strategy", [SMALL, DEFAULT])
def test_the_content_is_the_whole_text_and_nothing_twice(http: httpx.Client, strategy: Json) -> None:
    file_id, store_id = send(http, LONG), store_of(http)
    attach(http, store_id, file_id, chunking_strategy=strategy)
    shown(http, store_id, file_id)
    content = http.get(f"/vector_stores/{store_id}/files/{file_id}/content").json()
    assert list(content) == ["object", "data", "has_more", "next_page"]
    assert (content["object"], content["has_more"], content["next_page"]) == (
        *("vector_store.file_content.page", False, None),
    )
    assert len(content["data"]) > 2
    assert "".join(part["text"] for part in content["data"]) == LONG
    assert {part["type"] for part in content["data"]} == {"text"}


# --- Taken out


def test_a_file_that_is_taken_out_is_not_found_any_more_and_stays_a_file(http: httpx.Client, server: Server) -> None:
    file_id, other = send(http, FOODS), send(http, "No cake here")
    store_id = store_of(http, file_id, other)
    path = f"/vector_stores/{store_id}/files/{file_id}"
    assert set(found(http, store_id, "cake")) == {file_id, other}
    deleted = http.delete(path).json()
    assert deleted == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    assert found(http, store_id, "cake") == [other]
    for method in ("GET", "DELETE"):
        assert refusal(http.request(method, path)) == (
            *(404, f"No vector store file found with id '{file_id}'.", None, None),
        )
    assert http.get(f"/files/{file_id}").status_code == 200
    assert http.get(f"/vector_stores/{store_id}").json()["usage_bytes"] == len("No cake here") + 1024
    assert chunks_left(server, store_id) == 1


def test_a_deleted_file_is_gone_from_all_stores_and_not_found_any_more(http: httpx.Client, server: Server) -> None:
    file_id = send(http, FOODS)
    stores = [store_of(http, file_id), store_of(http, file_id)]
    http.delete(f"/files/{file_id}").raise_for_status()
    for store_id in stores:
        assert found(http, store_id, "cake") == listed(http, f"/vector_stores/{store_id}/files") == []
        assert http.get(f"/vector_stores/{store_id}").json()["file_counts"] == NO_FILES
        assert chunks_left(server, store_id) == 0


# --- Several at once, and the SDK


def test_putting_in_and_taking_out_at_once_never_breaks_the_server(http: httpx.Client, server: Server) -> None:
    store_id = store_of(http)
    file_ids = [send(http, f"Number {number}") for number in range(6)]
    path = f"/vector_stores/{store_id}"

    def one(turn: int) -> set[int]:
        mine = file_ids[turn % 6 :] + file_ids[: turn % 6]
        with httpx.Client(base_url=server.base_url, headers=http.headers, timeout=60) as client:
            batch = client.post(f"{path}/file_batches", json={"file_ids": mine[:: 1 if turn % 2 else -1]})
            answers = [
                batch,
                client.post(f"{path}/files", json={"file_id": mine[0], "attributes": {"turn": turn}}),
                client.post(f"{path}/files/{mine[1]}", json={"attributes": {"turn": turn}}),
                client.delete(f"{path}/files/{mine[2]}"),
                client.post(f"{path}/search", json={"query": "Number"}),
                client.post(f"{path}/file_batches/{batch.json().get('id', 'vsfb_none')}/cancel"),
            ]
            if turn == 20:
                answers.append(client.delete(f"/files/{mine[3]}"))
            return {answer.status_code for answer in answers}

    with ThreadPoolExecutor(8) as threads:
        statuses = set().union(*threads.map(one, range(32)))
    assert statuses <= {200, 404}
    settled(http, store_id)
    there = listed(http, f"{path}/files", filter="completed")
    assert set(found(http, store_id, "Number", max_num_results=50)) == set(there)


def test_deleting_a_store_while_files_are_put_in_never_breaks_the_server(http: httpx.Client, server: Server) -> None:
    file_ids = [send(http, f"Number {number}") for number in range(4)]

    def one(turn: int) -> set[int]:
        with httpx.Client(base_url=server.base_url, headers=http.headers, timeout=60) as client:
            store_id = stores[turn % len(stores)]
            if turn >= 3 * len(stores):
                return {client.delete(f"/vector_stores/{store_id}").status_code}
            batch = client.post(f"/vector_stores/{store_id}/file_batches", json={"file_ids": file_ids})
            path = f"/vector_stores/{store_id}/file_batches/{batch.json().get('id', 'vsfb_none')}/cancel"
            return {batch.status_code, client.post(path).status_code}

    stores = [store_of(http) for _ in range(5)]
    with ThreadPoolExecutor(8) as threads:
        statuses = set().union(*threads.map(one, range(4 * len(stores))))
    assert statuses <= {200, 404}
    eventually(lambda: sum(chunks_left(server, store_id) for store_id in stores) == 0, within_s=90)


def test_the_polling_helpers_of_the_sdk_come_to_an_end(sdk: OpenAI, http: httpx.Client) -> None:
    store_id = store_of(http)
    api = sdk.vector_stores
    file = api.files.create_and_poll(send(http, FOODS), vector_store_id=store_id, attributes={"a": 1})
    assert (file.status, file.attributes) == ("completed", {"a": 1})
    uploads = [(f"{number}.txt", b"Number") for number in range(3)]
    batch = api.file_batches.upload_and_poll(store_id, files=uploads, file_ids=[file.id])
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 4, 4)
    assert len(list(api.file_batches.list_files(batch.id, vector_store_id=store_id, limit=2))) == 4
    again = api.file_batches.create_and_poll(store_id, file_ids=[file.id])
    assert again.status == "completed"
    assert api.file_batches.cancel(again.id, vector_store_id=store_id).status == "completed"
    failed = api.files.upload_and_poll(vector_store_id=store_id, file=("table.csv", b"a,b"))
    assert failed.last_error
    assert (failed.status, failed.last_error.code) == ("failed", "unsupported_file")
    assert [each.id for each in api.files.list(store_id, filter="failed")] == [failed.id]
    assert api.files.update(file.id, vector_store_id=store_id, attributes={"b": "2"}).attributes == {"b": "2"}
    assert api.files.delete(file.id, vector_store_id=store_id).deleted
