"""A file on its way into the index, while its settings, its store, its bytes and the database change or go."""

import asyncio
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import pytest

from adlatus.retrieval.index import ingest
from adlatus.retrieval.parse import open_parser
from adlatus.settings import Settings
from adlatus.store.leases import FILES
from adlatus.worker import Worker
from tests.conftest import Loop, Server, serving
from tests.retrieval.embedding_server import Embeddings, embedding_server
from tests.retrieval.ingesting import Records, found_by, new_store, put_in, text, until_settled, upload
from tests.retrieval.qdrant_server import Qdrant, qdrant_server
from tests.runs.cutting import cuttable
from tests.runs.stored import execute
from tests.runs.transcripts import client_of, eventually


@dataclass(frozen=True)
class Stage:
    """A server of this process, and all that it needs."""

    server: Server
    http: httpx.Client
    records: Records
    embeddings: Embeddings
    qdrant: Qdrant

    def begun(self, marker: str = "kept", requests: int = 1) -> tuple[str, str, str]:
        """Store, file and batch of a file that is in the middle: so much of it is embedded, the next part waits."""
        self.embeddings.hold_after(requests)
        store_id, file_id = new_store(self.http), upload(self.http, text(marker, 100))
        batch_id = put_in(self.http, store_id, [file_id])
        eventually(lambda: self.embeddings.asked == requests + 1)
        return store_id, file_id, batch_id

    def check_complete(self, store_id: str, markers: dict[str, str]) -> None:
        """Every file is in the index as often as its row says, and nothing else is."""
        assert until_settled(self.http, store_id)["completed"] == len(markers)
        self.records.let_all_be_swept(self.http)
        assert self.qdrant.chunks(store_id) == self.records.expected(store_id)
        for marker, file_id in markers.items():
            assert found_by(self.http, store_id, marker) == [file_id]


@contextmanager
def staged(loop: Loop, database_url: str, direct_url: str, *, executor: bool = True) -> Iterator[Stage]:
    with embedding_server() as embeddings, qdrant_server() as qdrant:
        settings = Settings(database_url=database_url, **qdrant.settings, **embeddings.settings)
        with serving(loop, settings, executor=executor) as server, client_of(server) as http:
            yield Stage(server, http, Records(loop, direct_url), embeddings, qdrant)


@pytest.fixture
def stage(loop: Loop, database_url: str) -> Iterator[Stage]:
    with staged(loop, database_url, database_url) as stage:
        yield stage


# --- Taken away


@pytest.mark.parametrize("what", ["file deleted", "taken out of its store", "store deleted", "batch cancelled"])
def test_a_file_that_goes_while_it_is_indexed_leaves_nothing(
    stage: Stage, what: str, capfd: pytest.CaptureFixture[str]
) -> None:
    http, records = stage.http, stage.records
    store_id, file_id, batch_id = stage.begun(requests=2)
    [row] = records.files(store_id)
    assert sum(stage.qdrant.chunks(store_id).values()) >= 32
    match what:
        case "file deleted":
            http.delete(f"files/{file_id}").raise_for_status()
        case "taken out of its store":
            http.delete(f"vector_stores/{store_id}/files/{file_id}").raise_for_status()
        case "store deleted":
            http.delete(f"vector_stores/{store_id}").raise_for_status()
        case "batch cancelled":
            http.post(f"vector_stores/{store_id}/file_batches/{batch_id}/cancel").raise_for_status()
    stage.embeddings.release()
    eventually(lambda: not stage.qdrant.chunks(store_id))
    statuses = [(row["status"], row["lease_token"]) for row in records.files(store_id)]
    assert statuses == ([("cancelled", None)] if what == "batch cancelled" else [])
    eventually(lambda: not stage.server.resources.metrics.files_indexing._value.get())
    assert records.loose(store_id) == [f"{file_id}.{row['seq']}.1"]  # for a write that might still be on its way
    records.let_all_be_swept(http)
    assert records.loose(store_id) == []
    assert not stage.qdrant.chunks(store_id)
    assert '"level": "error"' not in capfd.readouterr().err


def test_a_file_that_was_cancelled_can_be_put_in_again(stage: Stage) -> None:
    store_id, file_id, batch_id = stage.begun()
    stage.http.post(f"vector_stores/{store_id}/file_batches/{batch_id}/cancel").raise_for_status()
    stage.embeddings.release()
    put_in(stage.http, store_id, [file_id])
    stage.check_complete(store_id, {"kept": file_id})


def test_who_has_completed_a_file_takes_nothing_of_it_back(loop: Loop, database_url: str) -> None:
    """A heartbeat that meets the commit finds no lease any more either: the last that it does is to discard."""
    with staged(loop, database_url, database_url, executor=False) as stage:
        resources, parser = stage.server.resources, open_parser()
        store_id, file_id = new_store(stage.http), upload(stage.http, text("kept", 10))
        put_in(stage.http, store_id, [file_id])
        [lease] = loop.run(FILES.claim(resources.database, "me", 1))
        loop.run(ingest(lease, resources, parser))
        loop.run(ingest(lease, resources, parser))
        stage.check_complete(store_id, {"kept": file_id})
        assert stage.qdrant.chunks(store_id).total() == 10


