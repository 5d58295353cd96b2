"""Files that are being made searchable while processes, databases, indexes and endpoints fail."""

import shutil
import signal
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adlatus.settings import Settings
from tests.conftest import Loop, serving
from tests.faults.processes import Process, adlatus, data_folder, serve
from tests.retrieval.embedding_server import Embeddings, embedding_server
from tests.retrieval.ingesting import (
    Records,
    counts,
    edge_chunks,
    found_by,
    new_store,
    put_in,
    text,
    until_settled,
    upload,
)
from tests.retrieval.qdrant_server import Qdrant, qdrant_server
from tests.runs.transcripts import client_of, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def embeddings() -> Iterator[Embeddings]:
    with embedding_server() as embeddings:
        yield embeddings


@dataclass(frozen=True)
class Deployment:
    """A database, an index, a storage and an embedding endpoint that outlive every process which shares them."""

    folder: Path
    records: Records
    qdrant: Qdrant
    embeddings: Embeddings

    @property
    def settings(self) -> dict[str, Any]:
        return {"database_url": self.records.dsn, **self.qdrant.settings, **self.embeddings.settings}

    @contextmanager
    def front(self) -> Iterator[httpx.Client]:
        """The client of a server, of this process, that leaves all work to others."""
        settings = Settings(data_dir=self.folder, **self.settings)
        with serving(self.records.loop, settings, executor=False) as server, client_of(server) as http:
            http.base_url = httpx.URL(server.base_url)
            yield http

    def serve(self) -> AbstractContextManager[Process]:
        return serve(self.folder, **self.settings)

    def worker(self) -> AbstractContextManager[Process]:
        return adlatus("worker", "--only", "ingestion", "--data-dir", str(self.folder), **self.settings)

    def check_complete(self, http: httpx.Client, store_id: str, markers: dict[str, str]) -> None:
        """Every file is completed, and in the index as often as its row says, and nothing else is there."""
        assert until_settled(http, store_id)["completed"] == len(markers)
        self.records.let_all_be_swept(http)
        assert self.qdrant.chunks(store_id) == self.records.expected(store_id)
        assert self.records.loose(store_id) == []
        check_found(http, store_id, markers)


def check_found(http: httpx.Client, store_id: str, markers: dict[str, str]) -> None:
    """Every file is found by its own marker, and once."""
    for marker, file_id in markers.items():
        assert found_by(http, store_id, marker) == [file_id]


@pytest.fixture
def deployment(loop: Loop, database_url: str, embeddings: Embeddings) -> Iterator[Deployment]:
    folder = Path(tempfile.mkdtemp(prefix="adlatus-serve-", dir="/tmp"))
    with qdrant_server() as qdrant:
        yield Deployment(folder, Records(loop, database_url), qdrant, embeddings)
    shutil.rmtree(folder)


def upload_all(http: httpx.Client, files: int, chunks: int) -> dict[str, str]:
    """Files of so many chunks: their ids by their markers."""
    return {f"marker{n}": upload(http, text(f"marker{n}", chunks)) for n in range(files)}


def no_fault(process: Process) -> None:
    for told in ("Traceback", "exception", "executor failed", "at fault", "a fault"):
        assert told not in process.log


# --- Processes that die


def test_a_killed_server_of_an_embedded_database_makes_all_files_searchable_after_its_restart(
    loop: Loop, embeddings: Embeddings
) -> None:
    with data_folder() as folder:
        embeddings.hold_after(20)
        with serve(folder, **embeddings.settings) as server, server.client() as http:
            markers = upload_all(http, files=12, chunks=100)
            store_id = new_store(http)
            put_in(http, store_id, list(markers.values()))
            eventually(lambda: embeddings.asked > 21)  # both places are in the middle of a file
            shown = counts(http, store_id)
            assert 0 < shown["completed"] < 12
            server.kill()
        embeddings.release()
        with serve(folder, **embeddings.settings) as server, server.client() as http:
            assert until_settled(http, store_id)["completed"] == 12
            records = Records.of_folder(loop, folder)
            check_found(http, store_id, markers)
            records.let_all_be_swept(http)
            assert records.loose(store_id) == []
            rows, expected = records.files(store_id), records.expected(store_id)
            assert server.stop() == 0
            no_fault(server)
        assert {row["abandoned"] for row in rows} == {0, 1}
        assert set(expected.values()) == {100}
        assert edge_chunks(loop, folder, store_id, [*expected]) == (expected, 12 * 100)


