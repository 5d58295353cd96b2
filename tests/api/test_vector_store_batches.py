"""Batches of files that are put into vector stores."""

from typing import Any

import httpx
import pytest

from tests.api.test_vector_store_files import DEFAULT, LONG, SMALL, attach, found, listed, shown
from tests.api.test_vector_stores import FOODS, NO_FILES, refusal, send, settled, store_of
from tests.runs.transcripts import eventually

Json = dict[str, Any]


def batched(http: httpx.Client, store_id: str, **body: Any) -> Json:
    response = http.post(f"/vector_stores/{store_id}/file_batches", json=body)
    shown: Json = response.raise_for_status().json()
    return shown


def test_a_batch_is_shown_as_recorded_and_counts_its_files(http: httpx.Client) -> None:
    store_id = store_of(http, send(http, "Not of the batch"))
    file_ids = [send(http, f"Number {number}") for number in range(4)]
    batch = batched(http, store_id, file_ids=file_ids, attributes={"a": 1}, chunking_strategy=SMALL)
    assert list(batch) == ["id", "object", "created_at", "status", "vector_store_id", "file_counts"]
    assert (batch["object"], batch["status"], batch["vector_store_id"]) == (
        *("vector_store.file_batch", "in_progress", store_id),
    )
    assert batch["file_counts"] == NO_FILES | {"in_progress": 4, "total": 4}
    settled(http, store_id)
    path = f"/vector_stores/{store_id}/file_batches/{batch['id']}"
    response = http.get(path)
    assert response.headers["openai-poll-after-ms"] == "100"
    done = {"status": "completed", "file_counts": NO_FILES | {"completed": 4, "total": 4}}
    assert response.json() == batch | done
    assert listed(http, f"{path}/files") == file_ids
    assert listed(http, f"{path}/files", limit=2, after=file_ids[0]) == file_ids[1:3]
    assert listed(http, f"{path}/files", filter="failed") == []
    files = http.get(f"{path}/files").json()["data"]
    assert [(file["attributes"], file["chunking_strategy"]) for file in files] == [({"a": 1}, SMALL)] * 4
    assert http.post(f"{path}/cancel").json() == batch | done, "it has ended"


def test_files_of_a_batch_may_have_settings_of_their_own(http: httpx.Client) -> None:
    one, other, store_id = send(http, "One"), send(http, "Other"), store_of(http)
    files = [{"file_id": one, "attributes": {"a": 1}, "chunking_strategy": SMALL}, {"file_id": other}]
    batched(http, store_id, files=files, attributes={"a": 2})
    assert [shown(http, store_id, each)["attributes"] for each in (one, other)] == [{"a": 1}, {}]
    assert [shown(http, store_id, each)["chunking_strategy"] for each in (one, other)] == [SMALL, DEFAULT]


def test_a_file_that_a_batch_names_twice_is_there_once_as_it_was_named_last(http: httpx.Client) -> None:
    file_id, store_id = send(http, "Twice"), store_of(http)
    files = [{"file_id": file_id, "attributes": {"turn": turn}} for turn in (1, 2)]
    assert batched(http, store_id, files=files)["file_counts"]["total"] == 1
    assert shown(http, store_id, file_id)["attributes"] == {"turn": 2}


def test_a_batch_takes_files_that_are_in_the_store_already(http: httpx.Client) -> None:
    file_id = send(http, FOODS)
    store_id = store_of(http, file_id)
    batch = batched(http, store_id, file_ids=[file_id])
    assert (batch["status"], batch["file_counts"]) == ("completed", NO_FILES | {"completed": 1, "total": 1})


