"""Vector stores, their files and batches, over HTTP and by the SDK."""

import time
from typing import Any

import httpx
from openai import OpenAI

Json = dict[str, Any]
DEADLINE_S = 30


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


FOODS = "The favorite food of several people:\n- Summanus Ferdinand: tacos\n- Filip Carola: cake"


def test_a_file_that_is_put_into_a_store_can_be_searched(sdk: OpenAI, http: httpx.Client) -> None:
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