def test_a_killed_worker_of_a_shared_database_is_replaced_by_another(deployment: Deployment) -> None:
    embeddings, records = deployment.embeddings, deployment.records
    embeddings.hold_after(20)
    with deployment.front() as http:
        markers = upload_all(http, files=12, chunks=100)
        store_id = new_store(http)
        with deployment.worker() as worker:
            put_in(http, store_id, list(markers.values()))
            eventually(lambda: embeddings.asked > 21)
            worker.kill()
        assert 0 < counts(http, store_id)["completed"] < 12
        embeddings.release()
        assert records.let_leases_run_out() == 2
        with deployment.worker() as worker:
            deployment.check_complete(http, store_id, markers)
            assert worker.stop() == 0
            no_fault(worker)
        assert sorted(row["attempt"] for row in records.files(store_id)) == [1] * 10 + [2] * 2


def test_a_worker_that_was_asleep_until_another_took_over_leaves_nothing(deployment: Deployment) -> None:
    records, qdrant = deployment.records, deployment.qdrant
    with deployment.front() as http:
        markers = upload_all(http, files=1, chunks=100)
        store_id = new_store(http)
        with deployment.worker() as sleeper:
            qdrant.hold_writes()
            put_in(http, store_id, list(markers.values()))
            eventually(lambda: qdrant.held)
            sleeper.send(signal.SIGSTOP)
            records.let_leases_run_out()
            qdrant.release_writes()
            with deployment.worker() as other:
                deployment.check_complete(http, store_id, markers)
                [row] = records.files(store_id)
                assert (row["attempt"], row["abandoned"]) == (2, 1)
                sleeper.send(signal.SIGCONT)
                eventually(lambda: "nothing more is written" in sleeper.log)
                eventually(lambda: records.loose(store_id))  # what it had written is noted to be deleted
                deployment.check_complete(http, store_id, markers)
                no_fault(other)
            assert sleeper.stop() == 0
            no_fault(sleeper)


@pytest.mark.parametrize("what", ["file taken out", "store deleted"])
@pytest.mark.parametrize("then", ["goes on", "dies"])
def test_what_a_worker_writes_after_it_was_swept_goes_again(deployment: Deployment, what: str, then: str) -> None:
    records, qdrant = deployment.records, deployment.qdrant
    with deployment.front() as http, deployment.worker() as late:
        markers = upload_all(http, files=1, chunks=100)
        store_id = new_store(http)
        qdrant.hold_writes()
        put_in(http, store_id, list(markers.values()))
        eventually(lambda: qdrant.held)
        late.send(signal.SIGSTOP)
        out = f"vector_stores/{store_id}" + (f"/files/{markers['marker0']}" if what == "file taken out" else "")
        http.delete(out).raise_for_status()  # which sweeps
        if then == "goes on":
            records.let_all_be_swept(http)
            assert records.loose(store_id) == []
        qdrant.release_writes()
        eventually(lambda: qdrant.chunks(store_id))
        if then == "goes on":
            late.send(signal.SIGCONT)
            eventually(lambda: not qdrant.chunks(store_id))
            assert late.stop() == 0
            no_fault(late)
        else:
            late.kill()
            records.let_all_be_swept(http)
            assert not qdrant.chunks(store_id)


def test_three_processes_that_die_with_a_file_are_enough(deployment: Deployment) -> None:
    embeddings, records = deployment.embeddings, deployment.records
    with deployment.front() as http:
        store_id = new_store(http)
        put_in(http, store_id, [upload(http, text("killer", 40))])
        for died in range(3):
            embeddings.hold_after(0)
            asked = embeddings.asked
            with deployment.worker() as worker:
                eventually(lambda asked=asked: embeddings.asked > asked)  # type: ignore[misc]
                worker.kill()
            [row] = records.files(store_id)
            assert (row["status"], row["abandoned"]) == ("in_progress", died)
            records.let_leases_run_out()
            embeddings.release()
        asked = embeddings.asked
        with deployment.worker() as worker:
            assert until_settled(http, store_id)["failed"] == 1
            assert worker.stop() == 0
        [shown] = http.get(f"vector_stores/{store_id}/files").json()["data"]
        assert shown["last_error"] == {"code": "server_error", "message": "The file could not be processed."}
        assert embeddings.asked == asked
        records.let_all_be_swept(http)
        assert not deployment.qdrant.chunks(store_id)


def test_two_processes_share_a_batch_and_index_each_file_once(deployment: Deployment) -> None:
    with deployment.serve() as server, server.client() as http, deployment.worker() as worker:
        markers = upload_all(http, files=40, chunks=20)
        store_id = new_store(http)
        batch_id = put_in(http, store_id, list(markers.values()))
        deployment.check_complete(http, store_id, markers)
        rows = deployment.records.files(store_id)
        assert {(row["attempt"], row["chunks"], row["failures"]) for row in rows} == {(1, 20, 0)}
        shown = http.get(f"vector_stores/{store_id}/file_batches/{batch_id}").json()
        assert (shown["status"], shown["file_counts"]["completed"]) == ("completed", 40)
        indexed = [process.log.count("file can be searched") for process in (server, worker)]
        assert sum(indexed) == 40
        assert all(indexed)
        for process in (server, worker):
            assert process.stop() == 0
            no_fault(process)


