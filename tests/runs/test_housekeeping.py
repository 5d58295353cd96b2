"""What all processes do for all: at once, again, and after a fault, it is done once and does no harm."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from structlog.testing import capture_logs

from adlatus.errors import Unavailable
from adlatus.files import sweeping as of_files
from adlatus.housekeeping import forever
from adlatus.resources import Resources
from adlatus.retrieval import sweeping as of_chunks
from adlatus.runs.expiry import expire
from adlatus.settings import Settings
from adlatus.wire.runs import RunStatus
from tests.conftest import Loop, Server, serving
from tests.retrieval.qdrant_server import Qdrant, qdrant_server
from tests.runs.searching import store_of
from tests.runs.stored import add_leased, execute, put
from tests.runs.transcripts import client_of, sent

MANY = 30


@pytest.fixture(scope="module")
def qdrant() -> Iterator[Qdrant]:
    with qdrant_server() as qdrant:
        yield qdrant


@pytest.fixture(scope="module")
def servers(
    loop: Loop, new_database: Callable[[], str], qdrant: Qdrant, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Server]]:
    """Two of one database, which share all that they keep; the first executes."""
    storage = f"file://{tmp_path_factory.mktemp('storage')}"
    settings = Settings(database_url=new_database(), storage_url=storage, **qdrant.settings)
    with ExitStack() as stack:
        yield [stack.enter_context(serving(loop, settings, executor=executor)) for executor in (True, False)]


@pytest.fixture
def client(servers: list[Server]) -> Iterator[httpx.Client]:
    with client_of(servers[0]) as http:
        yield http


def by_all(servers: list[Server], sweep: Callable[[Resources], Coroutine[Any, Any, Any]]) -> list[Any]:
    """What comes of a sweep that all of them do several times over, at once."""

    async def together() -> list[Any]:
        return await asyncio.gather(*(sweep(server.resources) for server in servers * 3))

    return servers[0].loop.run(together())


def test_runs_expire_once(servers: list[Server]) -> None:
    loop, database = servers[0].loop, servers[0].resources.database

    async def prepare() -> None:
        for _ in range(MANY):
            lease = await add_leased(database)
            await put(database, lease.run_id, RunStatus.REQUIRES_ACTION)
        await execute(database, "UPDATE runs SET expires_at = 1")

    async def sweep(resources: Resources) -> int:
        ended = await expire(resources.database, resources.events)
        await resources.events.write()
        return ended

    loop.run(prepare())
    assert sum(by_all(servers, sweep)) <= MANY  # the servers' own may have come first
    rows = loop.run(execute(database, "SELECT status, attempt FROM runs"))
    assert [(row["status"], row["attempt"]) for row in rows] == [("expired", 2)] * MANY
    told = "SELECT count(*) AS times FROM run_events WHERE position('event: thread.run.expired' IN frames) > 0"
    [row] = loop.run(execute(database, told))
    assert row["times"] == MANY


def test_files_uploads_and_their_bytes_go_once(servers: list[Server], client: httpx.Client, tmp_path: Path) -> None:
    loop, database = servers[0].loop, servers[0].resources.database
    for _ in range(MANY):
        sent(client.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"Hello")}))
    upload = {"purpose": "assistants", "filename": "a.txt", "bytes": 5, "mime_type": "text/plain"}
    upload_id = sent(client.post("/uploads", json=upload))["id"]
    sent(client.post(f"/uploads/{upload_id}/parts", files={"data": ("upload", b"Hello")}))
    loop.run(execute(database, "UPDATE files SET created_at = 1, expires_at = 2"))
    loop.run(execute(database, "UPDATE uploads SET created_at = 1, expires_at = 2"))
    by_all(servers, lambda resources: of_files.sweep(resources.database, resources.blobs))
    assert loop.run(execute(database, "SELECT 1 FROM files")) == []
    assert loop.run(execute(database, "SELECT 1 FROM loose_blobs")) == []
    [row] = loop.run(execute(database, "SELECT status FROM uploads"))
    assert row["status"] == "expired"
    storage = Path(servers[0].resources.blobs.shown.removeprefix("folder "))
    assert [path.name for path in storage.rglob("*") if path.is_file()] == ["probe"]


def test_the_chunks_of_expired_stores_go_once(servers: list[Server], client: httpx.Client, qdrant: Qdrant) -> None:
    loop, database = servers[0].loop, servers[0].resources.database
    sent_file = sent(client.post("/files", data={"purpose": "assistants"}, files={"file": ("a.txt", b"Hello")}))
    stores = [store_of(client, sent_file["id"]) for _ in range(3)]
    assert all(qdrant.chunks(store_id) for store_id in stores)
    expired = "UPDATE vector_stores SET expires_after_days = 1, created_at = 1, last_active_at = 1"
    loop.run(execute(database, expired))
    by_all(servers, of_chunks.sweep)
    assert not any(qdrant.chunks(store_id) for store_id in stores)
    assert loop.run(execute(database, "SELECT 1 FROM loose_chunks")) == []
    assert [store["status"] for store in sent(client.get("/vector_stores"))["data"]] == ["expired"] * 3


def test_events_are_pruned_once(servers: list[Server]) -> None:
    loop, database = servers[0].loop, servers[0].resources.database

    async def prepare() -> None:
        for number in range(MANY):
            await servers[0].resources.events.tell(f"run_{number}", 0, [b"event: done\ndata: [DONE]\n\n"])
        await execute(database, "UPDATE run_events SET written_at = now() - interval '25 hours'")

    loop.run(prepare())
    by_all(servers, lambda resources: resources.events.prune())
    assert loop.run(execute(database, "SELECT 1 FROM run_events")) == []


def test_neither_an_outage_nor_a_fault_ends_what_is_done_for_all(loop: Loop) -> None:
    async def scenario() -> list[str]:
        outcomes: list[Exception | None] = [Unavailable("Nobody answers."), ValueError("broken"), None]
        done = asyncio.Event()

        async def sweep() -> None:
            outcome = outcomes.pop(0)
            if outcome is None:
                done.set()
                await asyncio.Event().wait()
            else:
                raise outcome

        with capture_logs() as logged:
            task = asyncio.create_task(forever("nothing is swept", 0, sweep))
            async with asyncio.timeout(60):
                await done.wait()
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        return [entry["event"] for entry in logged]

    assert loop.run(scenario()) == ["nothing is swept", "nothing is swept; this is a fault"]
