"""Hostile and large files through the whole path: each comes to its end, and the server stays small and answers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from adlatus.retrieval.parse import TOO_LARGE, Failure
from adlatus.wire.files import MAX_FILE_BYTES
from tests.faults.processes import Process, data_folder, serve
from tests.retrieval.hostile import BAD_FILES, Bad
from tests.retrieval.ingesting import counts, new_store, text, until_settled, upload

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

Json = dict[str, Any]
MOST_GROWTH = 64 * 2**20
BOUNDARY = "tests"
REFUSED_AT_ONCE = {"empty", "hostile name"}
"""What an upload refuses already."""


@pytest.fixture(scope="module")
def server() -> Iterator[Process]:
    """A server that has indexed a file: what it needs for good is there."""
    with data_folder() as folder, serve(folder) as server:
        with server.client() as http:
            store_id = new_store(http)
            put_in_alone(http, store_id, upload(http, text("first", 200)))
            assert until_settled(http, store_id)["completed"] == 1
        yield server
        assert server.stop() == 0


class Memory:
    """How much memory a process needs at most."""

    def __init__(self, process: Process) -> None:
        self._status = Path(f"/proc/{process.pid}/status")
        Path(f"/proc/{process.pid}/clear_refs").write_text("5")  # the most counts from now on
        self._before = psutil.Process(process.pid).memory_info().rss

    def growth(self) -> int:
        """By how many bytes it had grown when it was largest."""
        [line] = [line for line in self._status.read_text().splitlines() if line.startswith("VmHWM:")]
        return int(line.split()[1]) * 1024 - self._before


def put_in_alone(http: httpx.Client, store_id: str, file_id: str) -> None:
    http.post(f"vector_stores/{store_id}/files", json={"file_id": file_id}).raise_for_status()


def test_every_hostile_file_comes_to_its_end_and_the_server_stays_small(server: Process) -> None:
    with server.client() as http:
        http.timeout = 120
        store_id, sent, refused = new_store(http), dict[str, str](), set[str]()
        memory = Memory(server)
        for name, bad in BAD_FILES.items():
            file = {"file": (bad.filename, bad.content())}
            response = http.post("files", data={"purpose": "assistants"}, files=file)
            if response.status_code == 400:
                refused.add(name)
                continue
            sent[name] = response.json()["id"]
            put_in_alone(http, store_id, sent[name])
        assert refused <= REFUSED_AT_ONCE
        assert len(sent) > 50
        until_settled(http, store_id, within_s=600)
        for name, file_id in sent.items():
            shown = http.get(f"vector_stores/{store_id}/files/{file_id}").json()
            assert ended_as(shown) in ends_of(BAD_FILES[name]), (name, shown)
        assert memory.growth() < MOST_GROWTH
        assert parsers(server) == []
        for told in ("Traceback", "executor failed", "is tried again"):
            assert told not in server.log


def ended_as(shown: Json) -> str:
    return str(shown["last_error"]["code"] if shown["last_error"] else shown["status"])


def ends_of(bad: Bad) -> set[str]:
    """How a file may end: a server allows longer texts than the tests of the parser do."""
    outcomes = [outcome for outcome in (bad.outcome, bad.also) if outcome is not None]
    ends = {outcome.code if isinstance(outcome, Failure) else "completed" for outcome in outcomes}
    return ends | ({"completed"} if TOO_LARGE in outcomes else set())


def parsers(server: Process) -> list[psutil.Process]:
    children = psutil.Process(server.pid).children(recursive=True)
    return [child for child in children if any("parsing.worker" in word for word in child.cmdline())]


def test_a_file_of_spaces_as_large_as_may_be_needs_little_memory(server: Process) -> None:
    piece = b" " * 2**18

    def form() -> Iterator[bytes]:
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nassistants\r\n'.encode()
        yield f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="a.txt"\r\n\r\n'.encode()
        for _ in range(MAX_FILE_BYTES // len(piece)):
            yield piece
        yield f"\r\n--{BOUNDARY}--\r\n".encode()

    with server.client() as http:
        http.timeout = 300
        memory, store_id = Memory(server), new_store(http)
        headers = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
        shown = http.post("files", content=form(), headers=headers).raise_for_status().json()
        assert shown["bytes"] == MAX_FILE_BYTES
        assert memory.growth() < MOST_GROWTH
        put_in_alone(http, store_id, shown["id"])
        until_settled(http, store_id, within_s=600)
        file = http.get(f"vector_stores/{store_id}/files/{shown['id']}").json()
        assert file["last_error"] == {"code": "invalid_file", "message": TOO_LARGE.message}
        assert memory.growth() < MOST_GROWTH
        http.delete(f"files/{shown['id']}").raise_for_status()


def test_requests_are_answered_while_a_large_text_is_indexed(server: Process) -> None:
    large = "A sentence of a large text, which is about nothing but harbours and boats.\n" * 270_000
    assert len(large) > 20_000_000
    with server.client() as http:
        store_id, file_id = new_store(http), upload(http, large)
        memory = Memory(server)
        put_in_alone(http, store_id, file_id)
        url = f"{server.url}/healthz"
        http.timeout, answered = 5, 0
        while counts(http, store_id)["in_progress"] and answered < 1000:
            assert http.get(url).status_code == 200
            answered += 1
        assert answered >= 100
        assert memory.growth() < MOST_GROWTH
        http.delete(f"files/{file_id}").raise_for_status()
