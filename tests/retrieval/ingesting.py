"""Files that are being made searchable: put in over HTTP, looked at in the database and in the index."""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import httpx

from adlatus.backends.postgres import attach
from adlatus.backends.vectors.edge import open_edge
from adlatus.backends.vectors.protocol import Space
from adlatus.store.leases import WAKE_CHANNEL
from tests.conftest import Loop
from tests.retrieval.embedding_server import DIMENSIONS, MODEL

Json = dict[str, Any]
SPACE = Space(MODEL, DIMENSIONS)
CHUNK_TOKENS = 100
SMALL_CHUNKS = {"type": "static", "static": {"max_chunk_size_tokens": CHUNK_TOKENS, "chunk_overlap_tokens": 0}}
DEADLINE_S = 60


def text(marker: str, chunks: int) -> str:
    """A text of so many chunks of 100 tokens, the last one shorter. Its marker stands in the first of them only."""
    return f"{marker} " + "the harbour of the old town is full of boats again " * ((CHUNK_TOKENS * chunks - 50) // 11)


def upload(http: httpx.Client, content: str | bytes, name: str = "notes.txt") -> str:
    """The id of a new file."""
    sent = {"file": (name, content.encode() if isinstance(content, str) else content)}
    response = http.post("files", data={"purpose": "assistants"}, files=sent)
    assert response.status_code == 200, response.text
    file_id: str = response.json()["id"]
    return file_id


def new_store(http: httpx.Client) -> str:
    store_id: str = http.post("vector_stores", json={}).json()["id"]
    return store_id


def put_in(http: httpx.Client, store_id: str, file_ids: Sequence[str], **fields: Any) -> str:
    """The id of a batch that puts files into a store."""
    wanted = {"file_ids": list(file_ids), "chunking_strategy": SMALL_CHUNKS, **fields}
    response = http.post(f"vector_stores/{store_id}/file_batches", json=wanted)
    assert response.status_code == 200, response.text
    batch_id: str = response.json()["id"]
    return batch_id


def counts(http: httpx.Client, store_id: str) -> Json:
    """How many files of a store are in each status."""
    found: Json = http.get(f"vector_stores/{store_id}").json()["file_counts"]
    return found


def found_by(http: httpx.Client, store_id: str, marker: str) -> list[str]:
    """The ids of the files of all passages that a search for a marker finds, which have it."""
    sent = {"query": marker, "max_num_results": 50}
    response = http.post(f"vector_stores/{store_id}/search", json=sent)
    assert response.status_code == 200, response.text
    return [result["file_id"] for result in response.json()["data"] if marker in result["content"][0]["text"].split()]


def sweep(http: httpx.Client) -> None:
    """Have the server sweep what is due, which it does when something is deleted."""
    http.delete(f"vector_stores/{new_store(http)}").raise_for_status()


@dataclass(frozen=True)
class Records:
    """The database behind a server, past everything that Adlatus knows."""

    loop: Loop
    dsn: str

    @classmethod
    def of_folder(cls, loop: Loop, folder: Path) -> "Records":
        """Of the running server of a data folder."""
        attached = loop.run(attach(folder))
        assert attached is not None
        return cls(loop, attached.dsn)

    def execute(self, sql: str, *values: object) -> list[Json]:
        async def run() -> list[Json]:
            connection = await asyncpg.connect(self.dsn)
            try:
                return [dict(row) for row in await connection.fetch(sql, *values)]
            finally:
                await connection.close()

        return self.loop.run(run())

    def files(self, store_id: str) -> list[Json]:
        """The rows of a store's files, the oldest first."""
        return self.execute("SELECT * FROM vector_store_files WHERE vector_store_id = $1 ORDER BY seq", store_id)

    def expected(self, store_id: str) -> Counter[str]:
        """What the index should have of a store: chunks by key."""
        rows = self.files(store_id)
        return Counter({key_of(row): row["chunks"] for row in rows if row["status"] == "completed"})

    def loose(self, store_id: str) -> list[str]:
        """The keys that wait to be swept."""
        rows = self.execute("SELECT key FROM loose_chunks WHERE vector_store_id = $1", store_id)
        return [row["key"] for row in rows]

    def let_leases_run_out(self) -> int:
        """As if all who hold leases had been silent for long; how many there are."""
        expired = "UPDATE vector_store_files SET lease_expires_at = now() - interval '1 second'"
        return len(self.execute(f"{expired} WHERE lease_token IS NOT NULL RETURNING id"))

    def let_retry_now(self) -> None:
        """As if the wait before the next attempt were over."""
        self.execute(
            "WITH due AS (UPDATE vector_store_files SET retry_at = now() WHERE retry_at > now() RETURNING id) "
            "SELECT pg_notify($1, '') FROM due",
            WAKE_CHANNEL,
        )

    def retrying(self, look: Callable[[], bool]) -> Callable[[], bool]:
        """What looks, and lets nobody wait for the next attempt."""

        def looked() -> bool:
            self.let_retry_now()
            return look()

        return looked

    def let_all_be_swept(self, http: httpx.Client) -> None:
        """As if a minute had gone by since the last chunks became loose; and sweep them."""
        self.execute("UPDATE loose_chunks SET due_at = 0")
        sweep(http)


def key_of(row: Json) -> str:
    return f"{row['id']}.{row['seq']}.{row['attempt']}"


def edge_chunks(loop: Loop, folder: Path, store_id: str, keys: Sequence[str]) -> tuple[Counter[str], int]:
    """What the index of a data folder has of a store whose server is stopped: chunks by key, and all of them."""

    async def count() -> tuple[Counter[str], int]:
        async with open_edge(folder / "vectors") as index:
            found = {key: await index.count(SPACE, store_id, key) for key in keys}
            return Counter(found), await index.count(SPACE, store_id)

    return loop.run(count())


def until_settled(http: httpx.Client, store_id: str, within_s: float = DEADLINE_S) -> Json:
    """The counts of a store when none of its files is in progress any more."""
    give_up_at = time.monotonic() + within_s
    while (shown := counts(http, store_id))["in_progress"]:
        assert time.monotonic() < give_up_at, shown
        time.sleep(0.02)
    return shown