def test_a_cancelled_batch_leaves_no_file_in_progress(idle: httpx.Client) -> None:
    store_id = idle.post("/vector_stores").json()["id"]
    alone = send(idle, "Alone")
    attach(idle, store_id, alone)
    file_ids = [send(idle, f"Number {number}") for number in range(3)]
    batch = batched(idle, store_id, file_ids=file_ids)
    path = f"/vector_stores/{store_id}/file_batches/{batch['id']}"
    cancelled = idle.post(f"{path}/cancel").json()
    assert cancelled == batch | {"status": "cancelled", "file_counts": NO_FILES | {"cancelled": 3, "total": 3}}
    assert idle.post(f"{path}/cancel").json() == idle.get(path).json() == cancelled
    assert listed(idle, f"{path}/files", filter="cancelled") == file_ids
    assert listed(idle, f"/vector_stores/{store_id}/files", filter="in_progress") == [alone]
    again = attach(idle, store_id, file_ids[0])
    assert again["status"] == "in_progress"


def test_a_batch_that_is_cancelled_while_it_is_indexed_ends(http: httpx.Client) -> None:
    store_id = store_of(http)
    file_ids = [send(http, LONG * 5, f"{number}.txt") for number in range(12)]
    batch = batched(http, store_id, file_ids=file_ids)
    path = f"/vector_stores/{store_id}/file_batches/{batch['id']}"
    eventually(lambda: http.get(path).json()["file_counts"]["completed"])
    cancelled = http.post(f"{path}/cancel").json()
    assert (cancelled["status"], cancelled["file_counts"]["in_progress"]) == ("cancelled", 0)
    completed = listed(http, f"{path}/files", filter="completed")
    assert 0 < len(completed) < len(file_ids)
    assert http.get(path).json() == cancelled
    assert set(found(http, store_id, "Line", max_num_results=50)) <= set(completed)


BAD_BATCHES = [
    ({}, None, "invalid_value"),
    ({"file_ids": ["f"], "files": [{"file_id": "f"}]}, None, "invalid_value"),
    ({"file_ids": []}, "file_ids", "empty_array"),
    ({"files": []}, "files", "empty_array"),
    ({"file_ids": ["f"] * 2001}, "file_ids", "array_above_max_length"),
    ({"files": [{"file_id": "f"}] * 2001}, "files", "array_above_max_length"),
    ({"files": ["f"]}, "files[0]", "invalid_type"),
    ({"files": [{}]}, "files[0].file_id", "missing_required_parameter"),
    ({"file_ids": ["f"], "attributes": {"k": None}}, "attributes.k", "invalid_type"),
    ({"file_ids": ["f"], "name": "n"}, "name", "unknown_parameter"),
]


@pytest.mark.parametrize(("body", "param", "code"), BAD_BATCHES)
def test_a_bad_batch_is_refused(http: httpx.Client, body: Json, param: str | None, code: str) -> None:
    status, message, *told = refusal(http.post(f"/vector_stores/{store_of(http)}/file_batches", json=body))
    assert (status, told) == (400, [param, code]), message


def test_a_batch_may_have_two_thousand_files(idle: httpx.Client) -> None:
    store_id, file_id = idle.post("/vector_stores").json()["id"], send(idle, "x")
    assert batched(idle, store_id, file_ids=[file_id] * 2000)["file_counts"]["total"] == 1


def test_a_batch_is_found_in_its_own_store_only(http: httpx.Client) -> None:
    here, elsewhere = store_of(http), store_of(http)
    batch = batched(http, here, file_ids=[send(http, "x")])["id"]
    for batch_id, store_id in ((batch, elsewhere), ("vsfb_none", here)):
        for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/files")):
            response = http.request(method, f"/vector_stores/{store_id}/file_batches/{batch_id}{path}")
            assert refusal(response)[:2] == (404, f"No vector store file batch found with id '{batch_id}'.")
    for method, path in (("GET", ""), ("POST", "/cancel"), ("GET", "/files")):
        response = http.request(method, f"/vector_stores/{here}/file_batches/vs_x{path}")
        assert refusal(response) == (
            *(400, "Invalid 'batch_id': 'vs_x'. Expected an ID that begins with 'vsfb_'.", "batch_id", "invalid_value"),
        )
