"""Servers that are killed while files come in."""

import os
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.conftest import BETA, Loop
from tests.faults.processes import serve
from tests.runs.transcripts import eventually

PIECE = os.urandom(2**16)
SENDERS = 4


@pytest.fixture
def folder() -> Iterator[Path]:
    root = Path(tempfile.mkdtemp(prefix="adlatus-serve-", dir="/tmp"))
    yield root
    shutil.rmtree(root)


def send_until_it_breaks(url: str, acknowledged: list[str], size_pieces: int) -> None:
    """Send files, one after the other, and note the ids of those whose answer has come."""
    with httpx.Client(base_url=f"{url}/v1", headers=BETA, timeout=30) as client, suppress(httpx.TransportError):
        while True:
            sent = {"file": ("random.bin", PIECE * size_pieces)}
            acknowledged.append(client.post("files", data={"purpose": "vision"}, files=sent).json()["id"])


async def let_all_be_due(dsn: str) -> int:
    connection = await asyncpg.connect(dsn)
    try:
        return len(await connection.fetch("UPDATE loose_blobs SET due_at = 0 RETURNING key"))
    finally:
        await connection.close()


@pytest.mark.slow
@pytest.mark.parametrize("size_pieces", [1, 300], ids=["small files", "files of 19 MB"])
def test_a_server_that_is_killed_keeps_what_it_has_acknowledged_and_nothing_else(
    folder: Path, loop: Loop, new_database: Callable[[], str], size_pieces: int
) -> None:
    dsn, acknowledged = new_database(), list[str]()
    with serve(folder, database_url=dsn) as server:
        senders = [
            threading.Thread(target=send_until_it_breaks, args=(server.url, acknowledged, size_pieces))
            for _ in range(SENDERS)
        ]
        for sender in senders:
            sender.start()
        eventually(lambda: len(acknowledged) >= 2 * SENDERS)
        server.kill()
        for sender in senders:
            sender.join(30)
    with serve(folder, database_url=dsn) as server, server.client() as http:
        for file_id in acknowledged:
            assert http.get(f"files/{file_id}/content").content == PIECE * size_pieces
        listed = {each["id"] for each in http.get("files").json()["data"]}
        assert set(acknowledged) <= listed
        assert len(listed) <= len(acknowledged) + SENDERS
        assert loop.run(let_all_be_due(dsn)) <= SENDERS
        assert server.stop() == 0
    with serve(folder, database_url=dsn) as server, server.client() as http:
        files = folder / "storage" / "files"
        eventually(lambda: {path.name for path in files.iterdir()} == listed)
        eventually(lambda: loop.run(let_all_be_due(dsn)) == 0)
        assert server.stop() == 0