def test_a_stop_hands_files_back_and_the_next_start_goes_on(deployment: Deployment) -> None:
    embeddings, records = deployment.embeddings, deployment.records
    embeddings.hold_after(2)
    with deployment.front() as http:
        markers = upload_all(http, files=2, chunks=100)
        store_id = new_store(http)
        with deployment.worker() as worker:
            put_in(http, store_id, list(markers.values()))
            eventually(lambda: embeddings.asked == 4)
            assert worker.stop() == 0
            assert worker.log.count("work handed back") == 2
            no_fault(worker)
        rows = records.files(store_id)
        assert {(row["status"], row["lease_token"], row["abandoned"]) for row in rows} == {("in_progress", None, 0)}
        embeddings.release()
        with deployment.worker() as worker:
            deployment.check_complete(http, store_id, markers)
            assert worker.stop() == 0


# --- What is needed fails


def test_a_vector_engine_that_is_killed_is_started_again_and_nothing_is_lost(
    loop: Loop, embeddings: Embeddings
) -> None:
    with data_folder() as folder:
        with serve(folder, **embeddings.settings) as server, server.client() as http:
            markers = upload_all(http, files=8, chunks=100)
            store_id = new_store(http)
            put_in(http, store_id, list(markers.values()))
            for done in (1, 4):
                eventually(lambda done=done: counts(http, store_id)["completed"] >= done)  # type: ignore[misc]
                [engine] = engines(server)
                engine.kill()
            records = Records.of_folder(loop, folder)
            eventually(records.retrying(lambda: counts(http, store_id)["completed"] == 8))
            check_found(http, store_id, markers)
            records.let_all_be_swept(http)
            expected = records.expected(store_id)
            assert server.stop() == 0
            no_fault(server)
        assert set(expected.values()) == {100}
        assert edge_chunks(loop, folder, store_id, [*expected]) == (expected, 8 * 100)


def engines(server: Process) -> list[psutil.Process]:
    """The processes of the embedded index of a server."""
    children = psutil.Process(server.pid).children()
    return [child for child in children if any("edge_engine" in word for word in child.cmdline())]


def test_a_vector_database_that_is_down_for_a_while_is_waited_for(deployment: Deployment) -> None:
    embeddings, records, qdrant = deployment.embeddings, deployment.records, deployment.qdrant
    embeddings.hold_after(3)
    with deployment.serve() as server, server.client() as http:
        markers = upload_all(http, files=4, chunks=100)
        store_id = new_store(http)
        put_in(http, store_id, list(markers.values()))
        eventually(lambda: embeddings.asked == 5)
        qdrant.down = True
        embeddings.release()
        eventually(lambda: sum(row["failures"] for row in records.files(store_id)) >= 4)
        assert counts(http, store_id)["in_progress"] == 4
        qdrant.down = False
        records.let_retry_now()
        deployment.check_complete(http, store_id, markers)
        assert server.stop() == 0
        no_fault(server)


def test_an_embedding_endpoint_that_fails_every_third_time_only_takes_longer(deployment: Deployment) -> None:
    deployment.embeddings.fail_every = 3
    with deployment.serve() as server, server.client() as http:
        markers = upload_all(http, files=6, chunks=100)
        store_id = new_store(http)
        put_in(http, store_id, list(markers.values()))
        deployment.check_complete(http, store_id, markers)
        assert {row["failures"] for row in deployment.records.files(store_id)} == {0}
        assert server.stop() == 0


def test_an_embedding_endpoint_that_refuses_for_good_fails_the_file_and_says_why(deployment: Deployment) -> None:
    embeddings, records = deployment.embeddings, deployment.records
    embeddings.refusal = 401
    with deployment.serve() as server, server.client() as http:
        store_id, file_id = new_store(http), upload(http, text("kept", 10))
        put_in(http, store_id, [file_id])
        eventually(records.retrying(lambda: counts(http, store_id)["failed"] == 1))
        assert embeddings.asked == 10
        shown = http.get(f"vector_stores/{store_id}/files/{file_id}").json()
        assert shown["last_error"]["code"] == "server_error"
        assert "tried 10 times" in shown["last_error"]["message"]
        assert "ADLATUS_EMBEDDING_API_KEY" in shown["last_error"]["message"]
        assert "business" not in shown["last_error"]["message"]
        embeddings.refusal = 0
        put_in(http, store_id, [file_id])  # once more: it had failed
        deployment.check_complete(http, store_id, {"kept": file_id})
        assert server.stop() == 0