def test_a_loss_that_is_found_out_twice_is_cleared_away_once_and_whole(loop: Loop, database_url: str) -> None:
    """By the executor, and by a heartbeat while the executor takes back what it has written."""
    with staged(loop, database_url, database_url, executor=False) as stage:
        resources, records = stage.server.resources, stage.records
        store_id, file_id = new_store(stage.http), upload(stage.http, text("gone", 10))
        put_in(stage.http, store_id, [file_id])

        async def scenario() -> None:
            worker = Worker(
                resources.database,
                resources.wakeup.another(),
                FILES,
                partial(ingest, resources=resources, parser=open_parser()),
                name="me",
                concurrency=1,
            )
            [lease] = await FILES.claim(resources.database, "me", 1)
            for table in ("vector_store_files", "loose_chunks"):  # swept already
                await execute(resources.database, f"DELETE FROM {table}")
            async with resources.database.transaction() as tx:
                await tx._target.execute("LOCK TABLE loose_chunks")
                worker.start(lease)
                while not await execute(resources.database, "SELECT 1 FROM pg_locks WHERE NOT granted"):
                    await asyncio.sleep(0.005)
                await worker._renew()
                await asyncio.sleep(0.05)
            await worker.stop()

        [seq] = [row["seq"] for row in records.files(store_id)]
        loop.run(scenario())
        assert records.loose(store_id) == [f"{file_id}.{seq}.1"]


# --- Changed


def test_attributes_that_change_meanwhile_are_what_is_filtered_by(stage: Stage) -> None:
    store_id, file_id, _ = stage.begun(requests=2)
    changed = stage.http.post(f"vector_stores/{store_id}/files/{file_id}", json={"attributes": {"year": 2024}})
    changed.raise_for_status()
    stage.embeddings.release()
    stage.check_complete(store_id, {"kept": file_id})

    def found(year: int) -> int:
        sent = {"query": "kept", "filters": {"type": "eq", "key": "year", "value": year}, "max_num_results": 50}
        return len(stage.http.post(f"vector_stores/{store_id}/search", json=sent).json()["data"])

    assert (found(2024), found(2023)) == (50, 0)
    assert stage.http.get(f"vector_stores/{store_id}/files/{file_id}").json()["attributes"] == {"year": 2024}


# --- What is needed is gone


def test_a_file_whose_bytes_are_missing_fails_and_says_so(stage: Stage) -> None:
    stage.embeddings.hold_after(0)
    store_id, lost, kept = new_store(stage.http), upload(stage.http, "lost"), upload(stage.http, text("kept", 5))
    (stage.server.resources.settings.data_dir / "storage" / "files" / lost).unlink()
    put_in(stage.http, store_id, [lost, kept])
    stage.embeddings.release()
    assert until_settled(stage.http, store_id)["failed"] == 1
    shown = stage.http.get(f"vector_stores/{store_id}/files/{lost}").json()
    message = "The content of the file is not in the storage of this server any more. Upload it again."
    assert shown["last_error"] == {"code": "server_error", "message": message}
    assert found_by(stage.http, store_id, "kept") == [kept]


def test_a_storage_that_is_gone_for_a_while_is_waited_for(stage: Stage, tmp_path: Path) -> None:
    storage = stage.server.resources.settings.data_dir / "storage"
    store_id, file_id = new_store(stage.http), upload(stage.http, text("kept", 5))
    storage.rename(tmp_path / "elsewhere")
    put_in(stage.http, store_id, [file_id])
    eventually(lambda: stage.records.files(store_id)[0]["failures"] >= 2)
    shutil.rmtree(storage, ignore_errors=True)
    (tmp_path / "elsewhere").rename(storage)
    stage.records.let_retry_now()
    stage.check_complete(store_id, {"kept": file_id})


def test_a_database_that_is_gone_in_the_middle_is_waited_for_and_costs_no_attempt(
    loop: Loop, database_url: str
) -> None:
    with loop.stack() as opened:
        cut = loop.run(opened.enter_async_context(cuttable(database_url)))
        with staged(loop, cut.dsn, database_url) as stage:
            store_id, file_id, _ = stage.begun(requests=2)
            loop.run(cut.set(True))
            eventually(lambda: stage.http.get(f"vector_stores/{store_id}").status_code == 503)
            stage.embeddings.release()
            eventually(lambda: httpx.get(f"{stage.server.url}/readyz").status_code == 503)
            loop.run(cut.set(False))
            eventually(lambda: stage.http.get(f"vector_stores/{store_id}").status_code == 200)
            stage.check_complete(store_id, {"kept": file_id})
            [row] = stage.records.files(store_id)
            assert (row["attempt"], row["failures"], row["abandoned"]) == (1, 0, 0)
