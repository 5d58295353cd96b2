"""An embedded index belongs to one server; one that is lost is made again from the files."""

import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
from pydantic import SecretStr

from adlatus.settings import Settings
from tests.api.test_vector_stores import send, settled, store_of
from tests.conftest import BETA, Loop, Server, serving
from tests.faults.processes import data_folder, run, serve

NOTES = "The harbour master keeps the keys to the lighthouse."


def found(http: httpx.Client, store_id: str) -> list[str]:
    answer = http.post(f"/vector_stores/{store_id}/search", json={"query": "Who keeps the keys?"})
    return [result["content"][0]["text"] for result in answer.raise_for_status().json()["data"]]


def client_of(server: Server) -> httpx.Client:
    return httpx.Client(base_url=server.base_url, headers=BETA, timeout=30)


def test_a_second_server_of_a_database_says_where_the_index_is(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    shared = Settings(database_url=SecretStr(new_database()), storage_url=f"file://{tmp_path}", data_dir=tmp_path / "a")
    with (
        serving(loop, shared) as first,
        client_of(first) as owner,
        serving(loop, shared.model_copy(update={"data_dir": tmp_path / "b"})) as second,
        client_of(second) as other,
    ):
        store_id = store_of(other, send(other, NOTES))
        assert found(owner, store_id) == [NOTES]
        refused = other.post(f"/vector_stores/{store_id}/search", json={"query": "keys"})
        assert refused.status_code == 503
        assert "Set ADLATUS_QDRANT_URL for all of them" in refused.json()["error"]["message"]
        ready = httpx.get(f"{second.url}/readyz")
        assert ready.status_code == 200
        assert ready.json()["components"]["index"] == "does not answer"
        assert "no file search in this process" in ready.json()["uses"]["index"]
        assert httpx.get(f"{first.url}/readyz").json()["components"]["index"] == "ok"


def test_a_run_that_searches_is_executed_where_the_index_is(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    shared = Settings(database_url=SecretStr(new_database()), storage_url=f"file://{tmp_path}", data_dir=tmp_path / "a")
    question = {"role": "user", "content": '[[call: file_search {"queries": ["Who keeps the keys?"]}]]'}
    with (
        serving(loop, shared),
        serving(loop, shared.model_copy(update={"data_dir": tmp_path / "b"})) as second,
        client_of(second) as http,
    ):
        resources = {"file_search": {"vector_store_ids": [store_of(http, send(http, NOTES))]}}
        assistant = {"model": "m", "tools": [{"type": "file_search"}], "tool_resources": resources}
        body = {"assistant_id": http.post("/assistants", json=assistant).json()["id"]}
        events = http.post("/threads/runs", json=body | {"thread": {"messages": [question]}, "stream": True}).text
        assert "event: thread.run.completed" in events
        assert '"file_name":"notes.txt"' in events


def test_a_lost_index_of_an_embedded_database_is_made_again() -> None:
    with data_folder() as folder:
        with serve(folder) as server, server.client() as http:
            store_id = store_of(http, send(http, NOTES))
            assert found(http, store_id) == [NOTES]
            assert server.stop() == 0
        shutil.rmtree(folder / "vectors")
        with serve(folder) as server, server.client() as http:
            assert "the embedded index is a new one" in server.log
            assert settled(http, store_id)["file_counts"]["completed"] == 1
            assert found(http, store_id) == [NOTES]
            assert server.stop() == 0


def test_an_index_is_made_again_for_a_server_that_takes_over(
    loop: Loop, new_database: Callable[[], str], tmp_path: Path
) -> None:
    dsn, storage = new_database(), f"file://{tmp_path}"
    with (
        serving(loop, Settings(database_url=SecretStr(dsn), data_dir=tmp_path / "lost", storage_url=storage)) as server,
        client_of(server) as http,
    ):
        store_id = store_of(http, send(http, NOTES))
    code, said = run("index", "rebuild", "--data-dir", str(tmp_path / "new"), database_url=dsn, storage_url=storage)
    assert (code, "1 file(s) are going to be indexed again" in said) == (0, True), said
    with (
        serving(loop, Settings(database_url=SecretStr(dsn), data_dir=tmp_path / "new", storage_url=storage)) as server,
        client_of(server) as http,
    ):
        assert settled(http, store_id)["file_counts"]["completed"] == 1
        assert found(http, store_id) == [NOTES]
